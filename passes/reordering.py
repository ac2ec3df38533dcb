"""Reordering: channels in other places, the network computing what it did.

A pass chooses which channels change places among each other, and in which order (:class:`Places`); where that is exact
says ``movable.py``.  What comes of it for each constant and for each node that picks channels is a :class:`Reordering`,
which the proof and the indices that are kept follow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ..ir import arrays
from ..ir.analysis import Analysis
from ..ir.graph import Graph, Node, reads
from .movable import Components
from .rewrite import Indices, Kept, composed, literal, make, named, without_idle_literals, without_idle_takes

Positions = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Reordering:
    """Which channels stand where now.  Values and nodes are known by their names.

    Attributes
    ----------
    constants
        For each constant whose channels moved, axis by axis: which old position each new one holds; None for all as
        they were.
    parameters
        The same by the source's parameter names.
    picks
        For each node that picks some of the moved channels: the axis, and their positions now.
    """

    constants: Mapping[str, Indices]
    parameters: Kept
    picks: Mapping[str, tuple[int, Positions]]

    removed: ClassVar[int] = 0

    def applied(self, graph: Graph) -> Graph:
        """A copy of ``graph`` with its channels in the new order; picks of neighbours are slices."""
        graph = graph.copy()
        for value, constant in graph.constants.items():
            if value.name in self.constants:
                moved = arrays.keep(constant.data, self.constants[value.name])
                graph.constants[value] = replace(constant, data=moved)
        indices = [v for n in graph.nodes if n.name in self.picks for v in reads(n)]
        for k, node in enumerate(graph.nodes):
            if node.name in self.picks:
                graph.nodes[k] = _take(graph, node, *self.picks[node.name])
        return without_idle_literals(without_idle_takes(graph, self.picks), indices)

    def of(self, kept: Kept) -> Kept:
        """The ``kept`` indices of parameters in the new order."""
        return {name: composed(axes, self.parameters.get(name, ())) for name, axes in kept.items()}


def _take(graph: Graph, node: Node, dim: int, positions: Positions) -> Node:
    """What ``node`` computes, of ``positions`` along ``dim``."""
    x, name, taken = node.inputs[0], f"{node.name}_picks", {v.name for v in graph.values()}
    assert x is not None
    while name in taken:
        name += "_"
    attrs = {"dim": dim, "indices": tuple(positions.tolist())}
    return replace(make(graph, "take", (x, literal(graph, name, positions)), attrs, node.output), name=node.name)


@dataclass(eq=False)
class Places:
    """For each component the family with which it moves, -1 for none, and where it stands among that."""

    family: Positions
    rank: Positions

    def moved(self, axis: Components) -> Positions:
        """Which old position each new one of ``axis`` holds: each family is sorted in the places that it has."""
        family = self.family[axis]
        rank = np.where(family < 0, np.arange(axis.size), self.rank[axis])
        order = np.empty(axis.size, np.int64)
        order[np.argsort(family, kind="stable")] = np.lexsort((rank, family))
        return order

    @classmethod
    def of(cls, analysis: Analysis) -> Places:
        """The places that are: nothing moves."""
        components = analysis.solution.members.shape[0]
        return cls(np.full(components, -1, np.int64), np.zeros(components, np.int64))

    def orders(self, axes: Sequence[Components]) -> Indices:
        """What :meth:`moved` gives for each axis, None where nothing moves."""
        found = (self.moved(axis) for axis in axes)
        return tuple(order if (np.diff(order) < 0).any() else None for order in found)

    def reordering(self, analysis: Analysis, picks: Mapping[str, tuple[int, Positions]]) -> Reordering:
        """What moves in an analysed graph, ``picks`` being what nodes pick now."""
        graph, component = analysis.graph, analysis.solution.component
        held = {v: self.orders([component[axis] for axis in analysis.axes[v] or ()]) for v in graph.constants}
        moved = {v: axes for v, axes in held.items() if any(axis is not None for axis in axes)}
        constants = {v.name: axes for v, axes in moved.items()}
        parameters = {n: axes for n, axes in named(graph, held).items() if any(axis is not None for axis in axes)}
        return Reordering(constants, parameters, picks)
