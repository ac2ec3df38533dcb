"""Recurrent layers: ONNX nodes made by hand, files as the exporters write them, what they cost, what is emitted."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto, TensorProto
from torch.utils import _pytree as pytree

import prunec
from prunec.ir.emit.onnx import run, sample_inputs
from prunec.ir.emit.torch_onnx import emit
from prunec.ir.frontends.onnx import from_onnx
from prunec.passes.groups import Groups
from prunec.passes.rewrite import eliminate, mask

from ..models import micro, oracle
from .test_onnx_frontend import Axes, analysed, build, compact, ints, node, weight

STEPS = {"x": ("S", "N", 12)}
FIXED = {"x": (4, 2, 12)}
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def layer(
    op_type: str,
    optional: str = "b",
    results: str = "y0",
    *tail: Any,
    inputs: Mapping[str, Axes] | None = None,
    weights: Mapping[str, Any] | None = None,
    **attributes: Any,
) -> ModelProto:
    """x (S, N, 12) -> six features -> a layer of five hidden units -> y0 (S, D, N, 5) -> y (S, N, 2)."""
    g, d = GATES[op_type], 2 if attributes.get("direction") == "bidirectional" else 1
    shapes = {"a": (12, 6), "w": (d, g * 5, 6), "r": (d, g * 5, 5), "b": (d, 2 * g * 5), "v": (d * 5, 2)}
    nodes = [
        node("MatMul", "x a", "h"),
        node(op_type, f"h w r {optional}", results, hidden_size=5, **attributes),
        *(tail or (node("Transpose", "y0", "y1", perm=[0, 2, 1, 3]), node("Reshape", "y1 flat", "y2"))),
        node("MatMul", "y2 v", "y"),
    ]
    made = {k: weight(*s) for k, s in shapes.items()} | {"flat": ints(0, 0, -1)} | dict(weights or {})
    return build(nodes, made, inputs or STEPS)


STATES = {"h0": weight(1, 2, 5, seed=1), "c0": weight(1, 2, 5, seed=2), "p": weight(1, 15, seed=3)}
BOTH = {"h0": weight(2, 2, 5, seed=1), "c0": weight(2, 2, 5, seed=2), "p": weight(2, 15, seed=3)}
LAST = (node("Squeeze", "y3 zero", "y2"),)
LENGTHS = {"lens": np.asarray([4, 3], np.int32)}


def counted_lengths() -> ModelProto:
    """The lengths are computed from an input."""
    model = layer("LSTM", "b n", inputs={**FIXED, "many": (2,)}, weights={"zero": np.zeros(2, np.float32)})
    nodes = [node("Mul", "many zero", "m"), node("Add", "m three", "k"), node("Cast", "k", "n", to=TensorProto.INT32)]
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.full(2, 3, np.float32), "three"))
    rest = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *rest])
    return model


def states_meet() -> ModelProto:
    """All steps, the last state and the last cell."""
    tail = (
        node("Transpose", "y0", "y1", perm=[0, 2, 1, 3]),
        node("Reshape", "y1 flat", "s"),
        node("Mul", "yh yc", "m"),
        node("Transpose", "m", "mt", perm=[1, 0, 2]),
        node("Reshape", "mt flat2", "last"),
        node("Add", "s last", "y2"),
    )
    return layer("LSTM", "b", "y0 yh yc", *tail, direction="bidirectional", weights={"flat2": ints(0, -1)})


MODELS: dict[str, ModelProto] = {
    "lstm": layer("LSTM"),
    "lstm_without_bias": layer("LSTM", ""),
    "lstm_reverse": layer("LSTM", direction="reverse"),
    "lstm_bidirectional": layer("LSTM", direction="bidirectional"),
    "lstm_peepholes": layer("LSTM", "b _ _ _ p", weights=STATES),
    "lstm_states": layer("LSTM", "b _ h0 c0", inputs=FIXED, weights=STATES),
    "lstm_everything": layer("LSTM", "b lens h0 c0 p", direction="bidirectional", inputs=FIXED, weights=BOTH | LENGTHS),
    "lstm_lengths": layer("LSTM", "b lens", inputs=FIXED, weights=LENGTHS),
    "lstm_lengths_from_an_input": counted_lengths(),
    "lstm_clipped": layer("LSTM", clip=0.4, input_forget=1),
    "lstm_last_state": layer("LSTM", "b", "_ y3", *LAST, weights={"zero": ints(0)}),
    "lstm_last_cell": layer("LSTM", "b", "_ _ y3", *LAST, weights={"zero": ints(0)}),
    "lstm_all_results": states_meet(),
    "lstm_activations": layer("LSTM", activations=["HardSigmoid", "Relu", "Softsign"]),
    "gru": layer("GRU"),
    "gru_linear_before_reset": layer("GRU", linear_before_reset=1),
    "gru_bidirectional": layer("GRU", direction="bidirectional", linear_before_reset=1),
    "gru_state": layer("GRU", "b _ h0", inputs=FIXED, weights=STATES),
    "gru_reverse_last_state": layer("GRU", "", "_ y3", *LAST, weights={"zero": ints(0)}, direction="reverse"),
    "rnn": layer("RNN"),
    "rnn_relu": layer("RNN", activations=["Relu"]),
    "rnn_sigmoid": layer("RNN", activations=["Sigmoid"]),
    "rnn_bidirectional": layer("RNN", "", direction="bidirectional", activations=["Tanh", "Relu"]),
}


@pytest.mark.parametrize("name", MODELS)
def test_compact_equals_masked(name: str) -> None:
    small, groups = compact(MODELS[name], 6 + 5)
    assert not groups.analysis.opaque
    (made,) = (n for n in small.nodes if n.op == "recurrent_stacked")
    hidden = made.outputs[0].shape
    assert hidden is not None
    assert made.call["attributes"]["hidden_size"] == made.attrs["hidden"] == hidden[-1] == 3


@pytest.mark.parametrize("name", MODELS)
def test_every_unit_dropped_alone(name: str) -> None:
    graph, groups = analysed(MODELS[name])
    inputs = sample_inputs(graph, 1)
    for unit in groups.prunable:
        alive = groups.alive(np.array([unit]))
        expected, found = (run(f(groups.analysis, alive), inputs) for f in (mask, eliminate))
        np.testing.assert_allclose(found[0], expected[0], rtol=1e-4, atol=1e-6, err_msg=str(unit))


def test_a_state_that_is_an_input_keeps_its_size() -> None:
    model = layer("GRU", "b _ h0", inputs={**STEPS, "h0": (1, "N", 5)})
    _, groups = compact(model, 6)
    assert not groups.analysis.opaque


def test_the_batch_first_is_left_alone() -> None:
    tail = (node("Reshape", "y0 flat", "y2"),)
    _, groups = analysed(layer("LSTM", "b", "y0", *tail, layout=1))
    assert [o.why for o in groups.analysis.opaque if o.kind == "LSTM"] == ["the batch comes first"]


@pytest.mark.parametrize(("activation", "units"), [("Tanh", 11), ("Relu", 11), ("Sigmoid", 6)])
def test_states_that_are_not_zero_are_not_summed_over(activation: str, units: int) -> None:
    """y y^T sums over hidden units: a unit without weights is sigmoid(0) = 0.5 there."""
    tail = (
        node("Squeeze", "y0 one", "s"),
        node("Transpose", "s", "t", perm=[0, 2, 1]),
        node("MatMul", "s t", "k"),
        node("MatMul", "k s", "y2"),
    )
    compact(layer("RNN", "b", "y0", *tail, activations=[activation], weights={"one": ints(1)}), units)


# ---------------------------------------------------------------------- as exporters write them


def floats(name: str) -> tuple[torch.nn.Module, tuple[Any, ...]]:
    module, inputs = micro.build(name)
    single = pytree.tree_map_only(torch.Tensor, lambda t: t.float() if t.is_floating_point() else t, inputs)
    return module.float(), tuple(single)


def units_and_macs(groups: Groups) -> tuple[int, float]:
    return len(groups.prunable), groups.cost.macs(groups.all_alive())


SAME = (
    "lstm gru rnn_tanh rnn_relu_without_bias lstm_of_steps gru_in_both_directions lstm_of_two_layers "
    "gru_of_two_layers_that_meet lstm_with_dropout learned_initial_state initial_state_of_zeros attention_over_steps"
).split()


@pytest.mark.parametrize("name", [*SAME, "lstm_with_projection"])
def test_what_is_emitted_computes_the_same_and_has_the_same_units(name: str) -> None:
    module, inputs = floats(name)
    subject = oracle.subject(module, inputs)
    model = emit(subject.graph)
    graph, groups = analysed(model)
    assert not groups.analysis.opaque
    units, macs = units_and_macs(groups)
    assert (units, macs) == units_and_macs(subject.groups)
    x = oracle.fresh_inputs(inputs, 3)
    (found,) = run(from_onnx(model), [t.numpy() for t in x])  # type: ignore[union-attr]
    np.testing.assert_allclose(found, oracle.call(module, x).numpy(), rtol=1e-4, atol=1e-6)
    unrolled = name == "lstm_with_projection"
    assert unrolled == ("recurrent_stacked" not in {n.op for n in graph.nodes})


def legacy(module: torch.nn.Module, inputs: tuple[Any, ...]) -> ModelProto:
    file, options = io.BytesIO(), {"input_names": ["x"], "dynamic_axes": {"x": {0: "N"}}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, inputs, file, dynamo=False, opset_version=17, **options)  # type: ignore[arg-type]
    return onnx.load_from_string(file.getvalue())


def present(module: torch.nn.Module, inputs: tuple[Any, ...]) -> ModelProto:
    torch._dynamo.reset()  # the exporter traces a loop; what an earlier trace left behind makes it fail
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shapes = ({0: torch.export.Dim.DYNAMIC},)
        program = torch.export.export(module, inputs, dynamic_shapes=shapes, strict=False)
        made = torch.onnx.export(program, dynamo=True, verbose=False, opset_version=20)
    assert made is not None
    return made.model_proto


@pytest.mark.parametrize("export", [legacy, present])
@pytest.mark.parametrize("name", ["lstm_of_two_layers", "gru_in_both_directions", "rnn_tanh"])
def test_files_of_the_exporters_have_the_same_units(name: str, export: Callable[..., ModelProto]) -> None:
    _, groups = compact(export(*floats(name)), len(oracle.known(name).groups.prunable))
    assert not groups.analysis.opaque


def test_weights_that_the_exporter_left_in_pieces() -> None:
    """Large weights are cut and joined by nodes of their own, which move with the hidden units."""
    torch.manual_seed(0)
    module = micro.Sequence(torch.nn.LSTM(64, 192, batch_first=True), 192).eval()
    model = present(module, micro.tokens(6))
    assert sum(n.op_type == "Slice" for n in model.graph.node) > 8
    compact(model, 64 + 192)


# ---------------------------------------------------------------------- what they cost, and the whole way


@pytest.mark.parametrize(
    ("name", "macs"),
    [
        ("lstm", 10 * 6 * 5 + 10 * 4 * 7 * (5 + 7) + 10 * 7 * 4),
        ("gru", 10 * 6 * 5 + 10 * 3 * 7 * (5 + 7) + 10 * 7 * 4),
        ("rnn_tanh", 10 * 6 * 5 + 10 * 7 * (5 + 7) + 10 * 7 * 4),
        ("lstm_in_both_directions", 10 * 6 * 5 + 2 * 10 * 4 * 6 * (5 + 6) + 10 * 12 * 4),
        (
            "lstm_with_projection",
            10 * 7 * (4 * (6 + 5) + 5) + 10 * 7 * (4 * (5 + 5) + 5) + 10 * 5 * 4 + 2 * 5 * 4 + 2 * 7 * 4,
        ),
        ("recurrent_cells", 3 * 2 * (4 * 7 * (6 + 7) + 3 * 5 * (7 + 5)) + 2 * 6 * (5 + 6) + 2 * 6 * 4),
    ],
)
def test_multiply_accumulates(name: str, macs: int) -> None:
    assert units_and_macs(oracle.known(name).groups)[1] == macs


def test_multiply_accumulates_follow_the_units() -> None:
    groups = oracle.known("lstm").groups
    hidden = next(g for g in groups.groups if "weight_ih" in g.name).units[:3]
    assert groups.cost.macs(groups.alive(hidden)) == 10 * 6 * 5 + 10 * 4 * 4 * (5 + 4) + 10 * 4 * 4


def test_a_file_is_compiled() -> None:
    result = prunec.compile(MODELS["lstm_bidirectional"], ratio=0.4, measure=False)
    assert result.report["units"]["removed"] > 0
    assert result.report["verify"]["ok"]
    assert result.report["opaque_ops"] == {}
