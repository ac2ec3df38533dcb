"""Top-1 on CIFAR-10 without fine-tuning: all layers that read the same channels keep the same ones, or each its own.

Run from the root of the repository::

    python -m bench.unconstrained_accuracy            # an hour on one core, half of it once
    python -m bench.unconstrained_accuracy --short    # a check that it works, not a measurement

For each network of :mod:`bench.cifar_models` it prints a table and draws two panels: top-1 against the share that is
pruned, and against latency.  Nothing is trained after pruning.

The *share* is that of the layers' input channels which a layer no longer reads, or reads with zero weights; layers that
read the image are left out.  It means the same in both modes, while a unit does not: constrained, one unit is an input
of several layers.  What stands on the axis is the share that was reached, not the ratio that the planner was asked for.

The curves without *aligned* drop what the criterion ranks last and nothing else; aligned ones make channels in the
target's block, and unconstrained layers get the weights back of all that they read.  Latency is measured in ONNX
Runtime, one thread, batch 1, in turns with the dense network.  The last point of each curve is compiled with its proof.

The data are in ``$PRUNEC_DATA`` or ``../shared/data`` and are no part of the project; without them nothing is done.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from .accuracy_plot import draw
from .cifar10 import ROOT, Images, Settings, find_data, has_bf16, load, log, machine, top1
from .cifar_models import NETWORKS, Network
from .onnx_export import export
from .record import command, record

try:
    import prunec
except ImportError:  # a bare clone: the root of the repository is the package
    sys.path.insert(0, str(ROOT / ".dev"))
    import prunec

from prunec.artifact import Result
from prunec.runtime import compare

RESULTS = ROOT / "bench" / "results" / "unconstrained_accuracy.json"
METHODS = ("lamp", "l1", "l2", "fpgm")
IMAGE_CHANNELS = 3
TURNS = 4
"""Measurements of one point's latency."""

_TURN_S = 1.0


@dataclass(frozen=True)
class Curve:
    """A ``pipeline`` for any METHOD and RATIO, and the ``ratios`` that the planner is asked for."""

    pipeline: str
    ratios: tuple[float, ...]

    def at(self, method: str, ratio: float) -> str:
        """The pipeline for one of each."""
        return self.pipeline.replace("METHOD", method).replace("RATIO", str(ratio))


_UNCONSTRAINED = "groups{mode=unconstrained},score{method=METHOD}"
_END = "eliminate,fold,verify"

CURVES = {
    "constrained": Curve(
        f"score{{method=METHOD}},plan{{ratio=RATIO,align=1}},{_END}",
        (0.05, 0.1, 0.2, 0.3, 0.4),
    ),
    "unconstrained": Curve(
        f"{_UNCONSTRAINED},plan{{ratio=RATIO,align=1}},layout{{copies=forbid,align=1,restore=none}},{_END}",
        (0.05, 0.1, 0.2, 0.3, 0.4),
    ),
    "constrained, aligned": Curve(
        f"score{{method=METHOD}},plan{{ratio=RATIO}},{_END}",
        (0.05, 0.1, 0.2, 0.4),
    ),
    "unconstrained, aligned": Curve(
        f"{_UNCONSTRAINED},plan{{ratio=RATIO}},layout{{copies=forbid,restore=all}},{_END}",
        (0.2, 0.3, 0.4, 0.5),
    ),
}


@dataclass(frozen=True)
class Dense:
    """A trained network, and what its pruned forms are held against; ``example`` is two images."""

    model: nn.Module
    exported: onnx.ModelProto
    example: Tensor
    images: Images
    settings: Settings

    @classmethod
    def of(cls, network: Network, data: Path) -> Dense:
        """``network`` trained, or read from the cache."""
        settings = replace(network.settings, bf16=has_bf16())
        model = network.make(data, load(data, "train").first(settings.train_images), settings)
        example = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(settings.seed))
        images = load(data, "test").first(settings.test_images)
        return cls(model, export(model, example), example, images, settings)


@dataclass(frozen=True)
class Point:
    """A pruned network: ``asked`` of the planner and the ``share`` reached; ratios to dense; top-1 in percent."""

    curve: str
    asked: float
    share: float
    macs: float
    latency: float
    top1: float
    verified: bool


def share(dense: nn.Module, compact: nn.Module) -> float:
    """The share of the input channels of ``dense``'s layers that ``compact`` does not read, or with zero weights."""
    left = {name: weight.detach() for name, weight in compact.named_parameters()}
    wide = {n: w.shape[1] for n, w in dense.named_parameters() if w.ndim > 1 and w.shape[1] > IMAGE_CHANNELS}
    read = sum(int(left[name].transpose(0, 1).flatten(1).any(1).sum()) for name in wide if name in left)
    return 1 - read / sum(wide.values())


