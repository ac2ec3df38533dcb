"""Quantised ONNX models: the same units as in floats, weights and their scales sliced, compact equal to masked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

import prunec
from prunec.ir.codes import codes
from prunec.ir.emit.onnx import emit, observing, run, sample_inputs
from prunec.ir.frontends.onnx import from_onnx
from prunec.ir.graph import Value
from prunec.ir.zeros import Zeros
from prunec.passes.rewrite import eliminate, mask

from .test_onnx_frontend import HEAD, analysed, build, compact, ints, node, weight

MS = "com.microsoft"
UNITS = 8 + 6
ZERO = 7
"""A zero point that is not zero: a removed weight is this number."""


def stored_as(w: NDArray[Any], per_channel: bool, axis: int = 0) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """The integers, scale and zero point of a weight."""
    others = tuple(d for d in range(w.ndim) if d != axis)
    scale = (np.abs(w).max(others) if per_channel else np.abs(w).max()) / 100
    shaped = scale.reshape([-1 if d == axis else 1 for d in range(w.ndim)]) if per_channel else scale
    zero = np.full(np.shape(scale), ZERO, np.int8)
    return np.clip(np.round(w / shaped) + ZERO, -128, 127).astype(np.int8), np.asarray(scale, np.float32), zero


def layer(name: str, *shape: int, axis: int = 0, per_channel: bool = False) -> dict[str, Any]:
    """A weight of integers, with its scale and zero point."""
    return dict(zip((f"{name}q", f"{name}s", f"{name}z"), stored_as(weight(*shape), per_channel, axis)))


def quantised(per_channel: bool) -> ModelProto:
    """conv (8) - conv (6) - linear (3), each weight and each value between through integers."""
    weights: dict[str, Any] = {"s": np.float32(0.05), "z": np.uint8(128)}
    shapes = {"w1": (8, 3, 3, 3), "w2": (6, 8, 1, 1), "w3": (3, 6)}
    for name, shape in shapes.items():
        weights |= dict(zip((f"{name}q", f"{name}s", f"{name}z"), stored_as(weight(*shape), per_channel)))
    nodes = [node("DequantizeLinear", f"{n}q {n}s {n}z", n, **({"axis": 0} if per_channel else {})) for n in shapes]

    def rounded(x: str) -> list[onnx.NodeProto]:
        return [node("QuantizeLinear", f"{x} s z", f"{x}_q"), node("DequantizeLinear", f"{x}_q s z", f"{x}_d")]

    nodes += [*rounded("x"), node("Conv", "x_d w1", "a", pads=[1, 1, 1, 1]), node("Relu", "a", "b"), *rounded("b")]
    nodes += [node("Conv", "b_d w2", "c"), *rounded("c"), node("GlobalAveragePool", "c_d", "d")]
    nodes += [node("Flatten", "d", "e"), node("Gemm", "e w3", "y", transB=1)]
    return build(nodes, weights)


def halved(model: ModelProto) -> tuple[Any, Any, Any, NDArray[Any]]:
    graph, groups = analysed(model)
    rng = np.random.default_rng(0)
    halves = [rng.permutation(g.units)[: len(g) // 2] for g in groups.groups]
    dropped = np.concatenate([np.zeros(0, np.int64), *halves])
    alive = groups.alive(dropped)
    return graph, groups, eliminate(groups.analysis, alive), alive


def assert_exact(model: ModelProto, units: int) -> ModelProto:
    graph, groups, small, alive = halved(model)
    assert len(groups.prunable) == units
    assert not groups.analysis.opaque
    inputs = sample_inputs(graph, 0)
    for a, b, c in zip(*(run(g, inputs) for g in (mask(groups.analysis, alive), small, graph)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6 * float(np.abs(a.astype(np.float64)).max()))
        assert not np.array_equal(a, c)
    return emit(small)


@pytest.mark.parametrize("per_channel", [False, True], ids=["tensor", "channel"])
def test_qdq(per_channel: bool) -> None:
    made = {t.name: numpy_helper.to_array(t) for t in assert_exact(quantised(per_channel), UNITS).graph.initializer}
    assert made["w1q"].shape == (4, 3, 3, 3)
    assert made["w2q"].shape == (3, 4, 1, 1)
    assert made["w1q"].dtype == np.int8
    assert made["w1s"].shape == made["w1z"].shape == ((4,) if per_channel else ())


def test_a_removed_weight_is_the_zero_point() -> None:
    _, groups, _, alive = halved(quantised(True))
    masked = {c.name: c.data for c in mask(groups.analysis, alive).constants.values()}
    dead = [row for row in masked["w1q"] if (row == row.flat[0]).all()]
    assert len(dead) == 4
    assert all((row == ZERO).all() for row in dead)
    assert (masked["w1s"] > 0).all()


def test_scores_are_those_of_the_numbers() -> None:
    """Per channel every row of integers is as large as the others; the numbers are not."""
    graph, _ = analysed(quantised(True))
    code = next(code for v, code in codes(graph).items() if v.name == "w1q")
    data = next(c.data for c in graph.constants.values() if c.name == "w1q")
    np.testing.assert_allclose(code.numbers(data), weight(8, 3, 3, 3), atol=0.02)
    assert next(c.role for c in graph.constants.values() if c.name == "w1q") == "parameter"
    assert next(c.role for c in graph.constants.values() if c.name == "w1s") == "buffer"


def test_zero_points_that_an_exporter_merged_are_apart() -> None:
    model = quantised(True)
    square = {"w1": weight(6, 3, 3, 3), "w2": weight(6, 6, 1, 1)}
    for name, w in square.items():
        for suffix, array in zip("qsz", stored_as(w, True)):
            old = next(t for t in model.graph.initializer if t.name == f"{name}{suffix}")
            old.CopyFrom(numpy_helper.from_array(np.asarray(array), old.name))
    shared = next(n for n in model.graph.node if n.output[0] == "w2")
    shared.input[2] = "w1z"
    assert_exact(model, 12)


def operators() -> tuple[ModelProto, int]:
    """QLinearConv (depthwise too), a sum of integers and QLinearMatMul."""
    weights: dict[str, Any] = {"s": np.float32(0.05), "z": np.uint8(128)}
    for name, shape, axis in (("w1", (8, 3, 3, 3), 0), ("w2", (8, 1, 3, 3), 0), ("w3", (8, 5), 1)):
        weights |= dict(zip((f"{name}q", f"{name}s", f"{name}z"), stored_as(weight(*shape), axis == 0, axis)))
        weights[f"{name}z"] = np.zeros_like(weights[f"{name}z"])
    weights |= {"b1": np.arange(8, dtype=np.int32) * 50, "add": np.arange(8, dtype=np.uint8).reshape(8, 1, 1) + 120}
    nodes = [
        node("QuantizeLinear", "x s z", "xq"),
        node("QLinearConv", "xq s z w1q w1s w1z s z b1", "a"),
        node("QLinearConv", "a s z w2q w2s w2z s z", "b", group=8),
        node("QLinearAdd", "b s z add s z s z", "c", domain=MS),
        node("QLinearGlobalAveragePool", "c s z s z", "d", domain=MS),
        node("Flatten", "d", "e"),
        node("QLinearMatMul", "e s z w3q w3s w3z s z", "f"),
        node("DequantizeLinear", "f s z", "y"),
    ]
    model = build(nodes, weights)
    model.opset_import.append(helper.make_opsetid(MS, 1))
    return model, 8


def dynamic() -> tuple[ModelProto, int]:
    """Ranges measured at run time: DynamicQuantizeLinear, MatMulInteger."""
    weights = {"w1": stored_as(weight(12, 8), False)[0], "w2": stored_as(weight(8, 3), False)[0], "s": np.float32(0.01)}
    weights |= {"z": np.int8(ZERO), "b": weight(8)}
    nodes = []
    for x, w, y in (("x", "w1", "p"), ("h", "w2", "y")):
        nodes += [
            node("DynamicQuantizeLinear", x, f"{x}q {x}s {x}z"),
            node("MatMulInteger", f"{x}q {w} {x}z z", f"{x}i"),
            node("Cast", f"{x}i", f"{x}f", to=TensorProto.FLOAT),
            node("Mul", f"{x}s s", f"{x}t"),
            node("Mul", f"{x}f {x}t", y),
        ]
        nodes += [node("Add", "p b", "o"), node("Relu", "o", "h")] if y == "p" else []
    return build(nodes, weights, {"x": ("N", "S", 12)}), 8


def residual() -> tuple[ModelProto, int]:
    """Channels of codes gated, added and joined, each with another zero point."""
    weights = layer("w1", 8, 3, 3, 3, per_channel=True) | layer("w2", 8, 8, 1, 1, per_channel=True)
    weights |= layer("w3", 8, 8, 1, 1) | layer("w4", 5, 16)
    weights |= {name: np.zeros_like(weights[name]) for name in ("w1z", "w2z")}
    weights |= {"b": np.arange(-300, 420, 90).astype(np.int32), "b4": np.arange(-200, 250, 90).astype(np.int32)}
    weights |= {"s": np.float32(0.05), "s1": np.float32(0.02), "z": np.uint8(100), "z1": np.uint8(140)}
    weights |= {"sg": np.float32(1 / 256), "zg": np.uint8(0)}
    nodes = [
        node("QuantizeLinear", "x s z", "xq"), node("QLinearConv", "xq s z w1q w1s w1z s1 z1 b", "a", pads=[1] * 4),
        node("QLinearConv", "a s1 z1 w2q w2s w2z s z b", "c"), node("QLinearAdd", "a s1 z1 c s z s z1", "d", domain=MS),
        node("QLinearGlobalAveragePool", "d s z1 s z", "e", domain=MS),
        node("QLinearConv", "e s z w3q w3s w3z s1 z b", "f"),
        node("QLinearSigmoid", "f s1 z sg zg", "g", domain=MS),
        node("QLinearMul", "d s z1 g sg zg s z", "h", domain=MS),
        node("QLinearConcat", "s1 z h s z a s1 z1", "j", domain=MS, axis=1),
        node("QLinearGlobalAveragePool", "j s1 z s z1", "k", domain=MS), node("Flatten", "k", "l"),
        node("QGemm", "l s z1 w4q w4s w4z b4 s z", "o", domain=MS, transB=1), node("DequantizeLinear", "o s z", "y"),
    ]  # fmt: skip
    model = build(nodes, weights)
    model.opset_import.append(helper.make_opsetid(MS, 1))
    return model, 8


@pytest.mark.parametrize(
    ("model", "units"), [operators(), dynamic(), residual()], ids=["operators", "dynamic", "residual"]
)
def test_layers_on_integers(model: ModelProto, units: int) -> None:
    assert_exact(model, units)


# ---------------------------------------------------------------------- sums over rows of codes


def mixed(*nodes: onnx.NodeProto, **weights: Any) -> ModelProto:
    """Between h (2, 10, 8), rows of a product, and t, whose rows are summed over with factors that are not zero."""
    first = [node("MatMul", "x a", "e"), node("MatMul", "r e", "h")]
    last = [
        node("MatMul", "x c", "f"),
        node("Sigmoid", "f", "g"),
        node("MatMul", "g t", "o"),
        node("MatMul", "o v", "y"),
    ]
    ends = {"a": weight(12, 8), "r": weight(10, 6), "c": weight(12, 10), "v": weight(8, 3)}
    numbers = {"s": np.float32(0.05), "s1": np.float32(0.02), "z": np.uint8(100), "z1": np.uint8(140)}
    model = build([*first, *nodes, *last], ends | numbers | weights, {"x": (2, 6, 12)})
    model.opset_import.append(helper.make_opsetid(MS, 1))
    return model


MEASURED = node("DynamicQuantizeLinear", "h", "q qs qz")
QUANTISED = node("QuantizeLinear", "h s z", "q")
CHANNELS = {"sc": np.full(8, 0.05, np.float32), "zc": np.arange(100, 108).astype(np.uint8)}
TO_FLOAT = node("MatMulIntegerToFloat", "q wq qs ws qz wz", "t", domain=MS)


def biased(made: onnx.NodeProto, bias: str) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(made)
    copy.input.append(bias)
    return copy


MIXED: dict[str, tuple[ModelProto, int]] = {
    "measured": (mixed(MEASURED, node("DequantizeLinear", "q qs qz", "t")), 8 + 10),
    "measured_rows_of_a_layer": (mixed(MEASURED, TO_FLOAT, **layer("w", 8, 8)), 8 + 8 + 10),
    "measured_columns_of_a_layer": (
        mixed(
            node("Transpose", "e", "et", perm=[0, 2, 1]), node("DynamicQuantizeLinear", "et", "q qs qz"),
            node("MatMulIntegerToFloat", "q wq qs ws qz wz", "p", domain=MS),
            node("Transpose", "p", "t", perm=[0, 2, 1]), **layer("w", 6, 10, axis=1),
        ),
        8 + 10,
    ),
    "measured_though_not_zero": (
        mixed(
            node("Sigmoid", "h", "k"), node("DynamicQuantizeLinear", "k", "q qs qz"),
            node("DequantizeLinear", "q qs qz", "t"),
        ),
        8 + 10,
    ),
    "read_with_its_zero_point": (mixed(QUANTISED, node("DequantizeLinear", "q s z", "t")), 8 + 10),
    "read_with_another": (mixed(QUANTISED, node("DequantizeLinear", "q s z1", "t")), 8),
    "read_with_that_of_another_range": (
        mixed(MEASURED, node("DynamicQuantizeLinear", "x", "xq xs xz"), node("DequantizeLinear", "q qs xz", "t")), 8
    ),
    "read_as_they_are": (mixed(QUANTISED, node("Cast", "q", "t", to=TensorProto.FLOAT)), 8),
    "moved": (
        mixed(
            MEASURED, node("Transpose", "q", "m", perm=[1, 0, 2]), node("Transpose", "m", "n", perm=[1, 0, 2]),
            node("DequantizeLinear", "n qs qz", "t"),
        ),
        8 + 10,
    ),
    "channels_moved": (
        mixed(
            node("QuantizeLinear", "h sc zc", "q", axis=2), node("Transpose", "q", "m", perm=[1, 0, 2]),
            node("Transpose", "m", "n", perm=[1, 0, 2]), node("DequantizeLinear", "n sc zc", "t", axis=2), **CHANNELS,
        ),
        8,
    ),
    "channels": (
        mixed(
            node("QuantizeLinear", "h sc zc", "q", axis=2), node("DequantizeLinear", "q sc zc", "t", axis=2), **CHANNELS
        ),
        8 + 10,
    ),
    **{
        f"joined_{z}": (
            mixed(
                QUANTISED, node("QuantizeLinear", f"h s {z}", "p"), node("Concat", "q p", "j", axis=2),
                node("DequantizeLinear", "j s z", "k"), node("MatMul", "k w", "t"), w=weight(16, 8),
            ),
            units,
        )
        for z, units in (("z", 8 + 8 + 10), ("z1", 8 + 8))
    },
    **{
        f"padded_by_{z}": (
            mixed(
                QUANTISED, node("Pad", f"q pads {z}", "p"), node("DequantizeLinear", "p s z", "k"),
                node("MatMul", "k w", "t"), w=weight(9, 8), pads=ints(0, 0, 0, 0, 0, 1),
            ),
            units,
        )
        for z, units in (("z", 9 + 8 + 10), ("z1", 9 + 8))
    },
    **{
        f"{kind}_{name}_{z}": (
            mixed(
                QUANTISED, node(kind, f"q s z {name} s {z} s z1", "p", domain=MS),
                node("DequantizeLinear", "p s z1", "t"),
                bias=np.arange(90, 98).astype(np.uint8), one=np.uint8(150),
            ),
            units,
        )
        for kind, name, z, units in (
            ("QLinearAdd", "q", "z", 8 + 10), ("QLinearAdd", "q", "z1", 8), ("QLinearAdd", "bias", "z", 8),
            ("QLinearAdd", "one", "z", 8), ("QLinearMul", "bias", "z", 8 + 10), ("QLinearMul", "one", "z", 8 + 10),
        )
    },
    **{
        f"{kind}_{z}": (mixed(QUANTISED, *nodes, **layer("w", 8, 8)), units)
        for z, units in (("z", 8 + 8 + 10), ("z1", 8 + 8))
        for kind, nodes in (
            ("product", [node("QLinearMatMul", f"q s {z} wq ws wz s z", "p"), node("DequantizeLinear", "p s z", "t")]),
            ("product_32", [node("MatMulInteger", f"q wq {z} wz", "i"), node("Cast", "i", "t", to=TensorProto.FLOAT)]),
        )
    },
    "biased_product": (mixed(MEASURED, biased(TO_FLOAT, "b"), **layer("w", 8, 8), b=weight(8)), 8 + 8),
    **{
        f"gemm_{transposed}_{bias}": (
            mixed(
                QUANTISED, node("Reshape", "q flat", "p"),
                node("QGemm", f"p s z wq ws wz {bias} s z1", "k", domain=MS, transB=transposed),
                node("Reshape", "k back", "l"), node("DequantizeLinear", "l s z1", "t"), flat=ints(20, 8),
                back=ints(2, 10, 8), b=np.arange(-300, 500, 100).astype(np.int32), **layer("w", 8, 8),
            ),
            units,
        )
        for transposed in (0, 1)
        for bias, units in (("_", 8 + 8 + 10), ("b", 8 + 8))
    },
    "largest": (
        mixed(
            QUANTISED, node("ReduceMax", "q last", "p", keepdims=1), node("DequantizeLinear", "p s z", "k"),
            node("MatMul", "k w", "t"), w=weight(1, 8), last=ints(2),
        ),
        8 + 8,
    ),
    "places_of_the_largest": (
        mixed(
            node("TopK", "h two", "m i", axis=2), node("Cast", "i", "k", to=TensorProto.FLOAT),
            node("MatMul", "k w", "t"), two=ints(2), w=weight(2, 8),
        ),
        8,
    ),
    **{
        f"joined_as_{made}_from_{read}": (
            mixed(
                QUANTISED, node("QuantizeLinear", "h s1 z1", "p"),
                node("QLinearConcat", f"s1 {made} q s z p s1 {read}", "j", domain=MS, axis=2),
                node("DequantizeLinear", "j s1 z1", "k"), node("MatMul", "k w", "t"), w=weight(16, 8),
            ),
            units,
        )
        for made, read, units in (("z1", "z1", 8 + 8 + 10), ("z", "z1", 8 + 8), ("z1", "z", 8 + 8))
    },
    **{
        f"{kind}_as_{z}": (
            mixed(
                QUANTISED, node(kind, f"q s z s {z}", "p", domain=MS, **options),
                node("DequantizeLinear", "p s z1", "t"),
            ),
            units,
        )
        for kind, z, units, options in (
            ("QLinearLeakyRelu", "z1", 8 + 10, {"alpha": 0.1}), ("QLinearLeakyRelu", "z", 8, {"alpha": 0.1}),
            ("QLinearSigmoid", "z1", 8, {}), ("QLinearSoftmax", "z1", 0, {"axis": -1, "opset": 13}),
        )
    },
    **{
        f"averaged_as_{z}": (
            mixed(
                QUANTISED, node("Unsqueeze", "q at", "p"),
                node("QLinearAveragePool", f"p s z s {z}", "k", domain=MS, kernel_shape=[1, 3], pads=[0, 1, 0, 1]),
                node("Squeeze", "k at", "l"), node("DequantizeLinear", "l s z1", "t"), at=ints(2),
            ),
            units,
        )
        for z, units in (("z1", 10), ("z", 0))
    },
}  # fmt: skip


@pytest.mark.parametrize("name", MIXED)
def test_rows_of_codes(name: str) -> None:
    """Rows are free where their dead positions are zero, as they are read in the end."""
    model, units = MIXED[name]
    _, groups = compact(model, units)
    assert not groups.analysis.opaque


@pytest.mark.parametrize("name", MIXED)
def test_what_is_said_to_be_zero_is(name: str) -> None:
    """Each value of the masked network that is said to be zero at its dead positions holds its zero point there."""
    graph, groups, _, alive = halved(MIXED[name][0])
    analysis, zeros = groups.analysis, Zeros(graph, groups.analysis.axes).follow()
    masked = mask(analysis, alive)
    said = [v for v in masked.producers() if v in zeros.zero and v not in masked.outputs]
    points = {v: p for v in said if isinstance(p := zeros.points.get(v, 0), Value)}
    watched = list(dict.fromkeys([*said, *points.values()]))
    seen = dict(zip(watched, run(observing(masked, watched), sample_inputs(graph, 0))[-len(watched) :], strict=True))
    for value in said:
        point = zeros.points.get(value, 0)
        numbers = seen[value].astype(np.float64) - np.asarray(
            seen[points[value]] if value in points else along(value, point)
        )
        for d, axis in enumerate(analysis.axes[value]):
            assert not numbers.compress(~alive[axis], axis=d).any(), value


def along(value: Value, point: Any) -> Any:
    """A zero point that broadcasts over ``value``."""
    if not isinstance(point, tuple):
        return point
    axis, numbers = point
    return np.reshape(numbers, [-1 if d == axis else 1 for d in range(len(value.shape or ()))])


def test_a_part_of_what_was_joined_anew_is_not_the_part_that_went_in() -> None:
    """QLinearConcat rescales its parts: a slice of the result is no operand."""
    model = mixed(
        QUANTISED, node("QuantizeLinear", "h s1 z1", "p"),
        node("QLinearConcat", "s1 z1 q s z p s1 z1", "j", domain=MS, axis=2),
        node("Slice", "j start end axis", "k"), node("DequantizeLinear", "k s1 z1", "t"),
        start=ints(0), end=ints(8), axis=ints(2),
    )  # fmt: skip
    inputs = sample_inputs(from_onnx(model), 0)
    for expected, found in zip(run(from_onnx(model), inputs), run(analysed(model)[0], inputs), strict=True):
        np.testing.assert_array_equal(expected, found)
    compact(model, 8 + 10)


def test_tables_of_integers() -> None:
    """Rows looked up by an input and by positions, made numbers after that."""
    nodes = [
        node("Cast", "x", "ids", to=TensorProto.INT64),
        node("Gather", "words ids", "w8"), node("DequantizeLinear", "w8 s z", "w"),
        node("Shape", "ids", "shape"), node("Gather", "shape one", "n"), node("Range", "zero n one", "at"),
        node("Gather", "places at", "p8"), node("DequantizeLinear", "p8 s z", "p"),
        node("Add", "w p", "e"), node("Tanh", "e", "t"), node("MatMul", "t v", "y"),
    ]  # fmt: skip
    rng = np.random.default_rng(0)
    tables = {n: rng.integers(0, 255, (rows, 8)).astype(np.uint8) for n, rows in (("words", 20), ("places", 40))}
    weights = {"s": np.float32(0.01), "z": np.uint8(128), "v": weight(8, 3), "zero": np.int64(0), "one": np.int64(1)}
    model = build(nodes, tables | weights, {"x": ("N", "S")})
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.INT32
    assert_exact(model, 8)


def test_blocks_of_scales_are_pinned() -> None:
    nodes = [*HEAD, node("DequantizeLinear", "q s", "w2", axis=1, block_size=4), node("Conv", "h w2", "y")]
    weights = {"w1": weight(8, 3, 3, 3), "q": np.ones((4, 8, 1, 1), np.int8), "s": np.ones((4, 2, 1, 1), np.float32)}
    _, groups = analysed(build(nodes, weights, opset=21))
    assert {o.why for o in groups.analysis.opaque} == {"a scale for each block"}
    assert len(groups.prunable) == 0


def test_an_integer_that_is_also_a_position_stays() -> None:
    nodes = [*HEAD, node("DequantizeLinear", "q s", "f"), node("Gather", "h q", "t", axis=1), node("Mul", "t f", "y")]
    weights = {"w1": weight(8, 3, 3, 3), "q": np.arange(8, dtype=np.int32), "s": np.float32(1)}
    graph, groups = analysed(build([*nodes[:2], *nodes[2:]], weights, {"x": ("N", 3, 8, 8)}))
    assert not codes(graph)
    assert len(groups.prunable) == 0


class Calibration:
    """Batches for onnxruntime's quantiser."""

    def __init__(self, batches: Sequence[Mapping[str, Any]]) -> None:
        self.batches = iter(batches)

    def get_next(self) -> Mapping[str, Any] | None:
        return next(self.batches, None)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["QDQ", "QOperator"])
