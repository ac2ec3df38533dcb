"""Reorder: channels that several layers pick from change places, so that each picks neighbours.

Where layers chose channels of their own (``groups{mode=unconstrained}``), each takes its channels out of those that are
made for all: a copy at run time.  A range of neighbours is a slice, which torch reads in place.  So the channels of
such a value are put into an order in which as many readers as possible read one range (``order/``), wherever these
channels stand: in weights, biases, norms, other values, other takes.  What is nested, as along a residual stream that
channels leave, becomes prefixes.

Values that share channels are ordered together, as one *family*.  Parts that are concatenated stay one after another.
A family with a channel that may not change places (``movable.py``) stays as it is, and so does one that an order gains
nothing.  Left out on purpose: other orders of what is concatenated.  Start at :class:`Reorder`.

References
----------
Wan et al.: UPSCALE: Unconstrained Channel Pruning, ICML 2023.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from ..ir.analysis import Analysis, analyse
from ..ir.graph import Graph, Node, Value
from ..ir.words import by_reason, counted
from .base import Kind, Pass, State, register
from .movable import Components, Obstacle, obstacles, parts, picked
from .order import ordered, upscale_path
from .reordering import Places, Positions, Reordering

Method = Literal["exact", "upscale"]


@register
@dataclass(frozen=True)
class Reorder(Pass):
    """Reorder channels so that layers which pick theirs (``layout{copies=naive}``) read neighbours: slices, no copies.

    method: exact = as many as possible, the larger ones first where not all can; upscale = the published order, to
    compare with.
    """

    method: Method = "exact"

    name: ClassVar[str] = "reorder"
    kind: ClassVar[Kind] = "rewrite"
    requires: ClassVar[frozenset[str]] = frozenset({"compact"})
    ensures: ClassVar[frozenset[str]] = frozenset({"order"})
    forbids: ClassVar[frozenset[str]] = frozenset({"order"})
    requires_choice: ClassVar[bool] = True

    def run(self, state: State) -> Graph:
        search = _Search(analyse(state.graph), self.method)
        reordering = search.reordering()
        state.rewritings.append(reordering)
        state.notes.append(search.note())
        return reordering.applied(state.graph)


def slices(graph: Graph) -> dict[str, int]:
    """The picks of a compact graph that are slices once it is reordered, by name, and how many elements each reads."""
    search = _Search(analyse(graph), "exact")
    copying = {read.node.name for read in search.copying()}
    return {read.node.name: read.copied for read in search.reads if read.node.name not in copying}


# ---------------------------------------------------------------------- the search


@dataclass(frozen=True, eq=False)
class _Read:
    """A node that picks ``indices`` along ``dim``; the components there, and those that it gives.

    ``copied`` are the elements that it copies where they are no neighbours.
    """

    node: Node
    dim: int
    indices: Positions
    source: Components
    result: Components
    copied: int

    @property
    def value(self) -> Value:
        x = self.node.inputs[0]
        assert x is not None
        return x


@dataclass(frozen=True, eq=False)
class _Family:
    """Values that share channels: who picks some of them, and all of them by their components, ascending."""

    reads: list[_Read]
    channels: Components

    @property
    def rows(self) -> NDArray[np.bool_]:
        """Which of the channels each read needs: (reads, channels)."""
        return np.array([np.isin(self.channels, read.result) for read in self.reads])


class _Search:
    """The search for a place for each channel."""

    def __init__(self, analysis: Analysis, method: Method) -> None:
        self.analysis, self.method = analysis, method
        self.component = analysis.solution.component
        sites = analysis.sites.values()
        self.joins = [found for found in ([self.component[part] for part in parts(site)] for site in sites) if found]
        self.reads = list(_reads(analysis))
        self.places = Places.of(analysis)
        self.before = sum(read.node.op == "take" for read in self.reads)
        self.left: dict[Value, str] = {}
        self._settle()

    def reordering(self) -> Reordering:
        """What moves."""
        picks = {r.node.name: (r.dim, self._now(r)) for r in self.reads if self._changes(r)}
        return self.places.reordering(self.analysis, picks)

    def note(self) -> str:
        """What came of it, in a line for the report."""
        if not self.before:
            return "reorder: no layer picks channels that are no neighbours, so nothing changed"
        now = self.before - len(self.copying())
        text = f"reorder: {now} of {counted(self.before, 'pick')} without a copy now"
        if not self.left:
            return text if now else f"{text}: no order helps, so nothing changed"
        why = by_reason({value.name: why for value, why in self.left.items()})
        return f"{text}; {counted(len(self.left), 'value')} left in the order that was there ({why})"

    def copying(self) -> list[_Read]:
        """The picks that are no slices, in the places that were found."""
        return self._copying(self.reads)

    def _now(self, read: _Read) -> Positions:
        """The new positions of what ``read`` picks, in their new order."""
        now = np.argsort(self.places.moved(read.source))
        return now[read.indices[self.places.moved(read.result)]]

    def _changes(self, read: _Read) -> bool:
        """Whether what ``read`` picks moves, or is taken though it lies side by side."""
        return not np.array_equal(self._now(read), read.indices) or (
            read.node.op == "take" and not self._copying([read])
        )

    def _copying(self, reads: Sequence[_Read]) -> list[_Read]:
        """Those of ``reads`` that do not pick neighbours, in the places that are."""
        return [read for read in reads if (np.diff(self._now(read)) != 1).any()]

    def _settle(self) -> None:
        """Find places for the channels of each family from which something is copied."""
        held = list(obstacles(self.analysis))
        for number, family in enumerate(_families(self.reads)):
            copying = self._copying(family.reads)
            why = (_why_not(family, held) or self._place(number, family)) if copying else None
            if why is not None:
                self.left |= {read.value: why for read in copying}

    def _place(self, number: int, family: _Family) -> str | None:
        """Find places for the channels of ``family``, others than now if they gain anything; why there are none."""
        joins, gain = self._joins_of(family), 0
        before = _copied(self._copying(family.reads))
        self.places.family[family.channels] = number
        for order in _orders(family, joins, self.method):
            self.places.rank[order] = np.arange(order.size)
            if all(self._stays_joined(join) for join in joins):
                gain = before - _copied(self._copying(family.reads))
                break
        else:
            self.places.family[family.channels] = -1
            return "concatenated in several orders"
        if gain <= 0:
            self.places.family[family.channels] = -1
        return None

    def _joins_of(self, family: _Family) -> list[list[Components]]:
        """The concatenations of which several parts hold channels of ``family``."""
        held = np.zeros(self.places.family.size, bool)
        held[family.channels] = True
        return [join for join in self.joins if sum(bool(held[part].any()) for part in join) > 1]

    def _stays_joined(self, join: list[Components]) -> bool:
        """Whether the places in what is joined are those in its parts, one after another."""
        starts = np.cumsum([0, *(part.size for part in join[:-1])])
        apart = [self.places.moved(part) + start for part, start in zip(join, starts)]
        return np.array_equal(self.places.moved(np.concatenate(join)), np.concatenate(apart))


def _reads(analysis: Analysis) -> Iterator[_Read]:
    """Every node that picks some positions of one axis."""
    component = analysis.solution.component
    for node in analysis.graph.nodes:
        pick = picked(node) if node.name in analysis.sites else None
        if pick is None:
            continue
        (d, indices), site = pick, analysis.sites[node.name]
        source, result = component[(site.operands[0] or [])[d]], component[site.results[0][d]]
        yield _Read(node, d, indices, source, result, math.prod(node.output.shape or ()))


def _copied(reads: Sequence[_Read]) -> int:
    """How many elements ``reads`` copy."""
    return sum(read.copied for read in reads)


def _families(reads: Sequence[_Read]) -> list[_Family]:
    """The reads by values that share channels."""
    pairs = [(k, c) for k, read in enumerate(reads) for c in np.unique(read.source[read.source > 0]).tolist()]
    graph: nx.Graph[tuple[str, int]] = nx.Graph()
    graph.add_nodes_from(("read", k) for k in range(len(reads)))
    graph.add_edges_from((("read", k), ("channel", c)) for k, c in pairs)
    found = [sorted(part) for part in nx.connected_components(graph)]
    return [_Family([reads[k] for what, k in part if what == "read"], _channels(part)) for part in found]


def _channels(part: Sequence[tuple[str, int]]) -> Components:
    return np.array([c for what, c in part if what == "channel"], np.int64)


def _why_not(family: _Family, held: Sequence[Obstacle]) -> str | None:
    """What keeps the channels of ``family`` in their places; None if nothing does."""
    if any((read.source == 0).any() for read in family.reads):
        return "kept channels"
    return next((o.why for o in held if np.isin(o.components, family.channels).any()), None)


# ---------------------------------------------------------------------- orders


def _orders(family: _Family, joins: Sequence[Sequence[Components]], method: Method) -> Iterator[Components]:
    """Orders of the channels to be tried, the best first; the last one keeps parts of joins apart, if one can."""
    found = family.channels[_ordered(family, joins, method)]
    yield found
    if joins:
        yield found[::-1]
        yield from _by_parts(found, list(_rows(found, joins)))


def _ordered(family: _Family, joins: Sequence[Sequence[Components]], method: Method) -> Positions:
    """The order of the reads, to which the parts of joins matter most."""
    if method == "upscale":
        return upscale_path(family.rows)
    weights = [read.copied for read in family.reads]
    apart = [row for rows in _rows(family.channels, joins) for row in _side_by_side(rows)]
    rows = np.unique(np.array(apart, bool).reshape(len(apart), family.channels.size), axis=0)
    return ordered([*family.rows, *rows], [*weights, *[sum(weights) + 1] * len(rows)]).channels


def _side_by_side(rows: Sequence[NDArray[np.bool_]]) -> list[NDArray[np.bool_]]:
    """What are ranges where the parts stand one after another: each of them, and each with the next one."""
    return [*rows, *(a | b for a, b in pairwise(rows))]


def _rows(channels: Components, joins: Sequence[Sequence[Components]]) -> Iterator[list[NDArray[np.bool_]]]:
    """For each join which of the channels each part has that has any."""
    for join in joins:
        rows = [np.isin(channels, part) for part in join]
        yield [row for row in rows if row.any()]


def _by_parts(channels: Components, joins: Sequence[Sequence[NDArray[np.bool_]]]) -> Iterator[Components]:
    """The channels with those that are in the same parts together, and the parts of each join one after another."""
    cells = np.unique(np.array([row for rows in joins for row in rows]).T, axis=0, return_inverse=True)[1].ravel()
    follows: nx.DiGraph[int] = nx.DiGraph()
    follows.add_nodes_from(cells.tolist())
    for rows in joins:
        for a, b in pairwise(rows):
            follows.add_edges_from((i, j) for i in np.unique(cells[a]).tolist() for j in np.unique(cells[b]).tolist())
    if nx.is_directed_acyclic_graph(follows):
        first = {cell: int(np.flatnonzero(cells == cell)[0]) for cell in follows}
        in_turn = list(nx.lexicographical_topological_sort(follows, key=first.__getitem__))
        yield channels[np.argsort(np.argsort(in_turn)[cells], kind="stable")]
