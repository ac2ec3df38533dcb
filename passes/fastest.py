"""Which layers read everything and which pick their channels: what the target's cost model says is fastest.

Edges that share channels are weighed together: a residual stream that everybody reads whole must be whole, one that is
picked from is put into plain order once for all.  Up to eight edges at a time all choices are tried; more are improved
one after another, from both ends (all whole, all picked), until no single change is faster.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components

from ..ir.graph import Value
from ..ir.opset import OPS, Alive, Analysed, Cost, Macs
from .cost import Count, Term, elements
from .groups import Groups
from .soft_edges import SoftEdge
from .tally import Tally
from .target import Target

_EXACT = 8
_SWEEPS = 8

Chosen = NDArray[np.bool_]


def fastest(edges: Sequence[SoftEdge], alive: Alive, groups: Groups, target: Target) -> list[SoftEdge]:
    """Those of ``edges`` across which everything is best read, once all but ``alive`` atoms are gone."""
    if not edges:
        return []
    choice = _Choice(edges, alive, groups, target)
    return [e for e, whole in zip(edges, choice.best(), strict=True) if whole]


class _Choice:
    """The time of a network, in nanoseconds, by the edges that are whole."""

    def __init__(self, edges: Sequence[SoftEdge], alive: Alive, groups: Groups, target: Target) -> None:
        component = groups.analysis.solution.component
        self.alive = np.zeros(int(component.max()) + 1, bool)
        self.alive[component] = alive
        self.sides = [tuple(component[axis] for axis in e.axes(groups.analysis)) for e in edges]
        self.tally = Tally(component, {"time": list(_terms(groups, target))}, self.alive.copy())

    def time(self, whole: Chosen) -> float:
        living = self.alive.copy()
        for reader, source in (self.sides[k] for k in np.flatnonzero(whole)):
            living[reader] = living[source]
        living[0] = True
        changed = living != self.tally.living
        self.tally.turn(np.flatnonzero(changed & living), alive=True)
        self.tally.turn(np.flatnonzero(changed & ~living), alive=False)
        return self.tally.totals["time"]

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


def _terms(groups: Groups, target: Target) -> Iterator[Term]:
    """The time of each node, of each pick, and of bringing what is picked from into plain order, once."""
    analysis = groups.analysis
    sources: dict[Value, list[SoftEdge]] = {}
    for node in analysis.graph.nodes:
        site, op = analysis.sites.get(node.name), OPS.get(node.op)
        if site is None or op is None:
            continue
        if node.attrs.get("soft"):
            edge = SoftEdge(node, node)
            x = node.inputs[0]
            assert x is not None
            sources.setdefault(x, []).append(edge)
            yield partial(_pick, edge, groups, target)
        else:
            yield partial(_node, site, op.macs, groups, target)
    for edges in sources.values():
        yield partial(_reorder, edges, groups, target)


def _node(site: Analysed, macs: Macs | None, groups: Groups, target: Target, count: Count) -> float:
    """Multiply-accumulates, in whole blocks of channels; else what is read and written."""
    if macs is not None:
        return macs(Cost(site, _in_blocks(count, groups, target))) * target.ns_per_mac
    return target.written_ns(sum(elements(axes, count) for axes in site.results))


def _in_blocks(count: Count, groups: Groups, target: Target) -> Count:
    solution = groups.analysis.solution
    return lambda axis: target.in_blocks(count(axis)) if solution.may_shrink(axis) else count(axis)


def _pick(edge: SoftEdge, groups: Groups, target: Target, count: Count) -> float:
    """What is picked is read and written, and again on its way into blocks of channels."""
    if not _is_partial(edge, groups, count):
        return 0.0
    return 2 * target.copy_ns(elements(groups.analysis.axes[edge.node.output] or [], count))


def _reorder(edges: list[SoftEdge], groups: Groups, target: Target, count: Count) -> float:
    """All that some edge picks from comes out of blocks of channels once."""
    if not any(_is_partial(edge, groups, count) for edge in edges):
        return 0.0
    x = edges[0].node.inputs[0]
    assert x is not None
    return target.copy_ns(elements(groups.analysis.axes[x] or [], count))


def _is_partial(edge: SoftEdge, groups: Groups, count: Count) -> bool:
    reader, source = edge.axes(groups.analysis)
    return count(reader) < count(source)
