"""Taking dead positions out of a graph: constants sliced, attributes refitted.  Every eliminating pass builds on this.

:func:`eliminate` makes the compact graph; :func:`mask` makes what it must equal.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..ir import arrays, dialects
from ..ir.analysis import Analysis
from ..ir.axes import Axes
from ..ir.codes import beside, codes
from ..ir.graph import Constant, Graph, Node, Value, map_values, reads, substitute, values_in
from ..ir.opset import OPS, Alive, Analysed

Indices = tuple[NDArray[np.int64] | None, ...]
Kept = dict[str, Indices]

NOTHING = -1
"""The index of a position that holds zeros, for which the source has nothing."""


def kept_indices(analysis: Analysis, alive: Alive) -> dict[Value, Indices]:
    """For each constant the kept indices of each axis, None where all are kept."""
    return {value: analysis.kept(value, alive) for value in analysis.graph.constants}


def named(graph: Graph, kept: dict[Value, Indices]) -> Kept:
    """Kept indices by the source's parameter names (tied names share theirs); literals are left out."""
    return {n: kept[v] for v, c in graph.constants.items() if c.role != "literal" for n in c.names}


def composed(kept: Indices, chosen: Indices) -> Indices:
    """For each axis the indices ``kept[chosen]``; None, or no ``chosen`` at all, is all, and NOTHING stays NOTHING."""
    return tuple(_at(k, c) for k, c in zip(kept, chosen or (None,) * len(kept), strict=True))


def _at(kept: NDArray[np.int64] | None, chosen: NDArray[np.int64] | None) -> NDArray[np.int64] | None:
    if kept is None or chosen is None:
        return kept if chosen is None else chosen
    return np.where(chosen == NOTHING, NOTHING, kept[chosen])


def eliminate(analysis: Analysis, alive: Alive, held: Alive | None = None) -> Graph:
    """A copy of the analysed graph without the dead positions; those ``held`` all the same stay, with zeros."""
    stays = alive if held is None else held
    if (stays != alive).any():
        analysis = analysis.over(_with_constants(analysis, alive, _masking(analysis.graph)))
    graph = _with_constants(analysis, stays, lambda value, data, kept: arrays.keep(data, kept))
    for node in graph.nodes:
        refit(graph, node, analysis, stays)
    return _without_idle_edges(_resized(graph, analysis, stays))


def _without_idle_edges(graph: Graph) -> Graph:
    """Soft edges made hard."""
    edges = {n.name for n in graph.nodes if n.attrs.pop("soft", False)}
    for node in graph.nodes:
        if node.name in edges:
            del node.attrs["reader"]
    return without_idle_takes(graph, edges)


def without_idle_takes(graph: Graph, names: Collection[str]) -> Graph:
    """``graph`` (in place) with the takes called ``names`` as cheap as they can be.

    Those that leave out nothing are gone, those of neighbours are slices, and those of whole parts of a concatenation
    concatenate these parts alone.
    """
    idle: dict[Value, Value] = {}
    makers = graph.producers()
    read = [v for n in graph.nodes if n.name in names for v in reads(n)]
    for k, node in enumerate(graph.nodes):
        if node.name in names:
            found = _cheaper(graph, node, makers)
            if isinstance(found, Value):
                idle[node.output] = idle.get(found, found)
            else:
                graph.nodes[k] = found
    graph.nodes = [n for n in graph.nodes if n.outputs[0] not in idle]
    for node in graph.nodes:
        substitute(node, idle)
    return without_idle_literals(without_unread(graph, {makers[v].name for v in read if v in makers}), read)


def _cheaper(graph: Graph, take: Node, makers: Mapping[Value, Node]) -> Node | Value:
    """What does as well as ``take``: a value that there is, a concatenation, a slice, or the node itself."""
    x, d, indices = take.inputs[0], take.attrs["dim"], take.attrs["indices"]
    assert x is not None
    if not indices:
        return take
    start, stop = indices[0], indices[-1] + 1
    side_by_side = indices == tuple(range(start, stop))
    if side_by_side and stop - start == (x.shape or ())[d]:
        whole = [x]
    else:
        whole = _whole_parts(makers.get(x), x, d, indices)
    if len(whole) == 1 and take.output not in graph.outputs:
        return whole[0]
    if len(whole) > 1:
        return replace(make(graph, "cat", tuple(whole), {"dim": d}, take.output), name=take.name)
    if side_by_side:
        cut = make(graph, "slice", (x,), {"slices": ((d, start, stop, 1),)}, take.output)
        return replace(cut, name=take.name)
    return take