@pytest.mark.parametrize("kind", ["QInt8", "QUInt8"])
@pytest.mark.parametrize("per_channel", [False, True])
def test_the_runtimes_own_quantiser(tmp_path: Path, form: str, kind: str, per_channel: bool) -> None:
    """Static quantisation by onnxruntime: the units of the float model, proven by a whole compile."""
    from onnxruntime import quantization as q

    nodes = [*HEAD, node("Conv", "h w2 b2", "c"), node("Relu", "c", "d"), node("GlobalAveragePool", "d", "e")]
    nodes += [node("Flatten", "e", "f"), node("Gemm", "f w3 b3", "y", transB=1)]
    weights = {"w1": weight(8, 3, 3, 3), "w2": weight(6, 8, 1, 1), "b2": weight(6), "w3": weight(5, 6), "b3": weight(5)}
    model = build(nodes, weights, opset=17)
    source, made = tmp_path / "float.onnx", tmp_path / "int8.onnx"
    onnx.save(model, str(source))
    rng = np.random.default_rng(0)
    batches = [{"x": rng.standard_normal((2, 3, 8, 8)).astype(np.float32)} for _ in range(4)]
    q.quantize_static(
        str(source), str(made), Calibration(batches), quant_format=getattr(q.QuantFormat, form),
        per_channel=per_channel, weight_type=getattr(q.QuantType, kind), activation_type=q.QuantType.QUInt8,
    )  # fmt: skip
    report = prunec.compile(
        str(made), pipeline="score,plan{ratio=0.5,align=1},eliminate,fold,verify", measure=False
    ).report
    assert report["units"] == {**report["units"], "total": UNITS, "removed": UNITS // 2}
    assert not report["opaque_ops"]
