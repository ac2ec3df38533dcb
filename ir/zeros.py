"""Are the dead positions of a value zero in the masked network?

A sum of products over an axis (``q · k``) may lose positions only if the masked network adds zeros there: one of the
two factors must be zero at dead positions.  Layers give zeros, because their weights are masked; functions with
f(0) = 0 keep them; ``elu(x) + 1`` or a sigmoid do not.  Asked backwards and on demand, since few ops contract two
computed values.
"""

from __future__ import annotations

import numpy as np

from .dialects import runtime
from .graph import Graph, Node, Value

_LAYERS = ("conv", "conv_transpose", "linear", "linear_t", "embedding")
_PINNED = ("opaque", "fill", "size")
_PROBES = (0.7, -1.3)


class Zeros:
    """Answers for one graph; each value is looked at once."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.made = graph.producers()
        self.known: dict[Value, bool] = {}

    def at_dead(self, value: Value | None) -> bool:
        """Whether ``value`` is surely zero wherever a position is dead."""
        if value is None or value not in self.made:
            return True  # constants are masked, inputs lose nothing
        if value not in self.known:
            self.known[value] = self._through(self.made[value])
        return self.known[value]

    def _through(self, node: Node) -> bool:
        if node.op in _PINNED or node.op == "layer_norm":
            return True
        if node.op in _LAYERS and node.inputs[1] in self.graph.constants:
            return True
        if node.op in ("batch_norm", "group_norm") and len(node.inputs) > 1 and node.inputs[1] is not None:
            return True
        if node.op == "normalise":
            return False
        if node.op == "elementwise":
            return self._elementwise(node)
        return all(self.at_dead(v) for v in node.inputs)

    def _elementwise(self, node: Node) -> bool:
        operands = [v for v in node.inputs if v is not None]
        zero = [self.at_dead(v) for v in operands]
        if not any(zero):
            return False
        for probe in _PROBES:
            found = runtime(self.graph).evaluate(self.graph, node, [np.array([0.0 if z else probe]) for z in zero])
            if found is None or not (found == 0).all():
                return False
        return True
