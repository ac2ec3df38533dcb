"""Permute: channels change places so that patterns N:M keep more.

A pattern keeps ``n`` of ``m`` neighbours along the axis that a layer sums over.  Which channels are neighbours is free:
where the channels of a dependency group change places in what makes them and in all that reads them, the network
computes what it did.  So large weights, which would compete in one block, get into different ones.  All weights that
read a group count together, and where rows share a pattern those that make it too: an order is good for all of them.

Channels move in families (``families.py``).  The search for an order is ``order/swaps.py``.  Start at :class:`Permute`.

References
----------
Pool and Yu: Channel Permutations for N:M Sparsity, NeurIPS 2021.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..ir.analysis import Analysis
from ..ir.errors import UsageError
from ..ir.graph import Graph
from ..ir.packing.nm import Pattern
from ..ir.words import by_reason, counted
from .base import Kind, Pass, State, register
from .families import Held, families
from .groups import Groups, groups_of
from .movable import Components
from .order.blocks import Neighbours, Rows, Side, highest
from .order.swaps import raised
from .reordering import Places
from .score.scoring import Elements, Scoring, score_elements
from .weights import Weight, weights

_BILLION = 1e9
_IN_VAIN = "no order was found that keeps more"


@register
@dataclass(frozen=True)
class Permute(Pass):
    """Order channels so that a pattern N:M of ``mask`` keeps more of the scores (of ``score``, else magnitude).

    n, m, v: the pattern that ``mask`` gets, n kept of m neighbours along the axis that is summed over, in v rows alike.
    work: how long to search, in billions of scores compared: about a second each.
    targets, ignore: patterns of weights (globs, re:regex, type:op): only these count, none of these.
    """

    n: int = 2
    m: int = 4
    v: int = 1
    work: float = 10.0
    targets: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()

    name: ClassVar[str] = "permute"
    kind: ClassVar[Kind] = "rewrite"
    requires: ClassVar[frozenset[str]] = frozenset({"groups"})
    ensures: ClassVar[frozenset[str]] = frozenset({"order"})
    forbids: ClassVar[frozenset[str]] = frozenset({"masked", "packing", "split"})
    requires_choice: ClassVar[bool] = True

    def __post_init__(self) -> None:
        Pattern.of(self.n, self.m, self.v, "permute")
        if not self.work > 0:
            raise UsageError(f"permute{{work}} cannot be {self.work}", hint="a positive number, of billions")

    def run(self, state: State) -> Graph:
        pattern, groups = Pattern(self.n, self.m, self.v), groups_of(state.graph)
        method = state.facts.get("criterion", "magnitude")
        found = weights(groups.analysis, self)
        fits = [w for w in found if pattern.fits(w.rows)]
        if not fits:
            state.notes.append(
                f"permute: nothing changed, for {pattern} divides none of {counted(len(found), 'weight')}"
            )
            return state.graph
        search = _Search(groups.analysis, _layers(fits, groups, state, method), pattern, self.work * _BILLION)
        search.settle(state)
        reordering = search.places.reordering(groups.analysis, {})
        graph = reordering.applied(state.graph)
        outcome = _Outcome(pattern, method, search, _layers(fits, _over(groups, graph), state, method))
        state.notes.append(outcome.note())
        if not outcome.gained:
            return state.graph
        state.values["permute"] = outcome.values()
        state.rewritings.append(reordering)
        return graph


def _over(groups: Groups, graph: Graph) -> Groups:
    return replace(groups, analysis=groups.analysis.over(graph))


# ---------------------------------------------------------------------- what is kept


@dataclass(frozen=True, eq=False)
class _Layer:
    """A weight, the scores of its elements (o, i, *), and the components along its rows and along what is summed."""

    weight: Weight
    scores: NDArray[Any]
    rows: Components
    summed: Components

    @property
    def name(self) -> str:
        return self.weight.name

    def ordered(self, places: Places) -> NDArray[Any]:
        """The scores in ``places``."""
        return self.scores[places.moved(self.rows)][:, places.moved(self.summed)]

    def side(self, k: int, pattern: Pattern, places: Places, at: NDArray[np.int64]) -> Side:
        """Its axis ``k`` in ``places``, along which the channels that move stand ``at`` these positions."""
        blocks = pattern.blocks(self.ordered(places))  # (o / v, *, i / m, v, m)
        if k == 0:
            rows = np.moveaxis(blocks, -2, 1).reshape(self.rows.size, -1, pattern.m)
            return Rows(np.ascontiguousarray(np.moveaxis(rows, 1, 2)), at, pattern.n, pattern.v)
        columns = np.moveaxis(blocks.sum(-2), (-2, -1), (0, 1)).reshape(self.summed.size, -1)
        return Neighbours(np.ascontiguousarray(columns), at, pattern.n, pattern.m)


def _layers(found: Iterable[Weight], groups: Groups, state: State, method: str) -> list[_Layer]:
    """Weights with the scores that ``mask`` would give them."""
    scores: Elements = score_elements(method, Scoring(groups, state))
    axes, component = groups.analysis.axes, groups.analysis.solution.component
    layers = []
    for weight in found:
        held = [component[axis] for axis in axes[weight.value] or ()]
        rows, summed = held[1 - weight.summed], held[weight.summed]
        layers.append(_Layer(weight, weight.rows_first(np.asarray(scores[weight.name])), rows, summed))
    return layers


def _kept(scores: NDArray[Any], pattern: Pattern) -> float:
    """What the pattern keeps of the scores (o, i, *)."""
    blocks = pattern.blocks(scores).sum(-2)
    return float(highest(np.moveaxis(blocks, -1, 0), pattern.n).sum(dtype=np.float64))


class _Outcome:
    """What the pattern keeps of each weight, before the search and after it.

    After it the weights are scored anew: a criterion that does not go with the channels is found out.
    """

    def __init__(self, pattern: Pattern, method: str, search: _Search, after: list[_Layer]) -> None:
        self.pattern, self.method, self.search = pattern, method, search
        self.names = [layer.name for layer in after]
        self.kept = {
            "before": [_kept(layer.scores, pattern) for layer in search.layers],
            "after": [_kept(layer.scores, pattern) for layer in after],
        }
        self.whole = [float(layer.scores.sum(dtype=np.float64)) for layer in search.layers]
        self.gained = search.moved and sum(self.kept["after"]) > sum(self.kept["before"])

    def values(self) -> dict[str, Any]:
        """For the report: which share of the scores is kept, of all and of each weight."""
        each = {
            name: {when: _share(kept[k], self.whole[k]) for when, kept in self.kept.items()}
            for k, name in enumerate(self.names)
        }
        total = {when: _share(sum(kept), sum(self.whole)) for when, kept in self.kept.items()}
        return {"pattern": str(self.pattern), **total, "weights": each}

    def note(self) -> str:
        """What came of it, in a line for the report."""
        left, many = self.search.left(), counted(len(self.names), "weight")
        if not self.search.moved:
            return f"permute: nothing changed in {many} that {self.pattern} divides ({by_reason(left)})"
        if not self.gained:
            return f"permute: nothing changed, for {self.method} scores places and not channels"
        shares = {when: _share(sum(kept), sum(self.whole)) for when, kept in self.kept.items()}
        text = (
            f"permute: {self.pattern} keeps {_percent(shares['after'])} of the scores ({self.method}), "
            f"{_percent(shares['before'])} without, in {many}"
        )
        return f"{text}; {len(left)} of them as before ({by_reason(left)})" if left else text


def _share(kept: float, whole: float) -> float | None:
    return kept / whole if whole > 0 else None


def _percent(share: float | None) -> str:
    return "an unknown part" if share is None else f"{100 * share:.2f} %"


# ---------------------------------------------------------------------- the search


class _Search:
    """The search for places in which the pattern keeps more of all ``layers``."""

    def __init__(self, analysis: Analysis, layers: list[_Layer], pattern: Pattern, work: float) -> None:
        self.layers, self.pattern, self.work = layers, pattern, work
        self.places = Places.of(analysis)
        self.held = Held(analysis)
        self.families = families(analysis, self.held)

    def settle(self, state: State) -> None:
        """Find places for each family, the cheapest first: what work one leaves is for the others."""
        found = {k: need for k, channels in enumerate(self.families) if (need := self._need(channels))}
        queue = sorted(found, key=lambda k: (found[k], k))
        for at, k in enumerate(queue):
            state.tell("permute", f"group {at + 1} of {len(queue)}")
            share = self.work * found[k] / sum(found[other] for other in queue[at:])
            self.work -= self._place(k, self.families[k], share, np.random.default_rng((state.seed, k)))

    @property
    def moved(self) -> bool:
        """Whether any channel is in another place."""
        return bool((self.places.family >= 0).any())

    def left(self) -> dict[str, str]:
        """The weights whose blocks are what they were, and why."""
        same = [layer for layer in self.layers if not any(map(self._moves, self._axes(layer)))]
        return {layer.name: self.held.why(layer.summed) or _IN_VAIN for layer in same}

    def _axes(self, layer: _Layer) -> list[Components]:
        """The axes along which the order of channels matters."""
        return [layer.summed, layer.rows] if self.pattern.v > 1 else [layer.summed]

    def _moves(self, axis: Components) -> bool:
        return bool((np.diff(self.places.moved(axis)) < 0).any())

    def _need(self, channels: Components) -> float:
        """The work of comparing all places with all channels, about; 0 where no order matters."""
        axes = [(axis, layer.scores.size) for layer in self.layers for axis in self._axes(layer)]
        return channels.size * float(sum(np.isin(axis, channels).mean() * size for axis, size in axes))

    def _place(self, k: int, channels: Components, work: float, rng: np.random.Generator) -> float:
        """Find places for ``channels``, others than now if more is kept in them; the work that it took."""
        sides, touched = [], []
        for layer in self.layers:
            at = [np.flatnonzero(np.isin(axis, channels)) for axis in self._axes(layer)]
            if all(map(np.size, at[:2])) and len(at) > 1:
                self.held.hold(channels, "rows and neighbours of one weight")
                return 0.0
            touched += [layer] if any(map(np.size, at)) else []
            sides += [
                layer.side(axis, self.pattern, self.places, found)
                for axis, found in zip((1, 0), at, strict=False)
                if found.size
            ]
        order, worked = raised(sides, work, rng)
        before = self._total(touched)
        self.places.family[channels], self.places.rank[channels[order]] = k, np.arange(channels.size)
        if not self._total(touched) > before:
            self.places.family[channels] = -1
        return worked

    def _total(self, layers: Iterable[_Layer]) -> float:
        return sum(_kept(layer.ordered(self.places), self.pattern) for layer in layers)
