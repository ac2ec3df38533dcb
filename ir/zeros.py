"""Are the dead positions of a value zero in the masked network?

A sum of products over an axis (``q · k``) may lose positions only if the masked network adds zeros there: one of the
two factors must be zero at dead positions.  Layers give zeros, because their weights are masked; functions with
f(0) = 0 keep them; ``elu(x) + 1`` or a sigmoid do not.  Each op's declaration says how zeros pass it (``zero``); what
is not declared is taken as not zero.  A value is *whole* when nothing of it can be dead; broadcast or expanded to a
place that can, it brings whatever it holds.

The answer is for all axes at once: a bias is zero along the axis of its layer, and not at a dead step of a sequence.

In integers that stand for numbers zero is a zero point.  Which one a value holds at its dead positions is followed
(``points``); it is zero to a node that reads it with the same one, and to no other.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from . import arrays
from .axes import Axes
from .codes import Point, codes, operand_point, result_point
from .dialects import runtime
from .graph import Graph, Node, Value, map_values
from .opset import OPS, Op

_PROBES = (0.7, -1.3)


class Zeros:
    """Answers for one graph, found when a question comes, for the nodes whose ``axes`` are known by then."""

    def __init__(self, graph: Graph, axes: Mapping[Value, Axes | None]) -> None:
        self.graph, self.axes = graph, axes
        self.whole: set[Value] = set()
        self.zero: set[Value] = set()
        self.null: set[Value] = set()
        self.points: dict[Value, Point] = {}
        self.asked: dict[tuple[object, ...], bool] = {}
        self.waiting: deque[Node] | None = None

    def read_by(self, node: Node) -> Reading:
        """The answers as ``node`` reads the values."""
        return Reading(self, node)

    def free(self, value: Value) -> frozenset[int]:
        """The axes of ``value`` that may lose positions."""
        return frozenset(d for d, axis in enumerate(self.axes[value] or ()) if axis.any())

    def spans(self, operand: Value, value: Value) -> bool:
        """Whether ``operand`` has every axis of ``value`` that may lose positions, and is not broadcast along it."""
        shape, inner = value.shape or (), operand.shape or ()
        lead = len(shape) - len(inner)
        return all(d >= lead and inner[d - lead] == shape[d] for d in self.free(value))

    def computed(self, node: Node) -> bool:
        """Whether an elementwise node gives zero on zeros, single numbers, and probes for everything else."""
        operands = [v for v in node.inputs if v is not None]
        given = [self._at_dead_of(node, v) for v in operands]
        if 0.0 not in given:
            return False
        places = {v: k for k, v in enumerate(operands)}  # a size in the call is no operand
        key = (node.kind, tuple(given), repr(map_values(node.call, lambda v: places.get(v, v))))
        if key not in self.asked:
            self.asked[key] = all(self._gives_zero(node, given, probe) for probe in _PROBES)
        return self.asked[key]

    def follow(self) -> Zeros:
        """Bring the answers to where the ``axes`` are; later nodes are not asked for."""
        if self.waiting is None:
            self.waiting = deque(self.graph.nodes)
            self._constants()
        while self.waiting and all(v in self.axes for v in self.waiting[0].outputs):
            self._node(self.waiting.popleft())
        return self

    def _constants(self) -> None:
        for value, constant in self.graph.constants.items():
            if math.prod(value.shape or ()) == 1:
                self.whole.add(value)
            elif constant.role != "literal" or not arrays.to_numpy(constant.data).any():
                self.zero.add(value)  # a mask reaches what has a name in the source's state; other numbers stay
        for value, code in codes(self.graph).items():
            self.points[value] = int(code.zero) if code.zero.ndim == 0 else (0, value)
        self.whole.update(self.graph.inputs)
        self.null = {v for v in self.graph.constants if v in self.whole and self._number(v) == 0}

    def _node(self, node: Node) -> None:
        op = OPS.get(node.op)
        if node.op == "expand" and node.inputs[0] in self.whole:
            self._expand(node.inputs[0], node)
        elif op is None or all(v in self.whole for v in node.inputs):
            self.whole.update(node.outputs)
        elif op.zero(node, self.read_by(node)):
            self._found(op, node)

    def _found(self, op: Op, node: Node) -> None:
        """The results of ``node`` are zero, unless its operands hold different codes for it, or one that lies along an
        axis, which may have moved."""
        carried = op.carries(node)
        held = {self.points.get(v, 0) for v in carried if v is not None and v not in self.whole} or {0}
        if not carried:
            self.points[node.output] = result_point(self.graph, node)
        elif len(held) > 1 or isinstance(one := held.pop(), tuple):
            return
        else:
            self.points.update(dict.fromkeys(node.outputs, one))
        self.zero.update(node.outputs)

    def _expand(self, x: Value, node: Node) -> None:
        """A whole value along new axes, which can lose positions: it holds there what it holds everywhere."""
        if x in self.null:
            self.null.add(node.output)
        if not any(n is not None and n > 1 for n in node.attrs["shape"]):
            self.whole.add(node.output)
        elif node.output in self.null:
            self.zero.add(node.output)

    def _at_dead_of(self, node: Node, operand: Value) -> float | None:
        """What ``operand`` holds where ``node`` has dead positions; None for whatever."""
        zero = operand in self.zero and self.points.get(operand, 0) == 0
        if (zero or operand in self.whole) and self.spans(operand, node.output):
            return 0.0
        constant = operand in self.graph.constants and math.prod(operand.shape or ()) == 1
        return self._number(operand) if constant else None

    def _number(self, constant: Value) -> float:
        data = self.graph.constants[constant].data
        return math.nan if arrays.is_meta(data) else float(arrays.to_numpy(data).ravel()[0])

    def _gives_zero(self, node: Node, given: list[float | None], probe: float) -> bool:
        numbers = [np.array([probe if x is None else x]) for x in given]
        found = runtime(self.graph).evaluate(self.graph, node, numbers)
        return found is not None and bool((found == 0).all())


@dataclass(frozen=True)
class Reading:
    """What ``zeros`` knows, as ``node`` reads it: zero is what stands for it there."""

    zeros: Zeros
    node: Node

    def __call__(self, value: Value | None) -> bool:
        """Whether ``value``, as far as followed, is surely zero wherever a position is dead; true of an absent one."""
        known = self.zeros
        return value is None or value in known.whole or (value in known.zero and self._stands_for_zero(value))

    def _stands_for_zero(self, value: Value) -> bool:
        """Whether ``value`` holds the zero of each operand that it is; what is carried stays what it is."""
        if value in OPS[self.node.op].carries(self.node):
            return True
        read = (operand_point(self.zeros.graph, self.node, k) for k, v in enumerate(self.node.inputs) if v == value)
        return all(p is None or p == self.zeros.points.get(value, 0) for p in read)

    def holds(self, value: Value | None, number: float) -> bool:
        """Whether ``value`` stands for zero wherever a position is dead, and is ``number`` there."""
        known = self.zeros
        return value in known.whole or (value in known.zero and known.points.get(value, 0) == number)

    def computed(self, node: Node) -> bool:
        """See :meth:`Zeros.computed`."""
        return self.zeros.computed(node)

    def free(self, value: Value) -> frozenset[int]:
        """See :meth:`Zeros.free`."""
        return self.zeros.free(value)

    def spans(self, operand: Value, value: Value) -> bool:
        """See :meth:`Zeros.spans`."""
        return self.zeros.spans(operand, value)