def _whole_parts(maker: Node | None, x: Value, d: int, indices: tuple[int, ...]) -> list[Value]:
    """What stands at ``indices`` of ``x``, if that is whole operands of its ``maker``, a concatenation along ``d``.

    Operands of several dtypes are left alone, for a concatenation converts them.
    """
    if maker is None or maker.op != "cat" or maker.attrs["dim"] != d:
        return []
    parts = [v for v in maker.inputs if v is not None and v.shape is not None and len(v.shape) == len(x.shape or ())]
    sizes = [(v.shape or ())[d] for v in parts]
    if sum(sizes) != (x.shape or ())[d] or any(v.dtype != x.dtype for v in parts):
        return []
    found: list[Value] = []
    wanted: list[int] = []
    starts = np.cumsum([0, *sizes]).tolist()
    for part, start, stop in zip(parts, starts, starts[1:], strict=False):
        if start < stop and start in indices:
            found.append(part)
            wanted += range(start, stop)
    return found if wanted == list(indices) else []


def without_unread(graph: Graph, names: Collection[str]) -> Graph:
    """``graph`` (in place) without those nodes called ``names`` that nobody reads, directly or through such a node."""
    used = {*graph.outputs, *values_in(graph.source.get("outputs", ()))}
    kept: list[Node] = []
    for node in reversed(graph.nodes):
        if node.name not in names or used.intersection(node.outputs):
            used |= set(reads(node))
            kept.append(node)
    graph.nodes = kept[::-1]
    return graph


def without_idle_literals(graph: Graph, values: Iterable[Value]) -> Graph:
    """``graph`` (in place) without those literals among ``values`` that no node reads."""
    used = {v for node in graph.nodes for v in reads(node)} | set(graph.outputs)
    for value in set(values) & graph.constants.keys() - used:
        if graph.constants[value].role == "literal":
            del graph.constants[value]
    return graph


def _resized(graph: Graph, analysis: Analysis, alive: Alive) -> Graph:
    """Values that lost positions replaced by values of the new shape, everywhere."""
    table: dict[Value, Value] = {}
    for value in graph.values():
        axes = analysis.axes.get(value)
        shape = value.shape if axes is None or value.shape is None else tuple(int(alive[axis].sum()) for axis in axes)
        if value in graph.constants:
            shape = tuple(graph.constants[value].data.shape)
        if shape != value.shape:
            table[value] = replace(value, shape=shape)
    return renamed(graph, table)


def renamed(graph: Graph, table: dict[Value, Value]) -> Graph:
    """``graph`` with values replaced by others (in place)."""
    for node in graph.nodes:
        substitute(node, table)
        node.outputs = tuple(table.get(v, v) for v in node.outputs)
    graph.inputs = [table.get(v, v) for v in graph.inputs]
    graph.outputs = [table.get(v, v) for v in graph.outputs]
    graph.constants = {table.get(v, v): c for v, c in graph.constants.items()}
    graph.source = {
        k: map_values(x, lambda v: table.get(v, v)) if k == "outputs" else x for k, x in graph.source.items()
    }
    return graph


def mask(analysis: Analysis, alive: Alive) -> Graph:
    """The dense graph with zeros where positions are dead, and statistics over the survivors alone.

    This is the oracle: every element of a constant that did not survive is zero; a node that normalises or reduces over
    an axis with dead positions reads the survivors only, and its result is put back with zeros, or with what stands for
    them in integers.
    """
    graph = _with_constants(analysis, alive, _masking(analysis.graph))
    nodes: list[Node] = []
    for node in graph.nodes:
        site = analysis.sites.get(node.name)
        if site is not None and normalises_dead(site, alive):
            nodes += _Restriction(graph, analysis, alive).nodes(node, site)
        else:
            nodes.append(node)
    graph.nodes = nodes
    return graph


def refit(graph: Graph, node: Node, analysis: Analysis, alive: Alive) -> None:
    """Write back the attributes of one node that change when dead positions go."""
    fitting, op = analysis.fitting(node, alive), OPS.get(node.op)
    if fitting is not None and op is not None and (changed := op.refitted(fitting)):
        write(graph, node, changed)


def write(graph: Graph, node: Node, changed: dict[str, Any]) -> None:
    """Put changed attributes into a node, in the spelling of its dialect."""
    node.kind, node.call = dialects.names(graph).write(graph, node, changed)
    node.attrs = {**node.attrs, **changed}


def make(graph: Graph, op: str, inputs: tuple[Value, ...], attrs: dict[str, Any], result: Value) -> Node:
    """A new node in the graph's dialect; it is not entered anywhere."""
    kind, call = dialects.names(graph).make(graph, op, inputs, attrs)
    return Node(result.name, op, inputs, (result,), attrs, kind, call)


def literal(graph: Graph, name: str, array: NDArray[Any]) -> Value:
    """A new constant that belongs to no parameter."""
    value = Value(name, array.shape, str(array.dtype))
    graph.constants[value] = Constant((f"_literal.{name}",), dialects.names(graph).constant(array), "literal")
    return value


