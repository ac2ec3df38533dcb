"""Stacks of recurrent layers, taken apart: one call of several layers becomes a chain of calls of one.

A call has one hidden size for all its layers; in a chain each layer has a width of its own.  Dropout between layers
becomes a node of its own as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..ir import dialects
from ..ir.graph import Graph, Node, Value
from .rewrite import make, write


def layers_apart(graph: Graph) -> Graph:
    """Replace each recurrent call of several layers by a chain (in place)."""
    for node in [n for n in graph.nodes if n.op == "recurrent" and n.attrs["layers"] > 1]:
        at = graph.nodes.index(node)
        graph.nodes[at : at + 1] = _Chain(graph, node).nodes()
    return graph


class _Chain:
    """The nodes that compute what ``node`` does, layer by layer."""

    def __init__(self, graph: Graph, node: Node) -> None:
        self.graph, self.node, self.makers = graph, node, graph.producers()
        self.made: list[Node] = []

    def nodes(self) -> list[Node]:
        layers, count = int(self.node.attrs["layers"]), len(self.node.outputs) - 1
        x, states, weights = self.node.inputs[0], self.node.inputs[1 : 1 + count], self.node.inputs[1 + count :]
        each = len(weights) // layers
        last: list[tuple[Value, ...]] = []
        for k in range(layers):
            assert x is not None
            x, *found = self._layer(k, self._dropped(x, k), states, weights[k * each : (k + 1) * each])
            last.append(tuple(found))
        for whole, parts in zip(self.node.outputs[1:], zip(*last, strict=True), strict=True):
            self._insert("cat", parts, {"dim": 0}, whole)
        return self.made

    def _layer(
        self, k: int, x: Value, states: Sequence[Value | None], weights: Sequence[Value | None]
    ) -> tuple[Value, ...]:
        attrs = {**self.node.attrs, "layers": 1, "dropout": 0.0}
        inputs = (x, *(self._part(v, k, f"{self.node.name}_l{k}_from{i}") for i, v in enumerate(states)), *weights)
        kind, call = dialects.names(self.graph).make(self.graph, "recurrent", inputs, attrs)
        name = f"{self.node.name}_l{k}"
        outputs = tuple(self._result(v, k, f"{name}.{i}") for i, v in enumerate(self.node.outputs))
        self.made.append(Node(name, "recurrent", inputs, outputs, attrs, kind, call))
        return outputs

    def _result(self, value: Value, k: int, name: str) -> Value:
        """All steps of a layer, the last one's under the call's own name; or the part of a last state."""
        if value is not self.node.output:
            return self._narrow(value, name)
        return value if k == self.node.attrs["layers"] - 1 else replace(value, name=name)

    def _narrow(self, value: Value, name: str) -> Value:
        return replace(value, name=name, shape=(int(self.node.attrs["directions"]), *(value.shape or ())[1:]))

    def _part(self, state: Value | None, k: int, name: str) -> Value:
        assert state is not None
        d = int(self.node.attrs["directions"])
        start, stop, part = k * d, (k + 1) * d, self._narrow(state, name)
        held, maker = self.graph.constants.get(state), self.makers.get(state)
        if held is not None and held.role == "literal":
            self.graph.constants[part] = replace(held, names=(f"_literal.{name}",), data=held.data[start:stop])
        elif maker is not None and maker.op == "zeros":
            self.made.append(replace(maker, name=name, outputs=(part,)))
            write(self.graph, self.made[-1], {"shape": (d, *maker.attrs["shape"][1:])})
        else:
            self._insert("slice", (state,), {"slices": ((0, start, stop, 1),)}, part)
        return part

    def _dropped(self, x: Value, k: int) -> Value:
        p = self.node.attrs["dropout"]
        if not k or not p:
            return x
        return self._insert("elementwise", (x,), {"dropout": p}, replace(x, name=f"{self.node.name}_l{k}_dropout"))

    def _insert(self, op: str, inputs: tuple[Value, ...], attrs: dict[str, Any], result: Value) -> Value:
        self.made.append(make(self.graph, op, inputs, attrs, result))
        return result
