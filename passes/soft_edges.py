"""Soft edges put into a graph: where several layers read the same channels, each may choose its own.

A layer that sums over its input channels reads through a ``take`` of all of them, marked ``soft``.  It stands where the
layer's own path begins: what lies between (a batch norm, an activation) belongs to the reader.  A channel that one
layer alone reads needs no such edge: the layer and what makes the channel decide together.

A *join* reads so as well: where a value that others read too is added to or multiplied with another one, the result may
do without some of its channels.  Thus a channel that only early layers read leaves a residual stream after them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from ..ir.analysis import Analysis, analyse
from ..ir.axes import Axis
from ..ir.graph import Graph, Node, Value, substitute
from ..ir.opset import OPS, Alive
from .rewrite import literal, make


@dataclass(frozen=True, eq=False)
class _Edge:
    """``node`` reads ``value``, whose channels lie along ``dim``; ``reader`` is the layer at the end of the path."""

    reader: Node
    node: Node
    value: Value
    dim: int

    @property
    def key(self) -> tuple[str, int]:
        return self.reader.name, self.dim


@dataclass(frozen=True, eq=False)
class SoftEdge:
    """An edge of a softened graph: the ``node`` that stands for it, and the layer or join that reads across it."""

    node: Node
    reader: Node

    @property
    def name(self) -> str:
        return self.node.name

    @property
    def key(self) -> tuple[str, int]:
        return self.reader.name, self.node.attrs["dim"]

    def axes(self, analysis: Analysis) -> tuple[Axis, Axis]:
        """The reader's channels and those that it reads, position by position."""
        d, x = self.node.attrs["dim"], self.node.inputs[0]
        assert x is not None
        return (analysis.axes[self.node.output] or [])[d], (analysis.axes[x] or [])[d]

    def is_partial(self, analysis: Analysis, alive: Alive) -> bool:
        """Whether the reader does without channels that are there."""
        reader, source = self.axes(analysis)
        return bool((alive[source] & ~alive[reader]).any())


def soft_edges(analysis: Analysis) -> list[SoftEdge]:
    """The soft edges of an analysed graph, in order."""
    by_name = {n.name: n for n in analysis.graph.nodes}
    soft = [n for n in analysis.graph.nodes if n.attrs.get("soft")]
    return [SoftEdge(n, by_name[n.attrs["reader"]]) for n in soft]


def softened(graph: Graph) -> Analysis:
    """The analysis of a copy of ``graph`` with soft edges at joins, and before each layer that shares channels.

    Layers that would keep each other alive in a ring (weights tied across a loop of channels) share what they keep;
    joins of a ring give way first.
    """
    joins = list(_joins(analyse(graph)))
    hard: set[tuple[str, int]] = set()
    while True:
        joined = analyse(_with_edges(graph, [e for e in joins if e.key not in hard]))
        layers = _shared(joined, list(_edges(joined)))
        soft = analyse(_with_edges(joined.graph, [e for e in layers if e.key not in hard]))
        found = _in_rings(soft) | _tied(soft) | _normalised(soft)
        if not found:
            return soft
        hard |= found & {e.key for e in joins} or found


def _with_edges(graph: Graph, edges: list[_Edge]) -> Graph:
    soft = graph.copy()
    by_name = {n.name: n for n in soft.nodes}
    taken = {v.name for v in soft.values()} | set(by_name)
    before: dict[str, list[Node]] = {}
    read: dict[tuple[str, Value], Value] = {}
    for edge in edges:
        value = read.get((edge.node.name, edge.value), edge.value)
        take = _take(soft, edge, value, taken)
        substitute(by_name[edge.node.name], {value: take.output})
        before.setdefault(edge.node.name, []).append(take)
        read[edge.node.name, edge.value] = take.output
    soft.nodes = [each for n in soft.nodes for each in (*before.get(n.name, ()), n)]
    return soft


def _take(graph: Graph, edge: _Edge, value: Value, taken: set[str]) -> Node:
    """All positions of an edge, in their order."""
    size, name = (value.shape or ())[edge.dim], f"{edge.reader.name}_reads"
    while name in taken or f"{name}_index" in taken:
        name += "_"
    taken |= {name, f"{name}_index"}
    index = literal(graph, f"{name}_index", np.arange(size, dtype=np.int64))
    attrs = {"dim": edge.dim, "indices": tuple(range(size)), "soft": True, "reader": edge.reader.name}
    return make(graph, "take", (value, index), attrs, replace(value, name=name))


def _in_rings(analysis: Analysis) -> set[tuple[str, int]]:
    """The edges, by reader and axis, across which a layer would read what lives through itself."""
    solution = analysis.solution
    if solution.soft is None or not (cyclic := solution.soft.cyclic()).any():
        return set()
    readers = np.unique(solution.soft.reader[cyclic])
    edges = soft_edges(analysis)
    found = (e for e in edges if np.isin(solution.component[e.axes(analysis)[0]], readers).any())
    return {e.key for e in found}


