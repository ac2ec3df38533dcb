"""ONNX files of others: boxes selected, long inputs, states, operators of ONNX Runtime, old formats, odd types."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper

import prunec
from prunec.ir.analysis import analyse
from prunec.ir.emit.onnx import batch_axes, emit, run
from prunec.ir.errors import VerificationError
from prunec.ir.frontends.onnx import from_onnx
from prunec.ir.frontends.onnx_sizes import total
from prunec.passes import verify
from prunec.passes.difference import decisions
from prunec.passes.rewrite import eliminate

from .test_onnx_frontend import HEAD, LINEAR, analysed, between, build, compact, ints, node, weight

MS = "com.microsoft"


def of_runtime(
    nodes: list[onnx.NodeProto], weights: dict[str, Any], inputs: Any = LINEAR, **options: Any
) -> ModelProto:
    model = build(nodes, weights, inputs, **options)
    model.opset_import.append(helper.make_opsetid(MS, 1))
    return model


def sandwich(*nodes: onnx.NodeProto, opset: int = 18, **weights: Any) -> ModelProto:
    """h (N, S, 8) -> t, between two products."""
    ends = {"a": weight(12, 8), "v": weight(8, 2)}
    return of_runtime(
        [node("MatMul", "x a", "h"), *nodes, node("MatMul", "t v", "y")], ends | weights, LINEAR, opset=opset
    )


AFFINE: dict[str, Any] = {"g": weight(8), "b": weight(8, seed=1)}
PACKED = {"w": weight(12, 24), "wb": weight(24), "v": weight(8, 2)}

LAST = [node("MatMul", "h v", "y")]

MODELS: dict[str, tuple[ModelProto, int]] = {
    "fused_conv": (
        between(node("FusedConv", "h w b", "t", domain=MS, activation="Relu"), w=weight(8, 8, 1, 1), b=weight(8)), 16
    ),
    "fused_conv_depthwise": (
        between(node("FusedConv", "h w", "t", domain=MS, activation="Tanh", group=8), w=weight(8, 1, 1, 1)), 8
    ),
    "fused_gemm": (
        of_runtime(
            [
                node("FusedGemm", "x a b", "h", domain=MS, activation="Relu", transB=1),
                node("FusedGemm", "h c", "k", domain=MS, activation="Tanh"),
                node("MatMul", "k v", "y"),
            ],
            {"a": weight(8, 12), "b": weight(8), "c": weight(8, 6), "v": weight(6, 2)},
            {"x": ("N", 12)},
        ),
        14,
    ),
    "fused_matmul": (
        sandwich(
            node("MatMul", "x q", "k"), node("FusedMatMul", "h k", "p", domain=MS, transB=1, alpha=0.3),
            node("FusedMatMul", "p h", "t", domain=MS), q=weight(12, 8, seed=2),
        ),
        8,
    ),
    **{
        f"fused_matmul_of_what_is_not_zero_{transposed}": (
            sandwich(
                node("Sigmoid", "h", "s"), node("FusedMatMul", "s w", "p", domain=MS, transB=transposed),
                node("Sigmoid", "u", "k"), node("MatMul", "p k", "t"),
                w=weight(6, 8) if transposed else weight(8, 6), u=weight(6, 8, seed=3),
            ),
            8 + 6 + 8,
        )
        for transposed in (0, 1)
    },
    "gelu_with_bias": (
        sandwich(node("BiasGelu", "h b", "k", domain=MS), node("FastGelu", "k g", "t", domain=MS), **AFFINE), 8
    ),
    "skip_norm": (
        sandwich(
            node("MatMul", "x q", "k"), node("SkipLayerNormalization", "h k g b c", "n _ _ s", domain=MS),
            node("Add", "n s", "t"), q=weight(12, 8, seed=2), c=weight(8, seed=3), **AFFINE,
        ),
        8,
    ),
    "skip_rms_norm": (
        sandwich(
            node("MatMul", "x q", "k"), node("SkipSimplifiedLayerNormalization", "h k g", "t", domain=MS),
            q=weight(12, 8, seed=2), g=AFFINE["g"],
        ),
        8,
    ),
    "norm_before_its_opset": (sandwich(node("LayerNormalization", "h g b", "t"), opset=13, **AFFINE), 8),
    "rms_norm_of_the_runtime": (sandwich(node("SimplifiedLayerNormalization", "h g", "t"), g=AFFINE["g"]), 8),
    "attention_packed": (
        of_runtime([node("Attention", "x w wb", "h", domain=MS, num_heads=2), *LAST], PACKED, LINEAR),
        2 + 4,
    ),
    "sum_of_many": (sandwich(node("Sum", "h h h h b g", "t"), **AFFINE), 8),
    "cast_like": (sandwich(node("CastLike", "g x", "k"), node("Mul", "h k", "t"), g=AFFINE["g"]), 8),
    "lower_triangle": (sandwich(node("Trilu", "h", "t", upper=0)), 0),
    "infinite_mask": (
        sandwich(node("Add", "h m", "k"), node("Relu", "k", "t"), m=np.asarray([-np.inf, 0] * 4, np.float32)), 8
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_compact_equals_masked(name: str) -> None:
    model, units = MODELS[name]
    if not any(o.domain == MS for o in model.opset_import):
        model.opset_import.append(helper.make_opsetid(MS, 1))
    _, groups = compact(model, units)
    assert not groups.analysis.opaque


def test_embeddings_normed() -> None:
    """Tables looked up, summed and normed by one op."""
    nodes = [
        node("EmbedLayerNormalization", "x _ words places _ g b", "e at", domain=MS),
        node("MatMul", "e v", "y"),
    ]
    weights = {"words": weight(20, 8), "places": weight(32, 8, seed=1), "v": weight(8, 2), **AFFINE}
    model = of_runtime(nodes, weights, {"x": ("N", 16)})
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.INT32
    _, groups = compact(model, 8)
    assert not groups.analysis.opaque


def test_a_function_that_is_not_zero_at_zero_is_not_fused_into_a_layer() -> None:
    model = between(node("FusedConv", "h w", "t", domain=MS, activation="Sigmoid"), w=weight(8, 8, 1, 1))
    model.opset_import.append(helper.make_opsetid(MS, 1))
    assert [o.why for o in analysed(model)[1].analysis.opaque] == ["fused with Sigmoid"]


# ---------------------------------------------------------------------- selection


def detector(threshold: float) -> ModelProto:
    """Boxes and scores of two layers each, and those that non-maximum suppression leaves."""
    nodes = [
        *[node("MatMul", f"x a{k}", f"h{k}") for k in "bs"], *[node("Relu", f"h{k}", f"r{k}") for k in "bs"],
        node("MatMul", "rb vb", "boxes"), node("MatMul", "rs vs", "p"),
        node("Transpose", "p", "scores", perm=[0, 2, 1]),
        node("NonMaxSuppression", "boxes scores many iou threshold", "kept"),
        node("Gather", "kept two", "at", axis=1), node("Gather", "boxes at", "t", axis=1), node("Relu", "t", "y"),
    ]  # fmt: skip
    weights = {"ab": weight(12, 8), "as": weight(12, 6), "vb": weight(8, 4), "vs": weight(6, 1), "two": np.int64(2)}
    weights |= {"many": ints(5), "iou": np.asarray([0.5], np.float32), "threshold": np.asarray([threshold], np.float32)}
    return build(nodes, weights, {"x": (1, 16, 12)})


@pytest.mark.parametrize("threshold", [-9.0, 1e6], ids=["some", "none"])
def test_detectors_are_verified_before_their_boxes_are_selected(threshold: float) -> None:
    """Above an absurd threshold no box is left: boxes and scores still prove that both models are equal."""
    pipeline = "score,plan{ratio=0.5,align=1},eliminate,fold,verify"
    report = prunec.compile(detector(threshold), pipeline=pipeline, measure=False).report
    assert report["units"]["removed"] == 7
    assert report["verify"]["ok"]
    assert "NonMaxSuppression" in report["opaque_ops"]


def test_a_mistake_before_the_boxes_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = eliminate

    def wrong(*given: Any) -> Any:
        graph = right(*given)
        value = next(v for v, c in graph.constants.items() if c.name == "vb")
        graph.constants[value].data = graph.constants[value].data * 2
        return graph

    monkeypatch.setattr(verify, "eliminate", wrong)
    with pytest.raises(VerificationError, match="differs"):
        prunec.compile(detector(1e6), ratio=0.5, measure=False)


# ---------------------------------------------------------------------- sizes of inputs


def test_states_have_the_batch_second() -> None:
    nodes = [node("LSTM", "x w r _ _ h c", "a p q", hidden_size=6), node("ReduceSum", "p at", "y", keepdims=0)]
    weights = {"w": weight(1, 24, 12), "r": weight(1, 24, 6), "at": ints(0)}
    inputs = {"x": (16, "N", 12), "h": (1, "N", 6), "c": (1, "N", 6)}
    model = build(nodes, weights, {"first": ("N", 2), **inputs})
    graph = from_onnx(model)
    assert batch_axes(graph) == [0, 1, 1, 1]
    assert prunec.compile(model, ratio=0.5).report["latency_ms"] is not None


def test_inputs_are_as_long_as_the_model_needs() -> None:
    """A strided window longer than the usual 16 samples."""
    nodes = [node("Conv", "x w1", "a", strides=[50]), node("Relu", "a", "b"), node("Conv", "b w2", "y")]
    model = build(nodes, {"w1": weight(8, 1, 100), "w2": weight(4, 8, 1)}, {"x": ("N", 1, "T")})
    graph, groups = analysed(model)
    assert graph.inputs[0].shape == (2, 1, 128)
    assert graph.inputs[0].dynamic == {0, 2}
    assert len(groups.prunable) == 8


@pytest.mark.parametrize(
    ("text", "size"), [("a + b", 5), ("a+1", 4), ("b", 2), ("a - 1", 2), ("c + a", None), ("a * b", None)]
)
def test_sums_of_symbols(text: str, size: int | None) -> None:
    assert total(text, {"a": 3, "b": 2}) == size


def test_a_length_that_is_a_sum() -> None:
    nodes = [node("Concat", "past x", "all", axis=1), node("Add", "all mask", "s"), node("MatMul", "s w", "h")]
    model = build(
        [*nodes, node("MatMul", "h v", "y")], {"w": weight(12, 6), "v": weight(6, 2)},
        {"x": ("N", "S", 12), "past": ("N", "P", 12), "mask": ("N", "P + S", 1)},
    )  # fmt: skip
    graph, groups = analysed(model)
    assert graph.inputs[2].shape == (2, 32, 1)
    assert len(groups.prunable) == 6


# ---------------------------------------------------------------------- formats and types


def test_opsets_that_the_runtime_forgot_are_converted() -> None:
    nodes = [
        node("Conv", "x w1", "a"),
        node("BatchNormalization", "a g b m s", "n", is_test=1),
        node("Dropout", "n", "p", is_test=1), node("Conv", "p w2", "y"),
    ]  # fmt: skip
    weights = {"w1": weight(8, 3, 1, 1), "w2": weight(4, 8, 1, 1), **AFFINE, "m": weight(8), "s": weight(8) ** 2}
    model = build(nodes, weights, {"x": (2, 3, 8, 8)}, opset=6)
    model.ir_version = 3
    model.graph.input.extend(
        helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in model.graph.initializer
    )
    small, _ = compact(model, 8)
    assert emit(small).opset_import[0].version == 7


def test_the_format_is_no_newer_than_needed() -> None:
    model = build([node("Relu", "x", "y")], {})
    model.ir_version = 99
    model.opset_import[0].version = 17
    assert emit(from_onnx(model)).ir_version <= 10


def test_text_passes() -> None:
    text = helper.make_tensor_value_info("x", TensorProto.STRING, ["N"])
    flag = helper.make_tensor_value_info("y", TensorProto.BOOL, None)
    graph = helper.make_graph([node("Equal", "x x", "y")], "g", [text], [flag])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    report = prunec.compile(model, ratio=0.5).report
    assert any(note.startswith("nothing was pruned") for note in report["notes"])


def test_outputs_that_are_sequences() -> None:
    nodes = [*HEAD, node("Conv", "h w2", "p"), node("SequenceConstruct", "p p", "y")]
    model = build(nodes, {"w1": weight(8, 3, 3, 3), "w2": weight(4, 8, 1, 1)})
    sequence = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, None))
    model.graph.output[0].CopyFrom(helper.make_value_info("y", sequence))
    assert len(run(from_onnx(model), [np.zeros((2, 3, 8, 8), np.float32)])) == 2
    pipeline = "score,plan{ratio=0.5,align=1},eliminate,fold,verify"
    assert prunec.compile(model, pipeline=pipeline).report["units"]["removed"] == 4


def test_half_precision_is_as_exact_as_its_digits() -> None:
    """Integers go in: only the weights can show how far the last digits of float16 move the output."""
    nodes = [
        node("Cast", "x", "ids", to=TensorProto.INT64),
        node("Gather", "table ids", "e"),
        node("MatMul", "e w1", "h"),
    ]
    nodes += [node("Tanh", "h", "t"), node("MatMul", "t w2", "k"), node("Cast", "k", "y", to=TensorProto.FLOAT)]
    half = {"table": weight(20, 64), "w1": weight(64, 64) * 3, "w2": weight(64, 8)}
    model = build(nodes, {n: w.astype(np.float16) for n, w in half.items()}, {"x": ("N", 16)})
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.INT32
    assert prunec.compile(model, ratio=0.5, measure=False).report["verify"]["ok"]


def test_what_goes_into_a_selection_is_watched_and_nothing_behind_it() -> None:
    nodes = [
        node("MatMul", "x a", "h"),
        node("Sigmoid", "h", "scores"),
        node("Greater", "scores limit", "good"),
        node("Where", "good scores zero", "kept"),
        node("TopK", "kept two", "best places"),
        node("GatherElements", "h places", "boxes"),
        node("TopK", "boxes one", "y last"),
    ]
    numbers = {"limit": np.float32(0.5), "zero": np.float32(0), "two": ints(2), "one": ints(1)}
    model = build(nodes, {"a": weight(3, 6), **numbers}, {"x": ("N", 3)})
    found = decisions(analyse(from_onnx(model)))
    assert [v.name for v in found.border] == ["scores", "h"] and found.complete
