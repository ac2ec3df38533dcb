"""Levels: channels whose value does not depend on the input, and what it is.

A filter of zeros still emits its bias, a batch norm its shift, and what follows makes act(bias) of it.  Constants are
carried forward, one rule for each kind of op that lets them through; in what has no rule nothing is known.  Start at
:func:`levels`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..ir import arrays
from ..ir.dialects import runtime
from ..ir.graph import Constant, Graph, Node, Value
from .affine import Vector, affine, numbers

IMAGES = ("conv", "conv_transpose")
"""Layers whose channels are on axis 1; of the others they are on the last."""

INPUT_FIRST = ("linear_t", "conv_transpose", "matmul")
"""Layers whose weight is (i, o, *) instead of (o, i, *)."""

_PROBES = (0.7, -1.3, 37.0, -41.0)
"""Numbers that stand for any: a function that makes zero of zero and of each of these is a product."""


@dataclass(frozen=True)
class Known:
    """What is known of a value: along ``axis`` position p is ``level[p]`` everywhere, NaN where it is not constant."""

    axis: int
    level: Vector


def levels(graph: Graph, opaque: frozenset[str] = frozenset()) -> dict[Value, Known]:
    """What is known of the values of ``graph``; of others nothing is.

    ``opaque`` are the names of nodes that the analysis does not understand, whatever op they are.
    """
    return _Propagation(graph, opaque).run()


class _Propagation:
    """Constants carried forward, one rule for each kind of op that lets them through."""

    def __init__(self, graph: Graph, opaque: frozenset[str]) -> None:
        self.graph, self.opaque = graph, opaque
        self.known: dict[Value, Known] = {}
        self.rules: dict[str, Callable[[Node], Known | None]] = {
            "conv": self._layer,
            "linear": self._layer,
            "linear_t": self._layer,
            "matmul": self._layer,
            "conv_transpose": self._layer,
            "batch_norm": self._batch_norm,
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

    def _layer(self, node: Node) -> Known | None:
        held = weight(self.graph, node)
        if held is None or node.output.shape is None:
            return None
        given = node.inputs[2] if len(node.inputs) > 2 else None
        bias = numbers(self.graph, given)
        if given is not None and bias is None:
            return None
        if node.op in INPUT_FIRST:
            if int(node.attrs.get("groups", 1)) > 1:
                return None
            rows = arrays.to_numpy(held.data).swapaxes(0, 1)
            level = _constant_rows(rows, spread(self._usable(node), rows.shape, node))
        else:
            found = spread(self._usable(node), tuple(held.data.shape), node)
            parts = [_constant_rows(rows, found[start : start + len(rows)]) for start, rows in arrays.blocks(held.data)]
            level = np.concatenate(parts)
        return Known(channel_axis(node), level + (0.0 if bias is None else bias))

    def _usable(self, node: Node) -> Vector:
        """Levels of the layer's input that survive its padding; NaN for the others."""
        x = node.inputs[0]
        assert x is not None and x.shape is not None
        axis = 1 if node.op in IMAGES else len(x.shape) - 1
        known = self.known.get(x)
        if known is None or known.axis != axis:
            return np.full(x.shape[axis], np.nan)
        return usable(node, known.level)

    def _batch_norm(self, node: Node) -> Known | None:
        """The shift, where the input is constant or the scale is zero; with statistics of its own alone."""
        x, out = node.inputs[0], node.output
        if x is None or out.shape is None or len(out.shape) < 2 or "eps" not in node.attrs or len(node.inputs) < 5:
            return None
        if any(v is not None and v not in self.graph.constants for v in node.inputs[1:]) or None in node.inputs[3:5]:
            return None
        scale, shift = affine(self.graph, node)
        fact = self.known.get(x)
        level = fact.level if fact is not None and fact.axis == 1 else np.full(out.shape[1], np.nan)
        return Known(1, np.where(scale == 0, 0.0, level * scale) + shift)

    def _elementwise(self, node: Node) -> Known | None:
        operands, shape = [v for v in node.inputs if v is not None], node.output.shape
        first = next((v for v in operands if v in self.known), None)
        if first is None or shape is None or any(v.shape is None for v in operands):
            return None
        axis = self.known[first].axis + len(shape) - len(first.shape or ())
        held = [self._along(v, axis, shape) for v in operands]
        if any(h is None for h in held):
            return None
        given = [h for h in held if h is not None]
        missing = np.any([np.broadcast_to(np.isnan(h), (shape[axis],)) for h in given], 0)
        forms = [self._form(v, axis, len(shape)) for v in operands]
        found = self._computed(node, given, forms)
        if found is None or found.size != shape[axis]:
            return None
        level = np.where(missing, np.nan, found)
        null = np.any([np.broadcast_to(h == 0, (shape[axis],)) for h in given], 0) & missing
        for probe in _PROBES if null.any() else ():
            probed = self._computed(node, [np.where(np.isnan(h), probe, h) for h in given], forms)
            null &= False if probed is None or probed.size != shape[axis] else probed == 0
        return Known(axis, np.where(null, 0.0, level))

    def _along(self, value: Value, axis: int, shape: Sequence[int]) -> Vector | None:
        """What is known of an operand along ``axis`` of the result: as long as that, or one number; None for a constant
        that has other axes as well."""
        mine = axis - (len(shape) - len(value.shape or ()))
        size = (value.shape or ())[mine] if mine >= 0 else 1
        if value in self.graph.constants:
            data = numbers(self.graph, value)
            return data.reshape(-1) if data is not None and data.size == size else None
        fact = self.known.get(value)
        return fact.level if fact is not None and fact.axis == mine else np.full(size, np.nan)

    def _form(self, value: Value, axis: int, rank: int) -> tuple[int, ...]:
        """The shape in which an operand is computed with: numbers that are limits or exponents keep their own."""
        number = value in self.graph.constants and all(size == 1 for size in value.shape or ())
        return (value.shape or ()) if number else tuple(-1 if d == axis else 1 for d in range(rank))

    def _computed(self, node: Node, operands: list[Vector], forms: list[tuple[int, ...]]) -> Vector | None:
        found = evaluate(self.graph, node, [x.reshape(form) for x, form in zip(operands, forms, strict=True)])
        return None if found is None else found.ravel()

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


def weight(graph: Graph, layer: Node) -> Constant | None:
    """The constant weight of a layer; None where it is computed, or scaled, or a matrix for each example."""
    held = graph.constants.get(layer.inputs[1]) if layer.inputs[1] is not None else None
    if held is None or layer.attrs.get("scaled"):
        return None
    return held if layer.op != "matmul" or (len(held.data.shape) == 2 and len(layer.inputs) == 2) else None


def channel_axis(layer: Node) -> int:
    """The axis of a layer's result that has its channels."""
    return 1 if layer.op in IMAGES else len(layer.output.shape or ()) - 1


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
    if node.op == "conv_transpose" or (node.op == "conv" and node.attrs.get("padded", True)):
        return np.where(level == 0, 0.0, np.nan)
    return level


def spread(levels: Vector, shape: tuple[int, ...], node: Node) -> Vector:
    """Levels of the input channels that each output reads: (o, i) for a weight (o, i, *), grouped or not."""
    groups = int(node.attrs.get("groups", 1))
    rows = levels.reshape(groups, -1)
    return np.repeat(rows, shape[0] // groups, axis=0)


def evaluate(graph: Graph, node: Node, operands: list[Vector]) -> Vector | None:
    """An elementwise node computed on numbers, by the dialect's own runtime; None where it cannot be."""
    found: Vector | None = runtime(graph).evaluate(graph, node, operands)
    return found