def _tied(analysis: Analysis) -> set[tuple[str, int]]:
    """The edges whose two sides live and die together all the same."""
    component = analysis.solution.component
    pairs = ((e, *e.axes(analysis)) for e in soft_edges(analysis))
    return {e.key for e, reader, source in pairs if np.array_equal(component[reader], component[source])}


def _normalised(analysis: Analysis) -> set[tuple[str, int]]:
    """The edges to whose positions some statistic extends: what is read there for nothing would count in it."""
    component = analysis.solution.component
    seen = np.zeros(int(component.max()) + 1, bool)
    for site in analysis.sites.values():
        op = OPS.get(site.node.op)
        for k, dims in op.normalised_axes(site.node).items() if op is not None else ():
            for d in dims:
                seen[component[(site.operands[k] or [])[d]]] = True
    seen[0] = False
    return {e.key for e in soft_edges(analysis) if seen[component[e.axes(analysis)[0]]].any()}


def _joins(analysis: Analysis) -> Iterator[_Edge]:
    """Each operand of a function of several computed values that others read too, if it is the only one of them."""
    graph = analysis.graph
    readers = graph.consumers()
    for node in graph.nodes:
        computed = {v for v in node.inputs if v is not None and v not in graph.constants and v.is_tensor}
        if node.op != "elementwise" or len(computed) < 2 or node.name not in analysis.sites:
            continue
        several = [v for v in computed if len(readers[v]) > 1 and v.shape == node.output.shape]
        if len(several) == 1:
            axes = analysis.axes[several[0]] or []
            dims = [d for d, axis in enumerate(axes) if analysis.solution.may_shrink(axis)]
            if len(dims) == 1:
                yield _Edge(node, node, several[0], dims[0])


def _edges(analysis: Analysis) -> Iterator[_Edge]:
    """Each layer that sums over channels of a computed value, from where its own path begins."""
    graph = analysis.graph
    makers, readers = graph.producers(), graph.consumers()
    for node in graph.nodes:
        site, op = analysis.sites.get(node.name), OPS.get(node.op)
        if site is None or op is None:
            continue
        for letter, carriers in op.contracts(node).items():
            computed = [k for k in carriers if node.inputs[k] not in graph.constants]
            axis = site.binding.letters.get(letter)
            if len(computed) != 1 or len(carriers) < 2 or axis is None:
                continue
            value = node.inputs[computed[0]]
            assert value is not None
            dims = [d for d, a in enumerate(analysis.axes[value] or ()) if np.array_equal(a, axis)]
            if len(dims) == 1 and analysis.solution.may_shrink(axis):
                yield _begin(analysis, _Edge(node, node, value, dims[0]), makers, readers)


def _begin(analysis: Analysis, edge: _Edge, makers: dict[Value, Node], readers: dict[Value, list[Node]]) -> _Edge:
    """The edge moved up to where another node reads the value as well, or where it was made from several."""
    outputs = set(analysis.graph.outputs)
    while (up := _above(analysis, edge, makers, readers)) is not None and edge.value not in outputs:
        edge = up
    return edge


def _above(
    analysis: Analysis, edge: _Edge, makers: dict[Value, Node], readers: dict[Value, list[Node]]
) -> _Edge | None:
    """The edge before the node that makes the value; None unless that node treats each channel by itself."""
    maker = makers.get(edge.value)
    if maker is None or len(readers[edge.value]) > 1 or len(maker.outputs) > 1 or maker.name not in analysis.sites:
        return None
    computed = [(k, v) for k, v in enumerate(maker.inputs) if v is not None and v not in analysis.graph.constants]
    if len(computed) != 1:
        return None
    k, value = computed[0]
    op, letters = OPS[maker.op], analysis.sites[maker.name].binding.letters
    axis = (analysis.axes[edge.value] or [])[edge.dim]
    dims = [d for d, a in enumerate(analysis.axes[value] or ()) if np.array_equal(a, axis)]
    mixed = any(np.array_equal(letters[x], axis) for x in op.contracts(maker) if x in letters)
    if len(dims) != 1 or mixed or dims[0] in op.normalised_axes(maker).get(k, ()):
        return None
    return _Edge(edge.reader, maker, value, dims[0])


def _shared(analysis: Analysis, edges: list[_Edge]) -> list[_Edge]:
    """The edges with a unit that another one, or a join, reads as well."""
    solution = analysis.solution
    units = [np.unique(solution.needs((analysis.axes[e.value] or [])[e.dim])[1]) for e in edges]
    joined = [np.unique(solution.needs(e.axes(analysis)[1])[1]) for e in soft_edges(analysis)]
    count = np.zeros(solution.units, np.int64)
    for read in [*units, *joined]:
        count[read] += 1
    return [edge for edge, read in zip(edges, units, strict=True) if (count[read] > 1).any()]
