"""Masks of single elements: found by prunec on networks that are not trained yet, and held while these are trained.

Start at :func:`found` and :func:`held`.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import prune

from .cifar10 import ROOT

try:
    import prunec
except ImportError:  # a bare clone: the root of the repository is the package
    sys.path.insert(0, str(ROOT / ".dev"))
    import prunec

from prunec.passes.score.scoring import CRITERIA, ELEMENTS, Elements, Scoring, element_criterion, find_elements

Masks = Mapping[str, Tensor]
"""For each weight by its parameter's name a bool for each element: whether it stays."""


@dataclass(frozen=True)
class Method:
    """A criterion, and in how many steps it masks."""

    criterion: str
    steps: int = 1

    def pipeline(self, sparsity: float) -> str:
        """The passes for one sparsity."""
        return f"score{{method={self.criterion},normalize=none}},mask{{sparsity={sparsity},steps={self.steps}}}"


_METHODS = {
    "random": Method("random"),
    "magnitude": Method("magnitude"),
    "SNIP": Method("snip"),
    "GraSP": Method("grasp"),
    "SynFlow": Method("synflow", 100),
}
_MORE_METHODS = {
    "iterative SNIP": Method("snip", 20),
    "FORCE": Method("force", 20),
    "ProsPR": Method("prospr"),
    "NTK-SAP": Method("ntk_sap", 20),
}
FEW = tuple(_METHODS)
"""Those that everybody compares with."""
METHODS = _METHODS | _MORE_METHODS


@dataclass(frozen=True)
class Samples:
    """What criteria look at: batches (B, 3, H, W) and their labels (B); ``seed`` is for random scores."""

    inputs: Sequence[Tensor]
    labels: Sequence[Tensor]
    seed: int = 0


@dataclass(frozen=True)
class Found:
    """Masks, and the seconds that the passes took which found them."""

    masks: Masks = field(default_factory=dict)
    seconds: float = 0.0


def found(model: nn.Module, method: Method, sparsity: float, samples: Samples) -> Found:
    """The masks that ``method`` finds for ``model``, which stays as it is."""
    model = copy.deepcopy(model).eval()
    result = prunec.compile(
        model, (samples.inputs[0][:2],), method.pipeline(sparsity), seed=samples.seed, verify=False, measure=False,
        samples=[(x,) for x in samples.inputs], targets=samples.labels, loss=F.cross_entropy,
    )  # fmt: skip
    assert result.module is not None
    density = result.report["values"]["mask"]["density"]
    after = dict(result.module.named_parameters())
    masks = {name: after[name].detach() != 0 for name in density}
    for name, mask in masks.items():  # a weight that was zero before would be taken for a masked one
        assert round(density[name] * mask.numel()) == int(mask.sum()), name
    return Found(masks, pass_seconds(result.report))


def pass_seconds(report: Mapping[str, Any]) -> float:
    """Seconds of all passes but the proof."""
    return float(sum(p["seconds"] for p in report["passes"] if p["name"] != "verify"))


@contextmanager
def inverted(method: Method) -> Iterator[Method]:
    """The method, inside the context, that keeps what ``method`` ranks lowest of what is not masked."""
    name = f"{method.criterion}_inverted"

    @element_criterion(name)
    def opposite(scoring: Scoring) -> Elements:
        """The criterion with its sign changed; what is masked stays lowest."""
        scores = find_elements(method.criterion)(scoring)
        last = -2 * max(float(np.abs(s).max()) for s in scores.values()) - 1
        return {n: np.where(scoring.masks[n], -s, last) if n in scoring.masks else -s for n, s in scores.items()}

    try:
        yield replace(method, criterion=name)
    finally:
        del CRITERIA[name], ELEMENTS[name]


@contextmanager
def held(model: nn.Module, masks: Masks) -> Iterator[None]:
    """``model`` whose weights are times ``masks`` in every forward, whatever an optimizer does; and so they stay."""
    places = [(model.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2]) for name in masks]
    for (part, name), mask in zip(places, masks.values(), strict=True):
        prune.custom_from_mask(part, name, mask)  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        for part, name in places:
            prune.remove(part, name)  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class Census:
    """How much stays: the share ``left`` of all elements, and of the ``sparsest`` layer.

    ``empty`` counts layers without any element, ``last`` those with one: prunec leaves each layer one at least, and a
    layer that has no more is lost as well.
    """

    left: float
    sparsest: float
    empty: int
    last: int

    @classmethod
    def of(cls, masks: Masks) -> Census:
        """The census of ``masks``; of none, everything stays."""
        counts = {name: int(mask.sum()) for name, mask in masks.items()}
        sizes = {name: mask.numel() for name, mask in masks.items()}
        densities = [counts[name] / sizes[name] for name in masks]
        left = sum(counts.values()) / sum(sizes.values()) if masks else 1.0
        kept = list(counts.values())
        return cls(left, min(densities, default=1.0), kept.count(0), kept.count(1))
