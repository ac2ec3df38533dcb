"""Which readers share a constant, and what they read of it, once an ONNX graph stands.

A file says less than it seems to: exporters store equal tensors once, so that fresh norms share their ones and zeros
by accident, while a layer that is called twice shares its weight on purpose.  Accidents are undone (:func:`unshared`)
and ties kept.  Constants that nothing reads go, and each Shape learns which sizes its readers take.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arrays import is_float
from ..codes import beside, codes
from ..graph import Constant, Graph, Node, Value, substitute, values_in

Array = NDArray[Any]

_LARGEST_CLONE = 1 << 16


def without_unused(graph: Graph) -> Graph:
    """``graph`` without constants that nothing reads (in place): they would count as units."""
    read = {*graph.consumers(), *graph.outputs}
    graph.constants = {v: c for v, c in graph.constants.items() if v in read}
    return graph


def with_roles(graph: Graph) -> Graph:
    """``graph`` with integers that stand for numbers as parameters, their scales and zero points not (in place)."""
    for values, role in ((codes(graph), "parameter"), (beside(graph), "buffer")):
        for value in values:
            if graph.constants[value].role != "literal":
                graph.constants[value].role = role
    return graph


def sizes_read(graph: Graph) -> Graph:
    """State for each Shape which axes its readers take the size of (in place)."""
    readers = graph.consumers()
    for node in graph.nodes:
        if node.op == "size" and "dims" not in node.attrs and node.output not in graph.outputs:
            x = node.call["inputs"][0]
            taken = [_picked(graph, node, reader) for reader in readers.get(node.output, ())]
            if node.kind == "Shape" and x.shape is not None and all(t is not None for t in taken):
                start = node.call["attributes"].get("start", 0)
                start = start + len(x.shape) if start < 0 else start
                stop = node.call["attributes"].get("end", len(x.shape))
                axes = range(len(x.shape))[start:stop]
                read = {k for t in taken for k in t or ()}
                if all(-len(axes) <= k < len(axes) for k in read):
                    node.attrs["dims"] = tuple(sorted({axes[k] for k in read}))
    return graph


def _picked(graph: Graph, node: Node, reader: Node) -> list[int] | None:
    """Elements of a shape that a Gather or Slice takes; None for all."""
    inputs = reader.call["inputs"]
    if reader.kind == "Where" and inputs[1] is node.output and inputs[0] in graph.constants:
        return [int(k) for k in np.flatnonzero(graph.constants[inputs[0]].data)]
    if inputs[0] is not node.output or any(v not in graph.constants for v in inputs[1:] if v is not None):
        return None
    data = [None if v is None else np.ravel(graph.constants[v].data) for v in inputs[1:]]
    if reader.kind == "Gather" and data[0] is not None:
        return [int(k) for k in data[0]]
    if reader.kind == "Slice" and len(data) >= 2 and len(data[0]) == 1:  # type: ignore[arg-type]
        shape = node.call["inputs"][0].shape
        step = int(data[3][0]) if len(data) > 3 and data[3] is not None else 1
        return list(range(len(shape or ())))[int(data[0][0]) : int(data[1][0]) : step]  # type: ignore[index]
    return None


def is_tie(data: Array) -> bool:
    """Whether readers of one stored tensor share it on purpose.

    Exporters store equal tensors once: fresh biases and norms, all zeros or ones.  Tensors with different elements are
    not equal by chance, and large ones are worth keeping once.
    """
    return bool(data.size > _LARGEST_CLONE or data.size < 2 or (data != data.flat[0]).any())


def unshared(graph: Graph, taken: Iterable[str] = ()) -> Graph:
    """``graph`` with small constants that several nodes read by accident cloned for each (in place).

    Nodes that share another constant on purpose (a layer that is called twice) keep sharing these, too.
    """
    names = {*taken, *(v.name for v in graph.values())}
    readers = graph.consumers()
    scales = beside(graph)
    apart = {v for v, c in graph.constants.items() if len(readers.get(v, ())) > 1 and _is_accident(c, v in scales)}
    for value in [v for v in graph.constants if v in apart]:
        owners: dict[tuple[str, ...], Value] = {}
        for node in readers[value]:
            companions = tuple(
                v.name for v in dict.fromkeys(values_in(node.call)) if _companion(graph, v, apart, readers)
            )
            key = companions or (node.name,)
            if not owners:
                owners[key] = value
            elif key not in owners:
                owners[key] = _clone(graph, value, names)
            if owners[key] is not value:
                substitute(node, {value: owners[key]})
    return graph


def _is_accident(constant: Constant, is_scale: bool) -> bool:
    data = constant.data
    if not (is_float(data) or is_scale) or not 1 < data.size <= _LARGEST_CLONE:
        return False
    return constant.role == "literal" or not is_tie(data)


def _companion(graph: Graph, value: Value, apart: set[Value], readers: Mapping[Value, list[Node]]) -> bool:
    constant = graph.constants.get(value)
    return constant is not None and value not in apart and is_float(constant.data) and len(readers.get(value, ())) > 1


def _clone(graph: Graph, value: Value, names: set[str]) -> Value:
    source, k = graph.constants[value], 2
    while f"{value.name}.{k}" in names:
        k += 1
    name = f"{value.name}.{k}"
    names.add(name)
    copy = Value(name, value.shape, value.dtype)
    full_name = f"_literal.{name}" if source.role == "literal" else name
    graph.constants[copy] = Constant((full_name,), source.data, source.role)
    return copy
