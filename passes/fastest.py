"""Which layers read everything and which pick their channels: what the target's cost model says is fastest.

Edges that share channels are weighed together: a residual stream that everybody reads whole must be whole, one that is
picked from is put into plain order once for all.  Up to eight edges at a time all choices are tried; more are improved
one after another, from both ends (all whole, all picked), until no single change is faster.  Neighbours count as picks,
though they will be slices: where slices are cheaper the caller says what they save.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components

from ..ir.analysis import Analysis
from ..ir.axes import Axis
from ..ir.graph import Node, Value
from ..ir.opset import OPS, Alive, Analysed, Cost, Macs
from .cost import Count, Term, computed, elements
from .groups import Groups
from .movable import along, parts
from .soft_edges import SoftEdge
from .tally import Tally
from .target import Target

_EXACT = 8
_SWEEPS = 8

Chosen = NDArray[np.bool_]


def fastest(
    edges: Sequence[SoftEdge],
    alive: Alive,
    groups: Groups,
    target: Target,
    saved: Mapping[tuple[str, ...], float] = MappingProxyType({}),
) -> list[SoftEdge]:
    """Those of ``edges`` across which everything is best read, once all but ``alive`` atoms are gone.

    Where all edges named together in ``saved`` are picked, so many nanoseconds of it are saved later.
    """
    if not edges:
        return []
    choice = _Choice(edges, alive, groups, target, saved)
    return [e for e, whole in zip(edges, choice.best(), strict=True) if whole]


class _Choice:
    """The time of a network, in nanoseconds, by the edges that are whole."""

    def __init__(
        self,
        edges: Sequence[SoftEdge],
        alive: Alive,
        groups: Groups,
        target: Target,
        saved: Mapping[tuple[str, ...], float],
    ) -> None:
        component = groups.analysis.solution.component
        self.alive = np.zeros(int(component.max()) + 1, bool)
        self.alive[component] = alive
        self.sides = [tuple(component[axis] for axis in e.axes(groups.analysis)) for e in edges]
        at = {e.name: k for k, e in enumerate(edges)}
        self.saved = [(np.array([at[n] for n in names if n in at], int), ns) for names, ns in saved.items()]
        self.tally = Tally(component, {"time": list(_terms(groups, target))}, self.alive.copy())

    def time(self, whole: Chosen) -> float:
        living = self.alive.copy()
        for reader, source in (self.sides[k] for k in np.flatnonzero(whole)):
            living[reader] = living[source]
        living[0] = True
        changed = living != self.tally.living
        self.tally.turn(np.flatnonzero(changed & living), alive=True)
        self.tally.turn(np.flatnonzero(changed & ~living), alive=False)
        return self.tally.totals["time"] - sum(ns for picks, ns in self.saved if not whole[picks].any())

    def best(self) -> Chosen:
        """The fastest choice that is found."""
        whole = np.ones(len(self.sides), bool)
        for together in self._clusters():
            if together.size <= _EXACT:
                whole = self._all(whole, together)
            else:
                ends = (_with(whole, together, bits) for bits in (-1, 0))
                whole = min((self._one_by_one(end, together) for end in ends), key=self.time)
        return whole

    def _clusters(self) -> list[NDArray[np.int64]]:
        """The edges in sets that share components, directly or through others."""
        rows = np.concatenate([np.full(sum(map(len, s)), k) for k, s in enumerate(self.sides)])
        columns = np.concatenate([axis for side in self.sides for axis in side])
        inner = columns != 0
        rows, columns = rows[inner], columns[inner]
        matrix = sp.csr_matrix((np.ones(rows.size, np.int8), (rows, columns)), (len(self.sides), self.alive.size))
        _, label = connected_components(sp.csr_matrix(matrix.astype(np.int32) @ matrix.T), directed=False)
        return [np.flatnonzero(label == k) for k in np.unique(label)]

    def _all(self, whole: Chosen, together: NDArray[np.int64]) -> Chosen:
        """In the order of Gray's code: each choice differs from the one before in one edge, and is counted as fast."""
        codes = (bits ^ bits >> 1 for bits in range(1 << together.size))
        return min((_with(whole, together, code) for code in codes), key=self.time)

    def _one_by_one(self, whole: Chosen, together: NDArray[np.int64]) -> Chosen:
        """Later edges first: they settle what is left to read of what is earlier."""
        best = self.time(whole)
        for _ in range(_SWEEPS):
            before = best
            for k in together[::-1]:
                trial = whole.copy()
                trial[k] = not trial[k]
                if (time := self.time(trial)) < best:
                    whole, best = trial, time
            if best == before:
                break
        return whole


