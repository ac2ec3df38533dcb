"""Mask: single elements of the weights become zero, by a criterion of elements.

Unstructured, or in a pattern N:M.  Shapes stay; what comes of it is a smaller file (``pack``), and channels that no
element reaches any more are for ``eliminate``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from ..ir.errors import UsageError
from ..ir.graph import Graph
from ..ir.packing.nm import Pattern
from ..ir.words import counted, listed
from .base import Kind, Pass, State, register
from .groups import Groups, groups_of
from .largest import largest
from .schedule import Schedule, share
from .score.scoring import Elements, Scoring, score_elements
from .values import revalued
from .weights import Weight, others, weights

Masks = dict[str, NDArray[np.bool_]]


@register
@dataclass(frozen=True)
class Mask(Pass):
    """Make single elements of the weights zero: those that the criterion of ``score`` ranks lowest.

    sparsity: the fraction of all elements of the weights that are zero afterwards.
    n, m, v: instead, n kept of m neighbours along the axis that is summed over, the same ones in v adjacent rows.
    scope: rank elements over the whole model (global) or cut each weight alike (layer).
    steps: reach the sparsity in so many steps, scored anew on the masked network before each.
    schedule: how much is kept after a step: a power of the density (exponential), or linear.
    floor: the fraction of each weight that stays at least; one element always does.
    targets, ignore: patterns of weights (globs, re:regex, type:op): only these, none of these.
    """

    sparsity: float | None = None
    n: int | None = None
    m: int | None = None
    v: int = 1
    scope: Literal["global", "layer"] = "global"
    steps: int = 1
    schedule: Schedule = "exponential"
    floor: float = 0.0
    targets: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()

    name: ClassVar[str] = "mask"
    kind: ClassVar[Kind] = "rewrite"
    requires: ClassVar[frozenset[str]] = frozenset({"groups", "scores"})
    ensures: ClassVar[frozenset[str]] = frozenset({"masked"})
    forbids: ClassVar[frozenset[str]] = frozenset({"shrunk", "split"})
    requires_choice: ClassVar[bool] = True
    revalues: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.sparsity is not None and not 0 <= self.sparsity < 1:
            raise UsageError(f"mask{{sparsity}} cannot be {self.sparsity}", hint="a number in [0, 1)")
        if not 0 <= self.floor <= 1 or (self.sparsity is not None and self.floor > 1 - self.sparsity):
            raise UsageError(
                f"mask{{floor}} cannot be {self.floor}", hint="a fraction that stays, at most 1 - sparsity"
            )
        if self.steps < 1:
            raise UsageError(f"mask{{steps}} cannot be {self.steps}", hint="1 or more")
        if (self.n, self.m) != (None, None):
            Pattern.of(self.n, self.m, self.v, "mask")
            if (self.steps, self.scope, self.floor) != (1, "global", 0.0):
                raise UsageError(
                    "mask: steps, scope and floor are for a sparsity, and a pattern keeps as much everywhere",
                    hint="leave them out, or give a sparsity instead of n and m",
                )
        elif self.v != 1:
            raise UsageError(f"mask{{v}} is {self.v} without a pattern", hint="give n and m too")

    def run(self, state: State) -> Graph:
        if (self.sparsity is None) == (self.n is None):
            raise UsageError("mask: give a sparsity, or n and m", hint="mask{sparsity=0.9} or mask{n=2,m=4}")
        groups = _groups(state)
        found = weights(groups.analysis, self)
        if not found:
            raise UsageError(
                "mask: the model has no weight that a layer sums over", hint="`prunec analyze` says what it has"
            )
        masks = self.unstructured(found, groups, state) if self.sparsity is not None else self._nm(found, groups, state)
        if (left := others(groups.analysis, found)) and not (self.targets or self.ignore):
            state.notes.append(f"mask: {counted(len(left), 'parameter')} left, no weights of layers: {listed(left)}")
        zeroed = {w.value: np.where(masks[w.name], w.data, 0) for w in found if w.name in masks}
        _record(state, found, masks)
        return revalued(state.graph, zeroed)

    def unstructured(self, found: list[Weight], groups: Groups, state: State, *, single: bool = False) -> Masks:
        """Which elements of ``found`` stay, by their scores over the whole model or in each weight.

        ``single``: float32 is enough for a criterion that counts in float64.
        """
        assert self.sparsity is not None
        masks: Masks = {w.name: np.ones(w.shape, bool) for w in found}
        shared: dict[str, Any] = {}
        for step in range(1, self.steps + 1):
            state.tell("mask", f"step {step} of {self.steps}" if self.steps > 1 else "")
            scores = _scores(groups, state, masks, shared, single)
            density = share(1 - self.sparsity, step, self.steps, self.schedule)
            masks = (
                _global(scores, found, density, self.floor)
                if self.scope == "global"
                else {w.name: largest([scores[w.name]], _count(density, w, self.floor))[0] for w in found}
            )
        held = [w.name for w in found if masks[w.name].sum() <= _least(w, self.floor)]
        if held and self.scope == "global":
            state.notes.append(
                f"mask: {counted(len(held), 'weight')} would have gone altogether or below the floor, and kept what "
                f"scores highest: {listed(held)}"
            )
        return masks

    def _nm(self, found: list[Weight], groups: Groups, state: State) -> Masks:
        pattern = Pattern.of(self.n, self.m, self.v, "mask")
        fits = [w for w in found if pattern.fits(w.rows)]
        odd = [f"{w.name} {list(w.shape)}" for w in found if w not in fits]
        if not fits or (odd and self.targets):
            raise UsageError(
                f"mask: the pattern {pattern} does not divide {listed(odd)}",
                hint="m divides the axis that is summed over, v the rows; choose others, or leave these out (ignore)",
            )
        if odd:
            state.notes.append(
                f"mask: the pattern {pattern} does not divide {counted(len(odd), 'weight')}: {listed(odd)}"
            )
        ordered = state.values.get("permute", {}).get("pattern", str(pattern))
        if ordered != str(pattern):
            state.notes.append(f"mask: the pattern is {pattern}, and permute ordered channels for {ordered}")
        scores = _scores(groups, state, {}, {}, single=False)
        state.facts["patterns"] = (*state.facts.get("patterns", ()), pattern)
        return {w.name: w.rows_first(pattern.best(w.rows_first(scores[w.name]))) for w in fits}


def _groups(state: State) -> Groups:
    """Those of the graph as it is now."""
    groups: Groups = state.facts["groups"]
    return groups_of(state.graph) if state.rewritings or "alive" in state.facts else groups


def _scores(groups: Groups, state: State, masks: Masks, shared: dict[str, Any], single: bool) -> Elements:
    return score_elements(state.facts["criterion"], Scoring(groups, state, masks, shared, single))


def _least(weight: Weight, floor: float) -> int:
    return max(1, math.ceil(floor * math.prod(weight.shape)))


def _count(density: float, weight: Weight, floor: float) -> int:
    return max(_least(weight, floor), round(density * math.prod(weight.shape)))


def _global(scores: Elements, found: list[Weight], density: float, floor: float) -> Masks:
    """The largest over all weights, after the least that each of them keeps; ``scores`` are used up."""
    arrays = [np.require(scores[w.name], requirements=["C", "W"]) for w in found]
    held = 0
    for weight, array in zip(found, arrays, strict=True):
        held += (least := _least(weight, floor))
        array[largest([array], least)[0]] = np.inf
    kept = largest(arrays, max(held, round(density * sum(a.size for a in arrays))))
    return {w.name: mask for w, mask in zip(found, kept, strict=True)}


def _record(state: State, found: list[Weight], masks: Masks) -> None:
    """What came of it, for the report."""
    kept = {w.name: float(masks[w.name].mean()) if w.name in masks else 1.0 for w in found}
    total = sum(math.prod(w.shape) for w in found)
    zero = sum(int((~m).sum()) for m in masks.values())
    state.values["mask"] = {"sparsity": zero / total, "density": kept}
