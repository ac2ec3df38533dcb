"""Mask: single elements of the weights become zero, by a criterion of elements.

Unstructured, or in a pattern N:M.  Shapes stay; what comes of it is a smaller file (``pack``), and channels that no
element reaches any more are for ``eliminate``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
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
from .score.scoring import Elements, Scoring, find_elements
from .values import revalued
from .weights import Weight, others, weights

Masks = dict[str, NDArray[np.bool_]]

_SAMPLE, _NEAR = 1 << 16, 1 << 10
"""How many scores are looked at to find a level, and how many of these lie on either side of what is sorted."""


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
    schedule: Literal["exponential", "linear"] = "exponential"
    floor: float = 0.0
    targets: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()

    name: ClassVar[str] = "mask"
    kind: ClassVar[Kind] = "rewrite"
    requires: ClassVar[frozenset[str]] = frozenset({"groups", "scores"})
    ensures: ClassVar[frozenset[str]] = frozenset({"masked"})
    forbids: ClassVar[frozenset[str]] = frozenset({"split"})
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
            pattern_of(self.n, self.m, self.v, "mask")

    def run(self, state: State) -> Graph:
        if (self.sparsity is None) == (self.n is None):
            raise UsageError("mask: give a sparsity, or n and m", hint="mask{sparsity=0.9} or mask{n=2,m=4}")
        groups = _groups(state)
        found = weights(groups.analysis, self.targets, self.ignore)
        if not found:
            raise UsageError(
                "mask: the model has no weight that a layer sums over", hint="`prunec analyze` says what it has"
            )
        masks = self.unstructured(found, groups, state) if self.sparsity is not None else self._nm(found, groups, state)
        if (left := others(groups.analysis, found)) and not (self.targets or self.ignore):
            state.notes.append(f"mask: {counted(len(left), 'parameter')} left, no weights of layers: {listed(left)}")
        zeroed = {w.value: np.where(masks[w.name], w.numbers(), 0) for w in found if w.name in masks}
        _record(state, found, masks)
        return revalued(state.graph, zeroed)

    def unstructured(self, found: list[Weight], groups: Groups, state: State) -> Masks:
        """Which elements of ``found`` stay, by their scores over the whole model or in each weight."""
        assert self.sparsity is not None
        masks: Masks = {w.name: np.ones(w.shape, bool) for w in found}
        shared: dict[str, Any] = {}
        for step in range(1, self.steps + 1):
            state.tell("mask", f"step {step} of {self.steps}" if self.steps > 1 else "")
            scores = _scores(groups, state, masks, shared)
            density = self._density(step)
            masks = (
                _global(scores, found, density, self.floor)
                if self.scope == "global"
                else {w.name: _largest([scores[w.name]], _count(density, w, self.floor))[0] for w in found}
            )
        held = [w.name for w in found if masks[w.name].sum() <= _least(w, self.floor)]
        if held and self.scope == "global":
            state.notes.append(
                f"mask: {counted(len(held), 'weight')} would have gone altogether or below the floor, and kept what "
                f"scores highest: {listed(held)}"
            )
        return masks

    def _density(self, step: int) -> float:
        assert self.sparsity is not None
        if self.schedule == "linear":
            return 1 - self.sparsity * step / self.steps
        return float((1 - self.sparsity) ** (step / self.steps))

    def _nm(self, found: list[Weight], groups: Groups, state: State) -> Masks:
        pattern = pattern_of(self.n, self.m, self.v, "mask")
        fits = [w for w in found if pattern.fits(_rows_first(w))]
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
        scores = _scores(groups, state, {}, {})
        state.facts["patterns"] = (*state.facts.get("patterns", ()), pattern)
        return {w.name: w.rows_first(pattern.best(w.rows_first(scores[w.name]))) for w in fits}


def pattern_of(n: int | None, m: int | None, v: int, name: str) -> Pattern:
    """The pattern of a pass's options, checked."""
    if n is None or m is None or not 0 < n < m <= 256 or v < 1:
        raise UsageError(
            f"{name}: n={n}, m={m}, v={v} is no pattern", hint="n kept of m, 0 < n < m, v rows alike: n=2,m=4"
        )
    return Pattern(n, m, v)