def _with(whole: Chosen, edges: NDArray[np.int64], bits: int) -> Chosen:
    found = whole.copy()
    found[edges] = bits >> np.arange(edges.size) & 1
    return found


@dataclass(frozen=True, eq=False)
class _Read:
    """What reads across an edge: of each part that is concatenated there the reader's positions, and all of them."""

    node: Node
    parts: list[tuple[Axis, Axis]]

    @classmethod
    def of(cls, edge: SoftEdge, analysis: Analysis, join: Analysed | None) -> _Read:
        reader, source = edge.axes(analysis)
        sizes = [len(part) for part in parts(join)] if join is not None and along(join.node) == edge.key[1] else []
        cuts = np.cumsum(sizes)[:-1] if sum(sizes) == len(source) else np.zeros(0, np.int64)
        return cls(edge.node, list(zip(np.split(reader, cuts), np.split(source, cuts), strict=True)))

    def is_scattered(self, count: Count) -> bool:
        """Whether some part is read, and not all of it."""
        return any(0 < count(reader) < count(source) for reader, source in self.parts)

    def concatenates(self, count: Count) -> bool:
        """Whether several parts are read, and others are not."""
        read = [count(reader) > 0 for reader, source in self.parts if count(source) > 0]
        return sum(read) > 1 and not all(read)


def _terms(groups: Groups, target: Target) -> Iterator[Term]:
    """The time of each node, of each pick, and of bringing what is picked from into plain order, once."""
    analysis = groups.analysis
    joins = {
        v: analysis.sites[n.name]
        for v, n in analysis.graph.producers().items()
        if n.op == "cat" and n.name in analysis.sites
    }
    sources: dict[Value, list[_Read]] = {}
    for node in analysis.graph.nodes:
        site, op = analysis.sites.get(node.name), OPS.get(node.op)
        if site is None or op is None:
            continue
        if node.attrs.get("soft"):
            x = node.inputs[0]
            assert x is not None
            edge = _Read.of(SoftEdge(node, node), analysis, joins.get(x))
            sources.setdefault(x, []).append(edge)
            yield partial(_pick, edge, groups, target)
        else:
            channels = computed(site, analysis.solution, target)
            yield partial(_node, site, op.macs, channels, target)
    for edges in sources.values():
        yield partial(_reorder, edges, groups, target)


def _node(
    site: Analysed, macs: Macs | None, channels: Callable[[Axis, int], int], target: Target, count: Count
) -> float:
    """Multiply-accumulates, of channels as they are computed; a copy for a concatenation; else what is written."""
    if macs is not None:
        return macs(Cost(site, lambda axis: channels(axis, count(axis)))) * target.ns_per_mac
    written = sum(elements(axes, count) for axes in site.results)
    return target.copy_ns(written) if site.node.op == "cat" else target.written_ns(written)


def _pick(edge: _Read, groups: Groups, target: Target, count: Count) -> float:
    """The time of picking what one edge does not read whole, or of concatenating the whole parts that it reads."""
    picked = elements(groups.analysis.axes[edge.node.output] or [], count)
    if edge.is_scattered(count):
        return target.pick_ns(picked)
    return target.copy_ns(picked) if edge.concatenates(count) else 0.0


def _reorder(edges: list[_Read], groups: Groups, target: Target, count: Count) -> float:
    """All that some edge picks from comes into plain order once."""
    if not any(edge.is_scattered(count) for edge in edges):
        return 0.0
    x = edges[0].node.inputs[0]
    assert x is not None
    return target.plain_ns(elements(groups.analysis.axes[x] or [], count))
