"""Small ONNX models for the tests of the runtime."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def linear(width: int = 4, depth: int = 1, batch: str | int = "batch") -> onnx.ModelProto:
    """``depth`` square linear layers: x (batch, width) -> y (batch, width)."""
    rng = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(rng.standard_normal((width, width), dtype=np.float32), f"w{k}") for k in range(depth)
    ]
    names = ["x", *(f"h{k}" for k in range(depth - 1)), "y"]
    nodes = [helper.make_node("MatMul", [names[k], f"w{k}"], [names[k + 1]]) for k in range(depth)]
    return finish(
        nodes, {"x": (TensorProto.FLOAT, [batch, width])}, {"y": (TensorProto.FLOAT, [batch, width])}, weights
    )


def layers(*widths: int) -> onnx.ModelProto:
    """Linear layers of these widths with rectifiers between them: x (batch, first) -> y (batch, last)."""
    rng = np.random.default_rng(0)
    weights, nodes, x = [], [], "x"
    for k, (i, o) in enumerate(pairwise(widths)):
        last = k == len(widths) - 2
        weights.append(numpy_helper.from_array(rng.standard_normal((i, o), dtype=np.float32), f"w{k}"))
        nodes.append(helper.make_node("MatMul", [x, f"w{k}"], ["y" if last else f"h{k}"]))
        x = f"r{k}"
        nodes += [] if last else [helper.make_node("Relu", [f"h{k}"], [x])]
    x_dims: list[str | int | None] = ["batch", widths[0]]
    y_dims: list[str | int | None] = ["batch", widths[-1]]
    return finish(nodes, {"x": (TensorProto.FLOAT, x_dims)}, {"y": (TensorProto.FLOAT, y_dims)}, weights)


def identity(**inputs: tuple[int, list[str | int | None]]) -> onnx.ModelProto:
    """A model that hands on its inputs: ``name=(element type, dims)``."""
    nodes = [helper.make_node("Identity", [name], [f"{name}_out"]) for name in inputs]
    return finish(nodes, inputs, {f"{name}_out": spec for name, spec in inputs.items()}, [])


def finish(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, tuple[int, list[str | int | None]]],
    outputs: dict[str, tuple[int, list[str | int | None]]],
    weights: list[onnx.TensorProto],
) -> onnx.ModelProto:
    """A checked model."""
    values = [[helper.make_tensor_value_info(n, t, d) for n, (t, d) in part.items()] for part in (inputs, outputs)]
    graph = helper.make_graph(nodes, "g", values[0], values[1], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model
