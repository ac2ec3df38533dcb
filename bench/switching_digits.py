"""The portfolio that a trace is played to: a ResNet of four blocks on handwritten digits, whose accuracies are real.

The network is torchvision's ResNet with one basic block a stage (4.9 M parameters), which sees 8x8 images: heavy
enough that a session takes longer to make than a request to answer, and trained in half a minute.  Images have noise
added, since small variants know clean ones as well as large ones do.  Variants are pruned by prunec, and each is
trained on; their accuracy is that on the 450 test images, of which requests are batches.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

try:
    import prunec
except ImportError:  # a bare clone: the root of the repository is the package
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / ".dev"))
    import prunec

from prunec.ir.modules import load_module
from prunec.runtime.measured import with_measures
from prunec.runtime.portfolio import Portfolio
from prunec.runtime.prepare import machine
from prunec.runtime.store import Entry, writing

from .cifar10 import ROOT
from .switching_requests import Requests, requests
from .switching_variants import Variants, written

digits = load_module(str(ROOT / "examples" / "digits.py"))

MACS = (0.4, 0.15, 0.06, 0.03)
"""Of the dense network's, that the others keep."""

NOISE = 0.7
"""Standard deviation of what is added to images, which are in [-1, 1]."""

BATCH = 16
"""Images of a request."""

KINDS = 32
"""Requests that differ."""

THREADS = 1
"""Of a session: the client has a core of its own."""

_TIMED = 30


@dataclass(frozen=True)
class Images:
    """Training images and labels, test images and labels."""

    x: Tensor
    y: Tensor
    x_test: Tensor
    y_test: Tensor


def images(seed: int) -> Images:
    """The digits, with noise."""
    x, x_test, y, y_test = digits.digits()
    draw = torch.Generator().manual_seed(seed)
    x, x_test = (part + NOISE * torch.randn(part.shape, generator=draw) for part in (x, x_test))
    return Images(x, y, x_test, y_test)


def network(seed: int) -> nn.Module:
    """The network, not trained."""
    from torchvision.models.resnet import BasicBlock, ResNet

    torch.manual_seed(seed)
    model = ResNet(BasicBlock, [1, 1, 1, 1], num_classes=10)
    model.conv1 = nn.Conv2d(1, 64, 3, padding=1, bias=False)
    model.maxpool = nn.Identity()
    return cast(nn.Module, model)


def portfolio(folder: Path, held: Images, seed: int, *, epochs: int, macs: Sequence[float] = MACS) -> Variants:
    """The dense network, trained for ``2 * epochs``, and one variant for each of ``macs``, trained on for ``epochs``.

    One that a smaller one is as accurate as is left out.
    """
    torch.set_num_threads(1)  # the images are so small that a second thread only waits
    model, example = network(seed), (held.x_test[:2],)
    entries = []
    for share in (1.0, *macs):
        found: Any = model
        if share < 1:
            pipeline = f"score{{method=lamp}},plan{{macs={share}}},eliminate"
            found = prunec.compile(model, example, pipeline, seed=seed, verify=False, measure=False).module
        small = share < 1
        digits.train(found, held.x, held.y, epochs=epochs * (2 - small), lr=1e-3 if small else 2e-3)
        accuracy = digits.accuracy(found, held.x_test, held.y_test)
        emitted = prunec.compile(found, example, "fold", verify=False, measure=False).onnx
        entries.append(Entry(f"macs-{share}" if small else "dense", emitted, accuracy))
    made = written(folder, undominated(entries), (BATCH, *example[0].shape[1:]))
    _time(made)
    return made


def undominated(entries: Sequence[Entry]) -> list[Entry]:
    """Those that are more accurate than all that come after them, which are smaller."""
    worth = [e.accuracy or 0.0 for e in entries]
    return [e for k, e in enumerate(entries) if worth[k] > max(worth[k + 1 :], default=-1.0)]


def asked(variants: Variants, held: Images, seed: int, *, kinds: int = KINDS, batch: int = BATCH) -> Requests:
    """Requests: random batches of test images."""
    files = {n: variants.file(n) for n in variants.names}
    return requests(held.x_test.numpy(), held.y_test.numpy(), files, kinds=kinds, batch=batch, seed=seed)


def _time(variants: Variants) -> None:
    """Put the latencies of sessions with one thread in the place of those with as many as there are cores."""
    portfolio = Portfolio.open(variants.folder, threads=THREADS)
    feeds = np.zeros((BATCH, *(d for d in portfolio.inputs[0].shape[1:] if isinstance(d, int))), np.float32)
    for _ in range(_TIMED):
        for name in variants.names:
            portfolio.run(feeds, variant=name)
    with writing(variants.folder) as store:
        store.revise(lambda m: replace(m, variants={n: _timed(v, portfolio) for n, v in m.variants.items()}))
        store.commit()


def _timed(variant: Any, portfolio: Portfolio) -> Any:
    ms = [seconds * 1e3 for _, seconds in portfolio.timings[variant.name]]
    own = replace(variant.prepared[machine()], latency_ms=float(np.median(ms)), p95_ms=float(np.percentile(ms, 95)))
    return with_measures(variant, own)
