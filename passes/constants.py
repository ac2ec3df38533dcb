"""Channels that do not depend on the input: found, folded into what reads them, removed.

A filter of zeros still emits its bias, and what follows makes act(bias) of it.  Dropping that constant changes the
function.  So constants are propagated forward; where every reader can take a channel's constant into its own bias
exactly, the channel goes; a convolution that pads mixes the constant with zeros at the border, so there a constant that
is not zero stays.  Anything else that reads a channel keeps it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..ir import arrays
from ..ir.analysis import Analysis, analyse
from ..ir.axes import Axes
from ..ir.dialects import runtime
from ..ir.graph import Graph, Node, Value
from .groups import Groups, find_groups
from .rewrite import eliminate, set_bias

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Known:
    """What is known of a value: along ``axis`` position p is ``level[p]`` everywhere, NaN where it is not constant."""

    axis: int
    level: Vector


def fold_constants(graph: Graph, opaque: frozenset[str] = frozenset()) -> tuple[Graph, int]:
    """``graph`` without the channels whose value is a constant that its readers can take in exactly; how many went.

    ``opaque`` are the names of nodes that the analysis does not understand, whatever op they are.
    """
    known = _Propagation(graph, opaque).run()
    if not any(np.isfinite(k.level).any() for k in known.values()):
        return graph, 0
    groups = find_groups(analyse(graph))
    units = _removable(groups, known)
    if not units.size:
        return graph, 0
    alive = groups.alive(units)
    changed = graph.copy()
    _shift_biases(changed, groups.analysis, known, alive)
    analysis = groups.analysis
    biases = [v for v in changed.constants if v not in analysis.axes]  # made just now: as long as the layer's output
    axes = {v: _axis_of_new_bias(analysis, changed, v) for v in biases}
    return eliminate(analysis.over(changed, axes), alive), int(units.size)


def _axis_of_new_bias(analysis: Analysis, graph: Graph, value: Value) -> Axes:
    layer = next(n for n in graph.nodes if value in n.inputs)
    d = _channel_axis(layer)
    return [(analysis.axes[layer.output] or [])[d]]


def _channel_axis(layer: Node) -> int:
    return 1 if layer.op == "conv" else len(layer.output.shape or ()) - 1


class _Propagation:
    """Constants carried forward, one rule for each kind of op that lets them through."""

    def __init__(self, graph: Graph, opaque: frozenset[str]) -> None:
        self.graph, self.opaque = graph, opaque
        self.known: dict[Value, Known] = {}
        self.rules: dict[str, Callable[[Node], Known | None]] = {
            "conv": self._layer,
            "linear": self._layer,
            "elementwise": self._elementwise,
            "pool": self._pool,
            "cat": self._cat,
            "reshape": self._flatten,
            "reduce": self._reduce,
        }

    def run(self) -> dict[Value, Known]:
        for node in self.graph.nodes:
            rule = self.rules.get(node.op) if node.name not in self.opaque else None
            found = rule(node) if rule is not None and len(node.outputs) == 1 else None
            if found is not None and np.isfinite(found.level).any():
                self.known[node.output] = found
        return self.known

    def _data(self, value: Value | None) -> Vector | None:
        if value is None or value not in self.graph.constants:
            return None
        return arrays.to_numpy(self.graph.constants[value].data).astype(np.float64)

    def _layer(self, node: Node) -> Known | None:
        held = self.graph.constants.get(node.inputs[1]) if node.inputs[1] is not None else None
        if held is None or node.output.shape is None or node.attrs.get("scaled"):
            return None
        given = node.inputs[2] if len(node.inputs) > 2 else None
        bias = self._data(given)
        if given is not None and bias is None:
            return None
        levels = _spread(self._usable(node), tuple(held.data.shape), node)
        parts = [_constant_rows(rows, levels[start : start + len(rows)]) for start, rows in arrays.blocks(held.data)]
        return Known(_channel_axis(node), np.concatenate(parts) + (0.0 if bias is None else bias))

    def _usable(self, node: Node) -> Vector:
        """Levels of the layer's input that survive its padding; NaN for the others."""
        x = node.inputs[0]
        assert x is not None and x.shape is not None
        axis = 1 if node.op == "conv" else len(x.shape) - 1
        known = self.known.get(x)
        if known is None or known.axis != axis:
            return np.full(x.shape[axis], np.nan)
        return usable(node, known.level)

    def _elementwise(self, node: Node) -> Known | None:
        operands = [v for v in node.inputs if v is not None]
        facts = [self.known.get(v) for v in operands]
        first = facts[0] if facts else None
        shape = node.output.shape
        if first is None or shape is None:
            return None
        shaped = []
        for fact, value in zip(facts, operands, strict=True):
            if fact is None or fact.axis != first.axis or value.shape is None or len(value.shape) != len(shape):
                return None
            form = [1] * len(shape)
            form[fact.axis] = fact.level.size
            shaped.append(fact.level.reshape(form))
        found = evaluate(self.graph, node, shaped)
        if found is None or found.size != first.level.size:
            return None
        missing = np.isnan(np.stack([np.broadcast_to(f.level, first.level.shape) for f in facts if f])).any(0)
        return Known(first.axis, np.where(missing, np.nan, found.ravel()))

    def _pool(self, node: Node) -> Known | None:
        fact = self.known.get(node.inputs[0]) if node.inputs[0] is not None else None
        if fact is None or fact.axis >= len(node.output.shape or ()) - int(node.attrs["spatial"]):
            return None
        if node.attrs["function"] in ("max", "mean"):
            return fact
        if node.attrs["function"] == "mean with borders":  # it may count zeros there
            return Known(fact.axis, np.where(fact.level == 0, 0.0, np.nan))
        return None

    def _cat(self, node: Node) -> Known | None:
        d = int(node.attrs["dim"])
        parts = []
        for value in node.inputs:
            if value is None or value.shape is None:
                return None
            fact = self.known.get(value)
            parts.append(fact.level if fact is not None and fact.axis == d else np.full(value.shape[d], np.nan))
        return Known(d, np.concatenate(parts))

    def _flatten(self, node: Node) -> Known | None:
        """(B, c, *) -> (B, c·*): each channel becomes a run of positions."""
        x, out = node.inputs[0], node.output
        fact = self.known.get(x) if x is not None else None
        if fact is None or x is None or x.shape is None or out.shape is None:
            return None
        if fact.axis != 1 or len(out.shape) != 2 or x.shape[0] != out.shape[0]:
            return None
        return Known(1, np.repeat(fact.level, out.shape[1] // fact.level.size))

    def _reduce(self, node: Node) -> Known | None:
        fact = self.known.get(node.inputs[0]) if node.inputs[0] is not None else None
        if fact is None or node.attrs["function"] not in ("max", "mean", "min") or fact.axis in node.attrs["dims"]:
            return None
        gone = 0 if node.attrs["keepdim"] else sum(d < fact.axis for d in node.attrs["dims"])
        return Known(fact.axis - gone, fact.level)


def _constant_rows(weight: NDArray[Any], levels: Vector) -> Vector:
    """What rows (r, i, *) of a weight make of constants (r, i) that they read; NaN where one is not constant."""
    flat = weight.reshape(*weight.shape[:2], -1)
    unknown = ((flat != 0).any(2) & np.isnan(levels)).any(1)
    if unknown.all():
        return np.full(len(flat), np.nan)
    summed = flat.astype(np.float64).sum(2)
    return np.where(unknown, np.nan, (summed * np.where(np.isnan(levels), 0.0, levels)).sum(1))


def usable(node: Node, level: Vector) -> Vector:
    """Constants that a layer can take into its bias: all without padding, zeros with it; NaN for the others."""
    if node.op == "conv" and node.attrs.get("padded", True):
        return np.where(level == 0, 0.0, np.nan)
    return level


def _spread(levels: Vector, shape: tuple[int, ...], node: Node) -> Vector:
    """Levels of the input channels that each output reads: (o, i) for a weight (o, i, *), grouped or not."""
    groups = int(node.attrs.get("groups", 1))
    rows = levels.reshape(groups, -1)
    return np.repeat(rows, shape[0] // groups, axis=0)


def evaluate(graph: Graph, node: Node, operands: list[Vector]) -> Vector | None:
    """An elementwise node computed on numbers, by the dialect's own runtime; None where it cannot be."""
    found: Vector | None = runtime(graph).evaluate(graph, node, operands)
    return found


def _removable(groups: Groups, known: dict[Value, Known]) -> NDArray[np.int64]:
    """Units that are constant wherever they flow, and that every reader can take in."""
    analysis, solution = groups.analysis, groups.analysis.solution
    stay = groups.group_of < 0
    readers = analysis.graph.consumers()
    for node in analysis.graph.nodes:
        for value in node.outputs:
            fact = known.get(value)
            for d, axis in enumerate(analysis.axes[value] or ()):
                if fact is None or fact.axis != d:
                    stay[solution.needs(axis)[1]] = True
                    continue
                blocked = np.isnan(fact.level)
                for reader in readers.get(value, ()):
                    blocked |= _blocks(reader, value, fact, known, readers, analysis.graph.outputs)
                stay[solution.needs(axis[blocked])[1]] = True
    dropped = ~stay
    for width in groups.widths():  # a layer that is dead altogether keeps one channel
        dead = np.bincount(width.position, dropped[width.unit], width.size) > 0
        if dead.all():
            dropped[width.unit[width.position == 0]] = False
    return np.flatnonzero(dropped).astype(np.int64)


def _blocks(
    reader: Node,
    value: Value,
    fact: Known,
    known: dict[Value, Known],
    readers: dict[Value, list[Node]],
    outputs: list[Value],
) -> NDArray[np.bool_]:
    """For each position whether ``reader`` needs it to stay."""
    layer = reader.op in ("conv", "linear") and not reader.attrs.get("scaled")
    if layer and reader.inputs[0] is value and value not in reader.inputs[1:]:
        bias = reader.inputs[2] if len(reader.inputs) > 2 else None
        own = bias is None or (len(readers[bias]) == 1 and bias not in outputs)
        blocked: NDArray[np.bool_] = np.isnan(usable(reader, fact.level)) | (not own)
        return blocked
    passes = reader.op in ("elementwise", "pool", "cat", "reshape", "reduce") and reader.output in known
    return np.full(fact.level.size, not passes)


def _shift_biases(graph: Graph, analysis: Analysis, known: dict[Value, Known], alive: Any) -> None:
    """Each layer takes the constants of the dead channels that it reads into its bias."""
    for node in graph.nodes:
        x = node.inputs[0] if node.op in ("conv", "linear") else None
        fact = known.get(x) if x is not None else None
        if x is None or fact is None:
            continue
        dead = ~alive[(analysis.axes[x] or [])[fact.axis]]
        levels = np.where(dead, np.nan_to_num(fact.level), 0.0)
        weight = node.inputs[1]
        if weight not in graph.constants or not levels.any():
            continue
        data = arrays.to_numpy(graph.constants[weight].data).astype(np.float64)
        summed = data.reshape(*data.shape[:2], -1).sum(2)
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        old = 0.0 if bias is None else arrays.to_numpy(graph.constants[bias].data).astype(np.float64)
        set_bias(graph, node, old + (summed * _spread(levels, data.shape, node)).sum(1))
