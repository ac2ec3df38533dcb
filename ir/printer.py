"""A graph as text: stable, one node a line, for people and for golden tests.

>>> print_graph(graph)                                                        # doctest: +SKIP
graph fx {
  %x: float32[2*,3,8,8] = input
  %conv_weight: float32[4,3,3,3] = parameter "conv.weight"
  %conv2d: float32[2*,4,6,6] = conv(%x, %conv_weight, none) {groups=1}
  return %conv2d
}
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .graph import Constant, Graph, Node, Value

_LONGEST = 8


def print_graph(graph: Graph) -> str:
    """The text of ``graph``.  ``*`` marks a size that depends on the input; sizes are those of the example run."""
    return "\n".join(_lines(graph)) + "\n"


def _lines(graph: Graph) -> Iterator[str]:
    yield f"graph {graph.dialect} {{"
    for value in graph.inputs:
        yield f"  {typed(value)} = input"
    for value, constant in graph.constants.items():
        yield f"  {typed(value)} = {_constant(constant)}"
    for node in graph.nodes:
        yield f"  {_node(node)}"
    yield f"  return {', '.join(map(str, graph.outputs))}"
    yield "}"


def typed(value: Value) -> str:
    """``%name: dtype[sizes]``."""
    if value.shape is None:
        return f"{value}: {value.dtype}"
    sizes = ",".join(f"{s}*" if d in value.dynamic else str(s) for d, s in enumerate(value.shape))
    return f"{value}: {value.dtype}[{sizes}]"


def _constant(constant: Constant) -> str:
    return f"{constant.role} {' = '.join(repr(n).replace(chr(39), chr(34)) for n in constant.names)}"


def _node(node: Node) -> str:
    results = ", ".join(typed(v) for v in node.outputs)
    operands = ", ".join("none" if v is None else str(v) for v in node.inputs)
    attrs = ", ".join(f"{k}={_attr(v)}" for k, v in sorted(node.attrs.items()))
    name = node.op if node.op != "opaque" else f"opaque[{node.kind}]"
    return f"{results} = {name}({operands})" + (f" {{{attrs}}}" if attrs else "")


def _attr(item: Any) -> str:
    if isinstance(item, (tuple, list)):
        shown = [_attr(x) for x in item[:_LONGEST]]
        return f"({', '.join(shown)}{f', … {len(item)} in all' if len(item) > _LONGEST else ''})"
    if isinstance(item, float):
        return f"{item:.6g}"
    return "none" if item is None else str(item)
