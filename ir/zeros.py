"""Are the dead positions of a value zero in the masked network?

A sum of products over an axis (``q · k``) may lose positions only if the masked network adds zeros there: one of the
two factors must be zero at dead positions.  Layers give zeros, because their weights are masked; functions with
f(0) = 0 keep them; ``elu(x) + 1`` or a sigmoid do not.  Each op's declaration says how zeros pass it (``zero``); what
is not declared is taken as not zero.  A value is *whole* when nothing of it can be dead; broadcast or expanded to a
place that can, it brings whatever it holds.
"""

from __future__ import annotations

import math

import numpy as np

from . import arrays
from .dialects import runtime
from .graph import Graph, Node, Value, map_values
from .opset import OPS

_PROBES = (0.7, -1.3)


class Zeros:
    """Answers for one graph, found in one walk when the first question comes."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.whole: set[Value] = set()
        self.zero: set[Value] = set()
        self.null: set[Value] = set()
        self.asked: dict[tuple[object, ...], bool] = {}
        self.walked = False

    def __call__(self, value: Value | None) -> bool:
        """Whether ``value`` is surely zero wherever a position is dead; true of one that is absent."""
        if not self.walked:
            self.walked = True
            self._walk()
        return value is None or value in self.zero or value in self.whole

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

    def _walk(self) -> None:
        for value in self.graph.constants:
            (self.whole if math.prod(value.shape or ()) == 1 else self.zero).add(value)
        self.whole.update(self.graph.inputs)
        self.null = {v for v in self.graph.constants if v in self.whole and self._number(v) == 0}
        for node in self.graph.nodes:
            op = OPS.get(node.op)
            if node.op == "expand" and node.inputs[0] in self.whole:
                self._expand(node.inputs[0], node)
            elif op is None or all(v in self.whole for v in node.inputs):
                self.whole.update(node.outputs)
            elif op.zero(node, self):
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
        if operand in self.zero or (operand in self.whole and operand.shape == node.output.shape):
            return 0.0
        return self._number(operand) if operand in self.graph.constants else None

    def _number(self, constant: Value) -> float:
        data = self.graph.constants[constant].data
        return math.nan if arrays.is_meta(data) else float(arrays.to_numpy(data).ravel()[0])

    def _gives_zero(self, node: Node, given: list[float | None], probe: float) -> bool:
        numbers = [np.array([probe if x is None else x]) for x in given]
        found = runtime(self.graph).evaluate(self.graph, node, numbers)
        return found is not None and bool((found == 0).all())
