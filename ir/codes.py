"""Integer constants that stand for numbers, as quantised models hold their weights.

An integer constant is a position or a size, and stays whole, unless everything that reads it says how it stands for
numbers (``Op.coded``): then it is a parameter like any other.  A removed number is a code for zero: the zero point, not
the integer 0.  Start at :func:`codes`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from . import arrays
from . import ops as _ops  # noqa: F401  (fills the registry)
from .graph import Graph, Node, Value
from .opset import OPS, Coded

Point = int | Value | tuple[int, object]
"""A zero point: a number, a single number that is computed, or an axis with what lies along it."""


@dataclass(frozen=True, eq=False)
class Code:
    """How one constant stands for numbers: ``(q - zero) * scale``, both of a shape that broadcasts.

    ``scale`` is None where no constant says it.
    """

    zero: NDArray[np.int64]
    scale: NDArray[np.float64] | None

    def numbers(self, data: NDArray[np.generic]) -> NDArray[np.float64]:
        """The numbers that the integers ``data`` stand for."""
        shifted = data.astype(np.float64) - self.zero
        return shifted if self.scale is None else shifted * self.scale

    def agrees(self, other: Code) -> bool:
        """Whether both have the same zero."""
        return np.array_equal(self.zero, other.zero)


def codes(graph: Graph) -> dict[Value, Code]:
    """The integer constants of ``graph`` that stand for numbers."""
    found: dict[Value, Code | None] = {}
    readers = graph.consumers()
    for node in graph.nodes:
        said = _said(graph, node, readers)
        for value, code in said:
            held = found.get(value, code)
            found[value] = code if held is not None and code is not None and held.agrees(code) else None
        for value in {v for v in node.inputs if v in graph.constants} - {v for v, _ in said}:
            found[value] = None
    return {v: code for v, code in found.items() if code is not None}


def _said(graph: Graph, node: Node, readers: Mapping[Value, list[Node]]) -> list[tuple[Value, Code | None]]:
    """How the integer constants that ``node`` reads as numbers stand for them, as far as it says so."""
    if (table := _table(graph, node)) is not None:
        return [(table, _looked_up(graph, node, readers))]
    coded = OPS[node.op].coded(node) if node.op in OPS else {}
    return [(v, _code(graph, node, how, len(graph.constants[v].data.shape))) for how, v in _coded(graph, node, coded)]


def _table(graph: Graph, node: Node) -> Value | None:
    """The integers that ``node`` looks up rows of."""
    value = node.inputs[0] if node.op == "embedding" else None
    return value if value in graph.constants and not arrays.is_float(graph.constants[value].data) else None


def _looked_up(graph: Graph, node: Node, readers: Mapping[Value, list[Node]]) -> Code | None:
    """How a table stands for numbers: as its rows do, where everything that reads them says so with a single scale."""
    held = []
    for reader in readers.get(node.output, ()):
        how = OPS[reader.op].coded(reader).get(0) if reader.op in OPS and reader.inputs[0] is node.output else None
        code = None if how is None else _code(graph, reader, how, 1)
        if code is None or code.zero.ndim or (code.scale is not None and code.scale.ndim):
            return None
        held.append(code)
    return held[0] if held and all(code.agrees(held[0]) for code in held) else None


def beside(graph: Graph) -> set[Value]:
    """The constants of ``graph`` that are scales and zero points."""
    found: set[Value] = set()
    for node in graph.nodes:
        op = OPS.get(node.op)
        for how in (op.coded(node) if op is not None else {}).values():
            found |= {v for k in (how.scale, how.zero) if (v := _operand(node, k)) in graph.constants and v is not None}
    return found


def operand_point(graph: Graph, node: Node, k: int) -> Point | None:
    """The integer that ``node`` reads as zero in operand ``k``; None for a constant, whose readers agree on it."""
    how, value = OPS[node.op].coded(node).get(k), node.inputs[k]
    if how is None or (node.op == "quantise" and node.attrs["function"] == "code"):  # what is made integers is none yet
        return 0
    rank = len(value.shape or ()) if value is not None else 0
    return None if value in graph.constants else _point(graph, _operand(node, how.zero), how.axis(node), rank)


def result_point(graph: Graph, node: Node) -> Point:
    """The integer that stands for zero in the first result of ``node``."""
    op, rank = OPS[node.op], len(node.outputs[0].shape or ())
    first = op.coded(node).get(0)
    return _point(graph, op.zero_point(node), 0 if first is None else first.axis(node), rank)


def _point(graph: Graph, zero: Value | None, axis: int, rank: int) -> Point:
    if zero is None:
        return 0
    axis %= max(1, rank)
    if zero not in graph.constants:
        return zero if math.prod(zero.shape or ()) == 1 else (axis, zero)
    numbers = [int(z) for z in arrays.to_numpy(graph.constants[zero].data).ravel()]
    return numbers[0] if len(set(numbers)) == 1 else (axis, tuple(numbers))


def _coded(graph: Graph, node: Node, coded: Mapping[int, Coded]) -> Iterator[tuple[Coded, Value]]:
    for k, how in coded.items():
        value = _operand(node, k)
        if value is not None and value in graph.constants and not arrays.is_float(graph.constants[value].data):
            yield how, value


def _operand(node: Node, k: int | None) -> Value | None:
    return None if k is None or k >= len(node.inputs) else node.inputs[k]


def _code(graph: Graph, node: Node, how: Coded, rank: int) -> Code | None:
    """None where the zero point is computed."""
    zero, scale = _operand(node, how.zero), _operand(node, how.scale)
    if zero is not None and zero not in graph.constants:
        return None
    axis = how.axis(node)
    numbers = None if scale not in graph.constants else _laid(graph, scale, rank, axis).astype(np.float64)
    return Code(np.zeros((), np.int64) if zero is None else _laid(graph, zero, rank, axis).astype(np.int64), numbers)


def _laid(graph: Graph, value: Value | None, rank: int, axis: int) -> NDArray[np.generic]:
    """A single number, or a vector along ``axis`` of ``rank`` axes."""
    data = arrays.to_numpy(graph.constants[value].data) if value is not None else np.zeros(1)
    if data.size == 1:
        return data.reshape(())
    return data.reshape([data.size if d == axis % rank else 1 for d in range(rank)])
