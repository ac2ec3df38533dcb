"""Invariants of a graph, checked after every rewrite."""

from __future__ import annotations

from ..ir.graph import Graph, Value, reads


def broken(graph: Graph, before: Graph) -> str:
    """What is wrong with ``graph`` after a rewrite of ``before``; empty when nothing is."""
    defined: set[Value] = {*graph.inputs, *graph.constants}
    names: set[str] = set()
    for node in graph.nodes:
        if node.name in names:
            return f"two nodes are named {node.name!r}"
        names.add(node.name)
        for value in reads(node):
            if value not in defined:
                return f"node {node.name!r} reads {value} before it is computed"
        defined.update(node.outputs)
    for value in graph.outputs:
        if value not in defined:
            return f"the output {value} is never computed"
    for what, now, then in (("input", graph.inputs, before.inputs), ("output", graph.outputs, before.outputs)):
        if [v.shape for v in now] != [v.shape for v in then]:
            return f"the shape of an {what} changed: {[v.shape for v in then]} -> {[v.shape for v in now]}"
    return ""