def pruned(dense: Dense, curve: Curve, method: str, ratio: float, *, verify: bool) -> Result:
    """What the pipeline of ``curve`` makes of a copy of the network."""
    model, pipeline = copy.deepcopy(dense.model), curve.at(method, ratio)
    return prunec.compile(model, (dense.example,), pipeline, seed=dense.settings.seed, verify=verify, measure=False)


def latency(dense: onnx.ModelProto, compact: onnx.ModelProto, turns: int) -> float:
    """compact/dense in ONNX Runtime: of several measurements that in which the dense network ran fastest.

    Where other processes use the same cores, a network that runs longer than the other is interrupted more often.
    """
    found = [compare(dense, compact, budget_s=_TURN_S) for _ in range(turns)]
    return min(found, key=lambda comparison: comparison.dense_ms).ratio


def point(dense: Dense, name: str, method: str, ratio: float, *, verify: bool, turns: int = TURNS) -> Point:
    """Prune by the curve ``name``, and measure."""
    result = pruned(dense, CURVES[name], method, ratio, verify=verify)
    module = result.module
    assert isinstance(module, nn.Module)
    reached = share(dense.model, module)
    accuracy = top1(module, dense.images, dense.settings)
    macs, taken = result.report["macs"]["ratio"], latency(dense.exported, result.onnx, turns)
    return Point(name, ratio, reached, macs, taken, accuracy, verify)


def points(dense: Dense, method: str, *, short: bool) -> Iterator[Point]:
    """All curves, point by point; a short run takes one of each and proves nothing."""
    for name, curve in CURVES.items():
        for ratio in curve.ratios[:1] if short else curve.ratios:
            start = time.perf_counter()
            last = ratio == curve.ratios[-1] and not short
            found = point(dense, name, method, ratio, verify=last, turns=1 if short else TURNS)
            log(f"{_line(found)}   {time.perf_counter() - start:.0f} s")
            yield found


def run(data: Path, names: Sequence[str], method: str, *, short: bool) -> dict[str, Any]:
    """Train, prune and measure; the result is what the JSON file holds."""
    start, networks = time.perf_counter(), {}
    for name in names:
        dense = Dense.of(NETWORKS[name].shortened() if short else NETWORKS[name], data)
        accuracy = top1(dense.model, dense.images, dense.settings)
        log(f"{name}: {accuracy:.2f} % dense")
        found = [asdict(p) for p in points(dense, method, short=short)]
        networks[name] = {"settings": asdict(dense.settings), "top1": accuracy, "points": found}
    return {
        "method": method,
        "pipelines": {name: curve.pipeline for name, curve in CURVES.items()},
        "machine": machine(),
        "versions": {"prunec": prunec.__version__},
        "seconds": round(time.perf_counter() - start, 1),
        "networks": networks,
    }


def table(result: dict[str, Any]) -> str:
    """The result as people read it: a line for each point, below its network."""
    lines = [f"{'':<24}{'asked':>7}{'share':>8}{'MACs':>8}{'latency':>9}{'top-1':>10}"]
    for name, network in result["networks"].items():
        images = network["settings"]["test_images"]
        lines += ["", f"{name}: {network['top1']:.2f} % dense, {images:,} images"]
        lines += [_line(Point(**found)) for found in network["points"]]
    lines += ["", f"{result['method']}, no fine-tuning, {result['seconds']:.0f} s: {result['command']}"]
    return "\n".join(lines)


def _line(found: Point) -> str:
    return (
        f"{found.curve:<24}{found.asked:>7.2f}{found.share:>8.3f}{found.macs:>8.3f}{found.latency:>9.3f}"
        f"{found.top1:>8.2f} %"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    description = str(__doc__).partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m bench.unconstrained_accuracy", description=description)
    parser.add_argument(
        "--short", action="store_true", help="a few images, a point a curve: a check, not a measurement"
    )
    parser.add_argument("--threads", type=int, help="threads of torch (default: all cores)")
    parser.add_argument("--models", nargs="+", choices=NETWORKS, default=list(NETWORKS), help="these networks alone")
    parser.add_argument("--method", choices=METHODS, default=METHODS[0], help="the criterion (default: %(default)s)")
    options = parser.parse_args(arguments)
    data = find_data()
    if data is None:
        return 0
    if options.threads:
        torch.set_num_threads(options.threads)
    result = run(data, options.models, options.method, short=options.short)
    result["command"] = command("bench.unconstrained_accuracy", arguments)
    print(table(result))
    if not options.short:
        record(result, RESULTS)
        draw(result, RESULTS.with_suffix(".svg"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
