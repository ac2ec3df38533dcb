"""Latency of ``result.module`` in torch, layer by layer: layouts for one example in plain order and for channels last.

Run from the root of the repository::

    python -m bench.torch_views [MODEL ...]

First what the cost model of ``torch-cpu`` goes by: a 1x1 convolution that reads all channels, half of them as a slice,
half of them picked, and half that are all there is.  Then each model, LAMP 50 %, random weights, one thread, time over
dense: forbid reads everything, naive picks, reorder makes slices of what it can, cheapest weighs for the memory in use.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import conv2d
from torchvision import models

from .cifar10 import ROOT

try:
    import prunec
except ImportError:  # a bare clone: the root of the repository is the package
    sys.path.insert(0, str(ROOT / ".dev"))
    import prunec

MODELS = ("resnet18", "resnet50", "squeezenet1_1", "efficientnet_b0")
LAYOUTS = {
    "forbid": "layout{copies=forbid},eliminate",
    "naive": "layout{copies=naive},eliminate",
    "reorder": "layout{copies=naive},eliminate,reorder",
    "cheapest": "layout{copies=cheapest,then=reorder},eliminate,reorder",
}
MEMORY = {"plain": torch.contiguous_format, "channels last": torch.channels_last}
_PIPELINE = "score{{method=lamp}},groups{{mode=unconstrained}},plan{{ratio=0.5}},{layout},fold"
_SIZES = ((56, 64), (28, 128), (14, 256), (7, 512))
_TURNS = 15


def times(runs: Sequence[Callable[[], object]], turns: int = _TURNS) -> list[float]:
    """Median milliseconds of each, in turns."""
    found = np.empty((turns, len(runs)))
    with torch.inference_mode():
        for k in range(turns):
            for j, run in enumerate(runs):
                start = time.perf_counter()
                run()
                found[k, j] = 1e3 * (time.perf_counter() - start)
    return [float(x) for x in np.median(found, 0)]


def picks() -> None:
    """Print what reading half of the channels takes."""
    print(f"{'one convolution, microseconds':30}{'all':>8}{'slice':>8}{'picked':>8}{'half':>8}")
    for size, channels in _SIZES:
        for name, memory in MEMORY.items():
            cells = "".join(f"{1e3 * t:8.0f}" for t in times(_reads(channels, size, memory), 60))
            print(f"{f'{channels} x {size} x {size}, {name}':30}{cells}")


def _reads(channels: int, size: int, memory: torch.memory_format) -> list[Callable[[], object]]:
    """A convolution of all channels, of half of them as a slice, picked, and made alone."""
    half = channels // 2
    index = torch.randperm(channels, generator=torch.Generator().manual_seed(0))[:half].sort()[0]
    x = torch.randn(1, channels, size, size).to(memory_format=memory)
    few, wide = (torch.randn(channels, n, 1, 1).to(memory_format=memory) for n in (half, channels))
    alone = x[:, :half].clone(memory_format=memory)
    return [
        lambda: conv2d(x, wide),
        lambda: conv2d(x[:, :half], few),
        lambda: conv2d(x.index_select(1, index), few),
        lambda: conv2d(alone, few),
    ]


def row(name: str, memory: torch.memory_format) -> list[float]:
    """The time of each layout, over that of the dense model."""
    torch.manual_seed(0)
    dense: torch.nn.Module = models.get_model(name, weights=None).eval().to(memory_format=memory)
    x: Tensor = torch.randn(1, 3, 224, 224).to(memory_format=memory)
    pipelines = [_PIPELINE.format(layout=layout) for layout in LAYOUTS.values()]
    compiled = [prunec.compile(dense, (x,), p, target="torch-cpu", verify=False, measure=False) for p in pipelines]
    modules = [module for result in compiled if (module := result.module) is not None]
    base, *found = times([partial(module, x) for module in (dense, *modules)])
    return [t / base for t in found]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print both tables."""
    parser = argparse.ArgumentParser(prog="python -m bench.torch_views", description=str(__doc__).partition("\n")[0])
    parser.add_argument("models", nargs="*", metavar="MODEL", default=MODELS, help="torchvision's names")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    picks()
    print(f"\n{'time/dense':30}" + "".join(f"{layout:>10}" for layout in LAYOUTS))
    for name in options.models:
        for memory, form in MEMORY.items():
            print(f"{f'{name}, {memory}':30}" + "".join(f"{ratio:10.3f}" for ratio in row(name, form)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