def _groups(state: State) -> Groups:
    """Those of the graph as it is now."""
    groups: Groups = state.facts["groups"]
    return groups_of(state.graph) if "compact" in state.facts or "alive" in state.facts else groups


def _scores(groups: Groups, state: State, masks: Masks, shared: dict[str, Any]) -> Elements:
    return find_elements(state.facts["criterion"])(Scoring(groups, state, masks, shared))


def _rows_first(weight: Weight) -> tuple[int, ...]:
    o, i, *rest = weight.shape
    return (o, i, *rest) if weight.summed == 1 else (i, o, *rest)


def _least(weight: Weight, floor: float) -> int:
    return max(1, math.ceil(floor * math.prod(weight.shape)))


def _count(density: float, weight: Weight, floor: float) -> int:
    return max(_least(weight, floor), round(density * math.prod(weight.shape)))


def _largest(arrays: Sequence[NDArray[Any]], count: int) -> list[NDArray[np.bool_]]:
    """Which are the ``count`` largest of all ``arrays`` together; the first ones of those that are equal."""
    if count >= sum(a.size for a in arrays):
        return [np.ones(a.shape, bool) for a in arrays]
    level = _level(arrays, count)
    kept = [a >= level for a in arrays]
    over = sum(map(np.count_nonzero, kept)) - count
    for mask, array in zip(reversed(kept), reversed(arrays), strict=True):
        if over > 0:
            equal = np.flatnonzero(array.ravel() == level)[-over:]
            mask.ravel()[equal] = False
            over -= equal.size
    return kept


def _level(arrays: Sequence[NDArray[Any]], count: int) -> float:
    """The ``count``-th largest number: a sample says about where it is, and only what is near is sorted."""
    size = sum(a.size for a in arrays)
    stride = max(1, size // _SAMPLE)
    sample = np.sort(np.concatenate([a.ravel()[::stride] for a in arrays]))
    at = round((1 - count / size) * (sample.size - 1))
    low, high = sample[max(0, at - _NEAR)], sample[min(sample.size - 1, at + _NEAR)]
    above = sum(int(np.count_nonzero(a > high)) for a in arrays)
    within = np.concatenate([a[(a > low) & (a <= high)] for a in arrays])
    if 0 < count - above - within.size <= sum(int(np.count_nonzero(a == low)) for a in arrays):
        return float(low)  # what many share, as zero
    if not above < count <= above + within.size:
        above, within = 0, np.concatenate([a.ravel() for a in arrays])
    place = within.size - (count - above)
    return float(np.partition(within, place)[place])


def _global(scores: Elements, found: list[Weight], density: float, floor: float) -> Masks:
    """The largest over all weights, after the least that each of them keeps."""
    arrays = [np.array(scores[w.name], order="C") for w in found]
    held = 0
    for weight, array in zip(found, arrays, strict=True):
        held += (least := _least(weight, floor))
        array[_largest([array], least)[0] if least > 1 else np.unravel_index(array.argmax(), array.shape)] = np.inf
    kept = _largest(arrays, max(held, round(density * sum(a.size for a in arrays))))
    return {w.name: mask for w, mask in zip(found, kept, strict=True)}


def _record(state: State, found: list[Weight], masks: Masks) -> None:
    """What came of it, for the report."""
    kept = {w.name: float(masks[w.name].mean()) if w.name in masks else 1.0 for w in found}
    total = sum(math.prod(w.shape) for w in found)
    zero = sum(int((~m).sum()) for m in masks.values())
    state.values["mask"] = {"sparsity": zero / total, "density": kept}