def set_data(graph: Graph, value: Value, array: NDArray[Any]) -> None:
    """Other data for a constant, in its own dtype."""
    held = graph.constants[value]
    graph.constants[value] = replace(held, data=arrays.like(array, held.data))


def set_bias(graph: Graph, layer: Node, array: NDArray[np.float64]) -> None:
    """Give ``layer`` this bias, in the dtype of its weight; a new constant where it had none."""
    weight = layer.inputs[1]
    assert weight is not None
    held = graph.constants[weight]
    bias = layer.inputs[2] if len(layer.inputs) > 2 else None
    if bias is None:
        bias = Value(f"{layer.name}_bias", array.shape, weight.dtype)
        graph.constants[bias] = Constant((f"_literal.{layer.name}_bias",), arrays.like(array, held.data), "literal")
        layer.inputs = (*layer.inputs[:2], bias)
        layer.call = dialects.names(graph).set_operand(layer, 2, bias)
    else:
        set_data(graph, bias, array)


def normalises_dead(site: Analysed, alive: Alive) -> bool:
    """Whether a node normalises over an axis that loses positions: there removing is not zeroing."""
    op = OPS.get(site.node.op)
    if op is None:
        return False
    axes = ((site.operands[k] or [])[d] for k, dims in op.normalised_axes(site.node).items() for d in dims)
    return any(not alive[axis].all() for axis in axes)


def _masking(graph: Graph) -> Callable[[Value, Any, Indices], Any]:
    """Zeros, or what stands for them in integers; scales and zero points hold no numbers, and stay."""
    zeros, stay = {v: code.zero for v, code in codes(graph).items()}, beside(graph)

    def change(value: Value, data: Any, kept: Indices) -> Any:
        return data if value in stay else arrays.masked(data, kept, zeros.get(value, 0))

    return change


def _with_constants(analysis: Analysis, alive: Alive, change: Callable[[Value, Any, Indices], Any]) -> Graph:
    graph = analysis.graph.copy()
    for value, kept in kept_indices(analysis, alive).items():
        if any(k is not None for k in kept):
            old = graph.constants[value]
            graph.constants[value] = replace(old, data=change(value, old.data, kept))
    return graph


class _Restriction:
    """One node made to read survivors alone, its results widened again with zeros."""

    def __init__(self, graph: Graph, analysis: Analysis, alive: Alive) -> None:
        self.graph, self.analysis, self.alive = graph, analysis, alive

    def nodes(self, node: Node, site: Analysed) -> list[Node]:
        before: list[Node] = []
        table: dict[Value, Value] = {}
        for value, axes in zip(node.inputs, site.operands, strict=True):
            if value is not None and value not in table:
                table[value] = self._narrowed(node, value, axes or [], before)
        substitute(node, table)
        refit(self.graph, node, self.analysis, self.alive)
        after: list[Node] = []
        zero = OPS[node.op].zero_point(node)
        node.outputs = tuple(
            self._widened(v, axes, zero if k == 0 else None, after)
            for k, (v, axes) in enumerate(zip(node.outputs, site.results, strict=True))
        )
        return [*before, node, *after]

    def _narrowed(self, node: Node, value: Value, axes: Axes, nodes: list[Node]) -> Value:
        for d, axis in enumerate(axes):
            if not self.alive[axis].all():
                name = f"{node.name}_{value.name}_survivors{d}"
                value = self._take(value, d, np.flatnonzero(self.alive[axis]), name, nodes)
        return value

    def _widened(self, value: Value, axes: Axes, zero: Value | None, nodes: list[Node]) -> Value:
        """A stand-in for ``value`` that holds survivors alone; ``nodes`` gains what makes ``value`` from it.

        Dead positions hold the single number ``zero``, or 0.
        """
        dead = [d for d, axis in enumerate(axes) if not self.alive[axis].all()]
        if not dead:
            return value
        small = current = replace(value, name=f"{value.name}_survivors")
        filling = () if zero is None else (zero,)
        for d in dead:
            alive = self.alive[axes[d]]
            padded = replace(value, name=f"{value.name}_padded{d}")
            pads = tuple((0, int(e == d)) for e in range(len(axes)))
            nodes.append(make(self.graph, "pad", (current, *filling), {"pads": pads}, padded))
            wide = np.where(alive, np.cumsum(alive) - 1, int(alive.sum()))
            current = self._take(padded, d, wide, f"{value.name}_wide{d}", nodes, value if d == dead[-1] else None)
        return small

    def _take(
        self, x: Value, dim: int, indices: NDArray[Any], name: str, nodes: list[Node], result: Value | None = None
    ) -> Value:
        index = literal(self.graph, f"{name}_index", indices.astype(np.int64))
        shape = tuple(len(indices) if d == dim else s for d, s in enumerate(x.shape or ()))
        result = result or Value(name, shape, x.dtype, x.dynamic)
        nodes.append(make(self.graph, "take", (x, index), {"dim": dim, "indices": ()}, result))
        return result
