"""Small ONNX models for the tests of the runtime."""

from __future__ import annotations

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
