"""Folding on the ONNX twin: constants of dead channels and batch norms, against the graph before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from prunec.ir.emit.onnx import emit, run, sample_inputs
from prunec.ir.frontends.onnx import from_onnx
from prunec.ir.graph import Graph
from prunec.passes.canonicalize import canonical
from prunec.passes.constants import fold_constants
from prunec.passes.fold import fold_batch_norms

Weights = dict[str, NDArray[Any]]
DEAD = (1, 4)


def weight(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def node(op_type: str, inputs: str, output: str, **attributes: Any) -> NodeProto:
    made: NodeProto = helper.make_node(op_type, inputs.split(), [output], **attributes)
    return made


def graph_of(nodes: Sequence[NodeProto], weights: Weights, axes: Sequence[int | str] = ("N", 3, 8, 8)) -> Graph:
    given = [helper.make_tensor_value_info("x", TensorProto.FLOAT, axes)]
    made = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    stored = [numpy_helper.from_array(a, n) for n, a in weights.items()]
    model: ModelProto = helper.make_model(
        helper.make_graph(list(nodes), "g", given, made, stored),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=10,
    )
    return canonical(from_onnx(model))


def dead(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """Filters of zeros, which still emit their bias."""
    array[list(DEAD)] = 0
    return array


def distance(before: Graph, after: Graph) -> float:
    onnx.checker.check_model(emit(after), full_check=True)
    inputs = sample_inputs(before, 3)
    (a,), (b,) = run(before, inputs), run(after, inputs)
    assert a.shape == b.shape
    return float(np.abs(a - b).max() / np.abs(a).max())


def two_layers(between: Sequence[str], *, bias: bool = True, **second: Any) -> Graph:
    """Conv with two filters of zeros -> ops of one operand -> Conv."""
    names = ["a", *(f"h{k}" for k in range(len(between)))]
    nodes = [node("Conv", "x w1 b1", "a")]
    nodes += [node(op, made, out) for op, made, out in zip(between, names, names[1:], strict=False)]
    nodes.append(node("Conv", f"{names[-1]} w2" + " b2" * bias, "y", **second))
    weights: Weights = {"w1": dead(weight(6, 3, 3, 3)), "b1": weight(6), "w2": weight(4, 6, 3, 3)}
    return graph_of(nodes, weights | ({"b2": weight(4)} if bias else {}))


def width(graph: Graph) -> int:
    return int(next(c.data.shape[1] for c in graph.constants.values() if c.name == "w2"))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("between", [["Sigmoid"], ["Relu"], ["HardSwish", "Tanh"], []], ids="-".join)
def test_a_constant_channel_goes_into_the_next_bias(between: list[str], bias: bool) -> None:
    before = two_layers(between, bias=bias)
    after, removed = fold_constants(before)
    assert (removed, width(after)) == (2, 4)
    assert distance(before, after) < 1e-6


@pytest.mark.parametrize("padding", [{"pads": [1, 1, 1, 1]}, {"auto_pad": "SAME_UPPER"}], ids=["pads", "auto_pad"])
def test_a_constant_meets_zeros_at_a_padded_border_and_one_stands_in(padding: dict[str, Any]) -> None:
    before = two_layers(["Sigmoid"], **padding)
    after, removed = fold_constants(before)
    assert (removed, width(after)) == (1, 5)
    assert distance(before, after) < 1e-6


def test_a_constant_of_zero_goes_through_a_padded_layer() -> None:
    nodes = [node("Conv", "x w1", "a"), node("Relu", "a", "b"), node("Conv", "b w2", "y", pads=[1, 1, 1, 1])]
    before = graph_of(nodes, {"w1": dead(weight(6, 3, 3, 3)), "w2": weight(4, 6, 3, 3)})
    after, removed = fold_constants(before)
    assert (removed, width(after)) == (2, 4)
    assert distance(before, after) < 1e-6


def gemm_after(**attributes: Any) -> Graph:
    nodes = [
        node("Conv", "x w1 b1", "a"),
        node("Sigmoid", "a", "s"),
        node("GlobalAveragePool", "s", "p"),
        node("Flatten", "p", "f"),
        node("Gemm", "f w2 b2", "y", transB=1, **attributes),
    ]
    weights = {"w1": dead(weight(6, 3, 3, 3)), "b1": weight(6), "w2": weight(5, 6), "b2": weight(5)}
    return graph_of(nodes, weights)


def test_a_gemm_takes_constants_in() -> None:
    before = gemm_after()
    after, removed = fold_constants(before)
    assert (removed, width(after)) == (2, 4)
    assert distance(before, after) < 1e-6


@pytest.mark.parametrize("scale", [{"alpha": 0.5}, {"beta": 2.0}], ids=["alpha", "beta"])
def test_a_scaled_gemm_takes_nothing_in(scale: dict[str, float]) -> None:
    before = gemm_after(**scale)
    after, removed = fold_constants(before)
    assert (removed, width(after)) == (0, 6)
    assert distance(before, after) == 0


NORM: Weights = {"g": weight(6), "b": weight(6, seed=1), "m": weight(6, seed=2), "v": weight(6, seed=3) ** 2 + 0.5}


@pytest.mark.parametrize("bias", [True, False])
def test_a_batch_norm_goes_into_the_convolution_before_it(bias: bool) -> None:
    nodes = [
        node("Conv", "x w" + " c" * bias, "a"),
        node("BatchNormalization", "a g b m v", "n", epsilon=1e-2),
        node("Relu", "n", "y"),
    ]
    before = graph_of(nodes, NORM | {"w": weight(6, 3, 3, 3)} | ({"c": weight(6, seed=4)} if bias else {}))
    after, folded = fold_batch_norms(before)
    assert folded == 1
    assert [n.kind for n in after.nodes] == ["Conv", "Relu"]
    assert distance(before, after) < 1e-6


def test_a_batch_norm_that_makes_the_output_leaves_its_name() -> None:
    nodes = [node("Conv", "x w", "a"), node("BatchNormalization", "a g b m v", "y")]
    before = graph_of(nodes, NORM | {"w": weight(6, 3, 3, 3)})
    after, folded = fold_batch_norms(before)
    assert (folded, [v.name for v in after.outputs]) == (1, ["y"])
    assert distance(before, after) < 1e-6


@pytest.mark.parametrize(("scale", "folded"), [({}, 1), ({"alpha": 0.5}, 0), ({"beta": 2.0}, 0)])
def test_a_batch_norm_goes_into_a_gemm_that_is_not_scaled(scale: dict[str, float], folded: int) -> None:
    nodes = [node("Gemm", "x w c", "a", transB=1, **scale), node("BatchNormalization", "a g b m v", "y")]
    before = graph_of(nodes, NORM | {"w": weight(6, 3), "c": weight(6, seed=4)}, ("N", 3))
    after, found = fold_batch_norms(before)
    assert found == folded
    assert distance(before, after) < 1e-6


def test_a_batch_norm_stays_where_the_convolution_has_another_reader() -> None:
    nodes = [
        node("Conv", "x w", "a"),
        node("BatchNormalization", "a g b m v", "n"),
        node("Add", "a n", "y"),
    ]
    before = graph_of(nodes, NORM | {"w": weight(6, 3, 3, 3)})
    assert fold_batch_norms(before)[1] == 0
