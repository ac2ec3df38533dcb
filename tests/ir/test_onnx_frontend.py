"""The ONNX twin: what is refused, what is a fact, and that the compact graph equals the masked one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from prunec.ir.analysis import analyse
from prunec.ir.emit.onnx import emit, run, sample_inputs
from prunec.ir.errors import ModelError
from prunec.ir.frontends.onnx import from_onnx
from prunec.ir.frontends.onnx_file import disguised, read_model
from prunec.ir.graph import Graph
from prunec.passes.canonicalize import canonical
from prunec.passes.check import broken
from prunec.passes.groups import Groups, find_groups
from prunec.passes.rewrite import eliminate, mask

Weights = Mapping[str, Any]
Axes = Sequence[int | str | None]


def weight(*shape: int, seed: int = 0) -> NDArray[Any]:
    rng = np.random.default_rng([seed, *shape])
    return (rng.standard_normal(shape) / math.sqrt(max(1, math.prod(shape[1:])))).astype(np.float32)


def node(op_type: str, inputs: str, outputs: str, **attributes: Any) -> NodeProto:
    """Names apart by spaces, ``_`` for an absent one."""
    read, made = (["" if n == "_" else n for n in text.split()] for text in (inputs, outputs))
    made_node: NodeProto = helper.make_node(op_type, read, made, **attributes)
    return made_node


def build(
    nodes: Sequence[NodeProto],
    weights: Weights,
    inputs: Mapping[str, Axes] | None = None,
    outputs: Sequence[str] = ("y",),
    opset: int = 18,
    **options: Any,
) -> ModelProto:
    given = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, a) for n, a in (inputs or {"x": ("N", 3, 8, 8)}).items()
    ]
    made = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs]
    stored = [numpy_helper.from_array(np.asarray(a), n) for n, a in weights.items()]
    graph = helper.make_graph(list(nodes), "g", given, made, stored)
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("local", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10, **options)


def analysed(model: ModelProto | Path) -> tuple[Graph, Groups]:
    graph = canonical(from_onnx(model))
    return graph, find_groups(analyse(graph))


def compact(model: ModelProto | Path, units: int | None = None, seed: int = 0) -> tuple[Graph, Groups]:
    """Half of the units dropped at random; asserts that the result equals the masked model, at other sizes too."""
    graph, groups = analysed(model)
    if units is not None:
        assert len(groups.prunable) == units
    rng = np.random.default_rng(seed)
    dropped = np.concatenate([rng.permutation(g.units)[: len(g) // 2] for g in groups.groups] or [np.zeros(0, int)])
    alive = groups.alive(dropped.astype(np.int64))
    small, masked = eliminate(groups.analysis, alive), mask(groups.analysis, alive)
    assert not broken(small, graph)
    assert not broken(masked, graph)
    onnx.checker.check_model(disguised(emit(small)), full_check=True)
    for stretch in (0, 3):
        inputs = stretched(graph, stretch)
        expected, found, before = run(masked, inputs), run(small, inputs), run(graph, inputs)
        for a, b, c in zip(expected, found, before, strict=True):
            assert a.shape == b.shape == c.shape
            np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5 * max(1e-3, float(np.abs(a).max(initial=0))))
        if len(dropped):
            assert any(not np.allclose(a, c, rtol=1e-3) for a, c in zip(expected, before, strict=True)), "nothing moved"
    return small, groups


def stretched(graph: Graph, by: int) -> list[NDArray[Any]]:
    """Random inputs, the axes of open size longer by ``by``."""
    inputs = []
    for value, array in zip(graph.inputs, sample_inputs(graph, by), strict=True):
        for d in value.dynamic:
            array = np.concatenate([array, array.take(np.arange(by) % array.shape[d], axis=d)], axis=d)
        inputs.append(array)
    return inputs


def refused(call: Callable[[], Any], *words: str) -> ModelError:
    with pytest.raises(ModelError) as caught:
        call()
    for word in words:
        assert word in str(caught.value)
    assert "\n  hint: " in str(caught.value)
    return caught.value


# ---------------------------------------------------------------------- small models


def conv_net(**options: Any) -> ModelProto:
    nodes = [
        node("Conv", "x w1", "a", pads=[1, 1, 1, 1]),
        node("Relu", "a", "b"),
        node("Conv", "b w2 b2", "c"),
        node("GlobalAveragePool", "c", "d"),
        node("Flatten", "d", "e"),
        node("Gemm", "e w3 b3", "y", transB=1),
    ]
    weights = {"w1": weight(8, 3, 3, 3), "w2": weight(6, 8, 1, 1), "b2": weight(6), "w3": weight(5, 6), "b3": weight(5)}
    return build(nodes, weights, **options)


HEAD = [node("Conv", "x w1", "a", pads=[1, 1, 1, 1]), node("Relu", "a", "h")]
TAIL = [node("Conv", "t w2", "y")]
ENDS = {"w1": weight(8, 3, 3, 3), "w2": weight(4, 8, 1, 1)}


def ints(*numbers: int) -> NDArray[np.int64]:
    return np.asarray(numbers, np.int64)


def between(*nodes: NodeProto, opset: int = 18, **weights: Any) -> ModelProto:
    """h (N, 8, 8, 8) -> t, between two convolutions."""
    return build([*HEAD, *nodes, *TAIL], ENDS | weights, opset=opset)


LINEAR = {"x": ("N", "S", 12)}


def attention(opset: int = 18) -> ModelProto:
    """Two heads of size 4; the scale is computed from the shape of the query."""
    nodes = [
        node("MatMul", "x wqkv", "qkv"),
        node("Shape", "x", "s"),
        node("Gather", "s zero", "n", axis=0),
        node("Gather", "s one", "len", axis=0),
        node("Concat", "n len heads size", "target", axis=0),
        node("Split", "qkv", "q k v", axis=2, num_outputs=3),
        *(node("Reshape", f"{i} target", f"{i}4") for i in "qkv"),
        node("Transpose", "q4", "qt", perm=[0, 2, 1, 3]),
        node("Transpose", "k4", "kt", perm=[0, 2, 3, 1]),
        node("Transpose", "v4", "vt", perm=[0, 2, 1, 3]),
        node("Shape", "qt", "qs"),
        node("Gather", "qs three", "d"),
        node("Cast", "d", "df", to=TensorProto.FLOAT),
        node("Sqrt", "df", "root"),
        node("Div", "qt root", "qd"),
        node("MatMul", "qd kt", "scores"),
        node("Softmax", "scores", "p", axis=-1),
        node("MatMul", "p vt", "o"),
        node("Transpose", "o", "ot", perm=[0, 2, 1, 3]),
        node("Concat", "n len rest", "flat", axis=0),
        node("Reshape", "ot flat", "of"),
        node("MatMul", "of wo", "y"),
    ]
    weights = {"wqkv": weight(12, 24), "wo": weight(8, 12), "zero": ints(0), "one": ints(1), "heads": ints(2)}
    return build(nodes, weights | {"size": ints(4), "three": np.int64(3), "rest": ints(-1)}, LINEAR, opset=opset)


def fused_attention(heads: int = 2, mask: NDArray[Any] | None = None, **attributes: Any) -> ModelProto:
    """Attention of opset 23 with two key heads of size 4."""
    sizes = {"q": heads, "k": 2, "v": 2}
    nodes: list[NodeProto] = []
    weights: dict[str, Any] = {"flat": ints(0, 0, -1), "wo": weight(4 * heads, 12)}
    for i, n in sizes.items():
        weights |= {f"w{i}": weight(12, 4 * n, seed=ord(i)), f"s{i}": ints(0, 0, n, 4)}
        nodes.append(node("MatMul", f"x w{i}", f"{i}1"))
        nodes.append(node("Reshape", f"{i}1 s{i}", f"{i}2"))
        nodes.append(node("Transpose", f"{i}2", f"{i}3", perm=[0, 2, 1, 3]))
    if mask is not None:
        weights["mask"] = mask
    nodes += [
        node("Attention", "q3 k3 v3" + " mask" * (mask is not None), "o", **attributes),
        node("Transpose", "o", "ot", perm=[0, 2, 1, 3]),
        node("Reshape", "ot flat", "of"),
        node("MatMul", "of wo", "y"),
    ]
    return build(nodes, weights, {"x": ("N", "S" if mask is None else 16, 12)}, opset=23)


def packed_attention() -> ModelProto:
    """Heads packed into one axis: left alone."""
    nodes = [node("MatMul", f"x w{i}", i) for i in "qkv"]
    nodes += [node("Attention", "q k v", "o", q_num_heads=2, kv_num_heads=2), node("MatMul", "o wo", "y")]
    weights = {f"w{i}": weight(12, 8, seed=ord(i)) for i in "qkv"} | {"wo": weight(8, 12)}
    return build(nodes, weights, LINEAR, opset=23)


MODELS: dict[str, tuple[ModelProto, int]] = {
    "convolutions": (conv_net(), 14),
    "attention": (attention(), 2 + 4 + 4),
    "gemm_not_transposed": (
        build(
            [node("Gemm", "x a", "h"), node("Gemm", "h b", "y")],
            {"a": weight(3, 6), "b": weight(6, 2)},
            {"x": ("N", 3)},
        ),
        6,
    ),
    "squeeze_without_axes": (
        build(
            [*HEAD, node("GlobalAveragePool", "h", "g"), node("Squeeze", "g", "v"), node("Gemm", "v w", "y")],
            {"w1": weight(8, 3, 3, 3), "w": weight(8, 5)},
        ),
        8,
    ),
    "split_without_sizes": (
        between(node("Split", "h", "p q", axis=1, num_outputs=2), node("Concat", "q p", "t", axis=1)),
        8,
    ),
    "split_old": (between(node("Split", "h", "p q", axis=1), node("Concat", "q p", "t", axis=1), opset=11), 8),
    "slice_two_axes": (
        between(
            node("Slice", "h low high axes", "s"),
            node("Concat", "s s", "t", axis=1),
            low=ints(4, 1),
            high=ints(8, -1),
            axes=ints(1, 3),
        ),
        8,
    ),
    "slice_old": (
        between(
            node("Slice", "h", "s", starts=[0], ends=[4], axes=[1]),
            node("Concat", "s s", "t", axis=1),
            opset=9,
        ),
        8,
    ),
    "pad_channels": (
        between(
            node("Slice", "h low high axes", "s"),
            node("Pad", "s pads", "t"),
            low=ints(0),
            high=ints(6),
            axes=ints(1),
            pads=ints(0, 1, 0, 0, 0, 1, 0, 0),
        ),
        10,
    ),
    "take": (between(node("Gather", "h order", "t", axis=1), order=ints(7, 1, 0, 2, 3, 4, 6, 5)), 8),
    "select": (
        build(
            [
                *HEAD,
                node("Gather", "h at", "r", axis=3),
                node("Gather", "r at", "v", axis=2),
                node("MatMul", "v w", "y"),
            ],
            {"w1": weight(8, 3, 3, 3), "at": np.int64(-1), "w": weight(8, 5)},
        ),
        8,
    ),
    "gather_nd": (
        between(
            node("Transpose", "table", "rows", perm=[1, 0]),
            node("GatherND", "rows index", "r"),
            node("Transpose", "r", "shift", perm=[2, 0, 1]),
            node("Add", "h shift", "t"),
            table=weight(8, 9),
            index=ints(4).reshape(1, 1, 1),
        ),
        8,
    ),
    "gather_elements": (
        between(
            node("ReduceMean", "x channels", "m"),
            node("TopK", "m two", "top best", axis=3),
            node("Shape", "h", "s", end=3),
            node("Concat", "s two", "to", axis=0),
            node("Expand", "best to", "at"),
            node("GatherElements", "h at", "t", axis=3),
            two=ints(2),
            channels=ints(1),
        ),
        8,
    ),
    "resize_scales": (between(node("Resize", "h _ s", "t"), s=np.asarray([1, 1, 2, 2], np.float32)), 8),
    "resize_sizes": (
        between(
            node("Shape", "h", "s"),
            node("Slice", "s zero two", "nc"),
            node("Concat", "nc hw", "sizes", axis=0),
            node("Resize", "h _ _ sizes", "t"),
            zero=ints(0),
            two=ints(2),
            hw=ints(16, 16),
        ),
        8,
    ),
    "expand_batch": (
        build(
            [
                node("Shape", "x", "s"),
                node("Gather", "s zero", "n", axis=0),
                node("Concat", "n one width", "sizes", axis=0),
                node("Expand", "token sizes", "tokens"),
                node("MatMul", "x w", "h"),
                node("Concat", "tokens h", "z", axis=1),
                node("MatMul", "z v", "y"),
            ],
            {
                "zero": ints(0),
                "one": ints(1),
                "width": ints(6),
                "token": weight(1, 1, 6),
                "w": weight(12, 6),
                "v": weight(6, 2),
            },
            LINEAR,
        ),
        6,
    ),
    "expand_batch_and_width": (
        build(
            [
                node("Shape", "x", "s"),
                node("Gather", "s zero", "n", axis=0),
                node("Concat", "n one width", "sizes", axis=0),
                node("Expand", "token sizes", "tokens"),
                node("MatMul", "x w", "h"),
                node("Add", "tokens h", "z"),
                node("MatMul", "z v", "y"),
            ],
            {
                "zero": ints(0),
                "one": ints(1),
                "width": ints(6),
                "token": weight(1, 1, 1),
                "w": weight(12, 6),
                "v": weight(6, 2),
            },
            LINEAR,
        ),
        6,
    ),
    "reshape_like_another": (
        build(
            [
                node("MatMul", "x a", "h"),
                node("MatMul", "x b", "k"),
                node("Shape", "k", "s"),
                node("Reshape", "h s", "r"),
                node("MatMul", "r v", "p"),
                node("MatMul", "k v2", "q"),
                node("Add", "p q", "y"),
            ],
            {"a": weight(12, 6), "b": weight(12, 6, seed=1), "v": weight(6, 2), "v2": weight(6, 2, seed=1)},
            LINEAR,
        ),
        12,
    ),
    "stride_as_gather": (
        build(
            [
                *HEAD,
                node("GlobalAveragePool", "h", "g"),
                node("Reshape", "g all", "line"),
                node("Shape", "g", "s"),
                node("ReduceProd", "s", "many", keepdims=0),
                node("Range", "zero many one", "row"),
                node("Reshape", "row s", "index"),
                node("Gather", "line index", "t"),
                *TAIL,
            ],
            ENDS | {"all": ints(-1), "zero": np.int64(0), "one": np.int64(1)},
        ),
        8,
    ),
    "layer_norm": (
        build(
            [node("MatMul", "x a", "h"), node("LayerNormalization", "h g b", "n"), node("MatMul", "n v", "y")],
            {"a": weight(12, 6), "g": weight(6), "b": weight(6, seed=1), "v": weight(6, 2)},
            LINEAR,
        ),
        6,
    ),
    "layer_norm_decomposed": (
        build(
            [
                node("MatMul", "x a", "h"),
                node("ReduceMean", "h", "m", axes=[-1]),
                node("Sub", "h m", "c"),
                node("Pow", "c two", "p"),
                node("ReduceMean", "p", "var", axes=[-1]),
                node("Add", "var eps", "e"),
                node("Sqrt", "e", "r"),
                node("Div", "c r", "n"),
                node("Mul", "n g", "t"),
                node("MatMul", "t v", "y"),
            ],
            {"a": weight(12, 6), "g": weight(6), "v": weight(6, 2), "two": np.float32(2), "eps": np.float32(1e-5)},
            LINEAR,
            opset=13,
        ),
        6,
    ),
    "group_norm": (
        between(node("GroupNormalization", "h g b", "t", num_groups=2), g=weight(8), b=weight(8, seed=1), opset=21),
        6,
    ),
    "instance_norm": (between(node("InstanceNormalization", "h g b", "t"), g=weight(8), b=weight(8, seed=1)), 8),
    "conv_transpose": (
        build(
            [*HEAD, node("ConvTranspose", "h w2", "y", strides=[2, 2])],
            {"w1": weight(8, 3, 3, 3), "w2": weight(8, 4, 2, 2)},
        ),
        8,
    ),
    "depth_to_space": (
        build(
            [*HEAD, node("DepthToSpace", "h", "t", blocksize=2), node("Conv", "t w2", "y")],
            {"w1": weight(8, 3, 3, 3), "w2": weight(4, 2, 1, 1)},
        ),
        2,
    ),
    "pixel_shuffle": (
        build(
            [*HEAD, node("DepthToSpace", "h", "t", blocksize=2, mode="CRD"), node("Conv", "t w2", "y")],
            {"w1": weight(8, 3, 3, 3), "w2": weight(4, 2, 1, 1)},
        ),
        2,
    ),
    "space_to_depth": (
        build(
            [*HEAD, node("SpaceToDepth", "h", "t", blocksize=2), node("Conv", "t w2", "y")],
            {"w1": weight(8, 3, 3, 3), "w2": weight(4, 32, 1, 1)},
        ),
        8,
    ),
    "elementwise": (
        between(
            node("PRelu", "h slope", "p"),
            node("Clip", "p low", "c"),
            node("Dropout", "c", "t"),
            slope=weight(8, 1, 1),
            low=np.float32(-1),
        ),
        8,
    ),
    "einsum": (
        build(
            [node("Einsum", "x a", "h", equation="nsi,io->nso"), node("MatMul", "h v", "y")],
            {"a": weight(12, 6), "v": weight(6, 2)},
            LINEAR,
        ),
        6,
    ),
    "half_precision": (
        build(
            [
                node("Cast", "x", "z", to=TensorProto.FLOAT16),
                node("MatMul", "z a", "h"),
                node("Cast", "h", "k", to=TensorProto.FLOAT),
                node("MatMul", "k v", "y"),
            ],
            {"a": weight(12, 6).astype(np.float16), "v": weight(6, 2)},
            LINEAR,
        ),
        6,
    ),
    "rms_norm": (
        build(
            [node("MatMul", "x a", "h"), node("RMSNormalization", "h g", "n"), node("MatMul", "n v", "y")],
            {"a": weight(12, 6), "g": weight(6), "v": weight(6, 2)},
            LINEAR,
            opset=23,
        ),
        6,
    ),
    "rms_norm_two_axes": (
        build(
            [
                *HEAD,
                node("Transpose", "h", "last", perm=[0, 2, 3, 1]),
                node("RMSNormalization", "last g", "n", axis=-2),
                node("Transpose", "n", "t", perm=[0, 3, 1, 2]),
                *TAIL,
            ],
            ENDS | {"g": weight(8, 8)},
            opset=23,
        ),
        8,
    ),
    "local_response_norm": (between(node("LRN", "h", "t", size=3)), 0),
    "lp_norm": (between(node("LpNormalization", "h", "t", axis=1, p=1)), 8),
    "lp_norm_of_rows": (between(node("LpNormalization", "h", "t")), 8),
    "mean_variance": (between(node("MeanVarianceNormalization", "h", "t")), 8),
    "mean_variance_of_channels": (between(node("MeanVarianceNormalization", "h", "t", axes=[1, -1])), 8),
    "top_of_rows": (
        between(node("TopK", "h k", "top at"), node("Cast", "at", "f", to=1), node("Add", "top f", "t"), k=ints(3)),
        8,
    ),
    "top_channels": (between(node("TopK", "h k", "t at", axis=1), k=ints(8)), 0),
    "top_old": (between(node("TopK", "h", "t at", axis=2, k=3), opset=9), 8),
    "argmax_of_rows": (between(node("ArgMax", "h", "at", axis=-1), node("Cast", "at", "t", to=1)), 8),
    "argmax_of_rows_dropped": (
        between(
            node("ArgMin", "h", "at", axis=-1, keepdims=0),
            node("Cast", "at", "f", to=1),
            node("Unsqueeze", "f last", "t"),
            last=ints(-1),
        ),
        8,
    ),
    "argmax_of_channels": (
        build(
            [*HEAD, node("ArgMax", "h", "at", axis=1), node("Cast", "at", "f", to=1), node("Mul", "x f", "y")],
            {"w1": ENDS["w1"]},
        ),
        0,
    ),
    "cumsum_of_rows": (between(node("CumSum", "h at", "t", exclusive=1), at=np.int64(-1)), 8),
    "cumsum_of_channels": (between(node("CumSum", "h at", "t", reverse=1), at=np.int32(1)), 0),
    "tile_channels": (
        build(
            [*HEAD, node("Tile", "h times", "t"), node("Conv", "t w2", "y")],
            {"w1": ENDS["w1"], "times": ints(1, 2, 1, 3), "w2": weight(4, 16, 1, 1)},
        ),
        8,
    ),
    "tile_by_a_size": (
        build(
            [
                node("Shape", "x", "s"),
                node("Gather", "s zero", "n", axis=0),
                node("Concat", "n one one", "times", axis=0),
                node("Tile", "token times", "tokens"),
                node("MatMul", "x w", "h"),
                node("Concat", "tokens h", "z", axis=1),
                node("MatMul", "z v", "y"),
            ],
            {
                "zero": ints(0),
                "one": ints(1),
                "token": weight(1, 1, 6),
                "w": weight(12, 6),
                "v": weight(6, 2),
            },
            LINEAR,
        ),
        6,
    ),
    "attention_fused": (fused_attention(), 2 + 4 + 4),
    "attention_fused_scaled": (fused_attention(scale=0.3, is_causal=1, softcap=2.0), 2 + 4 + 4),
    "attention_fused_masked": (fused_attention(mask=weight(16, 16)), 2 + 4 + 4),
    "attention_fused_masked_heads": (fused_attention(mask=weight(1, 2, 16, 16)), 2 + 4 + 4),
    "attention_fused_grouped": (fused_attention(heads=4), 2 + 2 + 4 + 4),
}


@pytest.mark.parametrize("name", MODELS)
def test_compact_equals_masked(name: str) -> None:
    model, units = MODELS[name]
    _, groups = compact(model, units)
    assert not groups.analysis.opaque


def test_several_seeds_of_attention() -> None:
    for seed in range(5):
        compact(attention(), 10, seed)


FROM_THE_END: dict[str, list[NodeProto]] = {
    "slice": [node("Slice", "h first last axes", "s")],
    "slice_of_all_axes": [node("Slice", "h firsts lasts", "s")],
    "select": [node("Gather", "h one", "p", axis=1), node("Mul", "p two", "s")],
    "take": [node("Gather", "h positions", "s", axis=1)],
    "slice_to_a_computed_end": [
        node("Shape", "h", "shape"),
        node("Gather", "shape axes", "width"),
        node("Add", "width last", "end"),
        node("Slice", "h first end axes", "s"),
    ],
}


@pytest.mark.parametrize("name", FROM_THE_END)
def test_positions_that_count_from_the_end(name: str) -> None:
    """h (N, 6) -> s; each unit dropped alone moves the end of the axis."""
    nodes = [node("MatMul", "x w", "h"), *FROM_THE_END[name], node("MatMul", "h u", "y"), node("Identity", "s", "z")]
    weights = {
        "w": weight(8, 6), "u": weight(6, 3), "first": ints(0), "last": ints(-2), "axes": ints(1),
        "firsts": ints(0, 0), "lasts": ints(2**63 - 1, -2), "one": np.int64(-2), "positions": ints(-2, 1),
        "two": np.float32(2),
    }  # fmt: skip
    nodes[-1:] = [node("ReduceSum", "s axes", "z")] if name != "select" else nodes[-1:]
    graph, groups = analysed(build(nodes, weights, {"x": ("N", 8)}, ("y", "z")))
    assert len(groups.prunable) >= 4
    for unit in groups.prunable:
        alive = groups.alive(np.array([unit]))
        small, masked = eliminate(groups.analysis, alive), mask(groups.analysis, alive)
        for stretch in (0, 3):
            inputs = stretched(graph, stretch)
            for a, b in zip(run(masked, inputs), run(small, inputs), strict=True):
                np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-5)


def test_scale_that_the_shapes_imply_becomes_a_constant() -> None:
    graph = from_onnx(attention())
    assert {"Sqrt", "Cast"}.isdisjoint(n.kind for n in graph.nodes)


# ---------------------------------------------------------------------- sharing


def test_equal_initialisers_that_an_exporter_merged_are_apart_again() -> None:
    norms = [node("BatchNormalization", f"a{k} one zero zero one", f"n{k}") for k in (1, 2)]
    nodes = [node("Conv", "x w1", "a1"), norms[0], node("Conv", "n1 w2", "a2"), norms[1], node("Conv", "n2 w3", "y")]
    weights = {"w1": weight(8, 3, 1, 1), "w2": weight(8, 8, 1, 1), "w3": weight(2, 8, 1, 1)}
    model = build(nodes, weights | {"one": np.ones(8, np.float32), "zero": np.zeros(8, np.float32)})
    small, _ = compact(model, 16)
    names = [n for c in small.constants.values() for n in c.names]
    assert len(names) == len(set(names))
    assert {"one", "zero"} <= set(names)


def test_identity_of_an_initialiser_is_a_tensor_of_its_own() -> None:
    nodes = [
        node("Identity", "one", "norm2.scale"),
        node("Conv", "x w1", "a"),
        node("Mul", "a one", "b"),
        node("Conv", "b w2", "c"),
        node("Mul", "c norm2.scale", "d"),
        node("Conv", "d w3", "y"),
    ]
    weights = {"w1": weight(8, 3, 1, 1), "w2": weight(8, 8, 1, 1), "w3": weight(2, 8, 1, 1)}
    small, _ = compact(build(nodes, weights | {"one": np.ones((8, 1, 1), np.float32)}), 16)
    assert {"one", "norm2.scale"} <= {c.name for c in small.constants.values()}


def test_tied_embedding_stays_tied() -> None:
    nodes = [
        node("Cast", "x", "ids", to=TensorProto.INT64),
        node("Gather", "table ids", "e"),
        node("Relu", "e", "r"),
        node("Transpose", "table", "back"),
        node("MatMul", "r back", "y"),
    ]
    small, groups = compact(build(nodes, {"table": weight(20, 6)}, {"x": ("N", "S")}), 6)
    assert [c.name for c in small.constants.values() if c.data.dtype == np.float32] == ["table"]
    assert len(emit(small).graph.initializer) == 1
    assert not groups.analysis.opaque


def test_layer_called_twice_keeps_one_weight() -> None:
    nodes = [node("Conv", "x w b", "a"), node("Relu", "a", "r"), node("Conv", "r w b", "y")]
    graph, _ = analysed(build(nodes, {"w": weight(3, 3, 1, 1), "b": np.zeros(3, np.float32)}))
    assert sorted(c.name for c in graph.constants.values()) == ["b", "w"]


# ---------------------------------------------------------------------- what is left alone


def branch() -> ModelProto:
    """An If whose branches read a value, a constant that something else reads too, and one of their own."""
    made = [helper.make_tensor_value_info("r", TensorProto.FLOAT, None)]
    inner = [
        helper.make_graph([node("Mul", "h outer", "r")], "yes", [], made),
        helper.make_graph([node("Add", "h alone", "r")], "no", [], made),
    ]
    nodes = [
        *HEAD,
        node("ReduceSum", "x", "total", keepdims=0),
        node("Greater", "total zero", "positive"),
        node("If", "positive", "i", then_branch=inner[0], else_branch=inner[1]),
        node("Conv", "i w2", "p"),
        node("Relu", "p", "q"),
        node("Mul", "q outer2", "q2"),
        node("Conv", "q2 w3", "y"),
    ]
    weights = ENDS | {"zero": np.float32(0), "outer": weight(8, 1, 1), "alone": weight(8, 1, 1, seed=1)}
    return build(nodes, weights | {"w3": weight(2, 4, 1, 1), "outer2": weight(4, 1, 1)})


def test_branches_pin_what_they_read_from_outside() -> None:
    small, groups = compact(branch(), 4)
    assert {o.kind for o in groups.analysis.opaque} == {"If"}
    assert {"outer", "alone"} <= {t.name for t in emit(small).graph.initializer}


def test_loop_is_opaque_and_runs() -> None:
    body = helper.make_graph(
        [node("Identity", "c", "c2"), node("Mul", "s scale", "s2")],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
            helper.make_tensor_value_info("s", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("c2", TensorProto.BOOL, []),
            helper.make_tensor_value_info("s2", TensorProto.FLOAT, None),
        ],
    )
    nodes = [*HEAD, node("Loop", "times go h", "t", body=body), *TAIL, node("Conv", "y w3", "z")]
    weights = ENDS | {"times": np.int64(2), "go": np.asarray(True), "scale": weight(8, 1, 1), "w3": weight(2, 4, 1, 1)}
    _, groups = compact(build(nodes, weights, outputs=("z",)), 4)
    assert {o.kind for o in groups.analysis.opaque} == {"Loop"}


def test_reshape_by_data_is_left_alone() -> None:
    nodes = [
        *HEAD,
        node("Cast", "shape", "s", to=TensorProto.INT64),
        node("Reshape", "h s", "r"),
        node("Relu", "r", "y"),
    ]
    model = build(nodes, {"w1": ENDS["w1"]}, {"x": (2, 3, 8, 8), "shape": (2,)})
    _, groups = analysed(model)
    assert len(groups.prunable) == 0
    assert groups.analysis.opaque[0].why == "the shape of %r is not known"


def norm_with_one_scale(op_type: str, opset: int) -> ModelProto:
    nodes = [node("MatMul", "x a", "h"), node(op_type, "h g", "n"), node("MatMul", "n v", "y")]
    return build(nodes, {"a": weight(12, 6), "g": weight(1), "v": weight(6, 2)}, LINEAR, opset=opset)


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (norm_with_one_scale("RMSNormalization", 23), "the scale is broadcast"),
        (norm_with_one_scale("LayerNormalization", 18), "the scale is broadcast"),
        (packed_attention(), "attention with a cache, or on packed heads"),
        (fused_attention(4, weight(16, 16)), "grouped queries with a mask"),
    ],
    ids=["rms_norm", "layer_norm", "packed_heads", "grouped_with_mask"],
)
def test_forms_without_a_declaration_decline(model: ModelProto, why: str) -> None:
    _, groups = compact(model)
    assert [o.why for o in groups.analysis.opaque] == [why]


def test_sizes_stay_open_where_inference_forgets_a_default() -> None:
    graph = from_onnx(MODELS["mean_variance"][0])
    assert graph.inputs[0].dynamic == {0}


def test_model_that_the_runtime_cannot_run_is_pinned() -> None:
    model = build(
        [*HEAD, helper.make_node("Odd", ["h"], ["t"], domain="local"), *TAIL, node("Relu", "y", "z")],
        ENDS,
        outputs=("z",),
    )
    graph, groups = analysed(model)
    assert groups.analysis.opaque[0].kind == "local::Odd"
    assert len(groups.prunable) == 0
    assert graph.outputs[0].shape is None


def test_local_functions_are_inlined() -> None:
    body = [node("Relu", "a", "r"), node("Neg", "r", "b")]
    function = helper.make_function("local", "Act", ["a"], ["b"], body, [helper.make_opsetid("", 18)])
    model = build([*HEAD, helper.make_node("Act", ["h"], ["t"], domain="local"), *TAIL], ENDS, functions=[function])
    small, groups = compact(model, 8)
    assert not groups.analysis.opaque
    assert not emit(small).functions


# ---------------------------------------------------------------------- what the emitter keeps


def test_declarations_names_and_metadata_are_those_of_the_source() -> None:
    model = build(
        [node("Add", "second first", "sum"), node("Relu", "sum", "right"), node("Neg", "sum", "left")],
        {},
        {"first": ("batch", 4), "second": ("batch", 4)},
        ("left", "right"),
        producer_name="someone",
    )
    helper.set_model_props(model, {"key": "value"})
    made = emit(from_onnx(model))
    assert list(made.graph.input) == list(model.graph.input)
    assert [v.name for v in made.graph.output] == ["left", "right"]
    assert made.graph.output[0].type.tensor_type.shape.dim[1].dim_value == 4
    assert made.producer_name == "someone"
    assert [(p.key, p.value) for p in made.metadata_props] == [("key", "value")]
    assert not made.graph.value_info


def test_same_graph_same_bytes_and_the_source_is_untouched() -> None:
    model = attention()
    before = model.SerializeToString()
    small, _ = compact(model)
    assert emit(small).SerializeToString() == emit(small).SerializeToString()
    assert emit(from_onnx(model)).SerializeToString() == emit(from_onnx(model)).SerializeToString()
    assert model.SerializeToString() == before


def test_unnamed_and_doubly_named_nodes_get_names() -> None:
    nodes = [node("Relu", "x", "a"), node("Relu", "a", "b", name="n"), node("Relu", "b", "y", name="n")]
    assert [n.name for n in from_onnx(build(nodes, {})).nodes] == ["Relu_a", "n", "n_2"]


def test_initialisers_listed_as_inputs_are_constants() -> None:
    model = conv_net()
    model.graph.input.append(helper.make_tensor_value_info("w1", TensorProto.FLOAT, [8, 3, 3, 3]))
    model.ir_version = 3
    graph = from_onnx(model)
    assert [v.name for v in graph.inputs] == ["x"]
    assert emit(graph).ir_version >= 4


def test_output_that_is_an_input_or_a_constant() -> None:
    model = build([node("Relu", "x", "y")], {"w": weight(2)}, outputs=("y", "x", "w"))
    graph = from_onnx(model)
    _, same, stored = run(graph, [x := sample_inputs(graph, 0)[0]])
    np.testing.assert_array_equal(same, x)
    np.testing.assert_array_equal(stored, weight(2))


def test_opset_is_converted_or_refused() -> None:
    graph = from_onnx(conv_net())
    assert emit(graph, 20).opset_import[0].version == 20
    refused(lambda: emit(graph, 999), "opset 999")


def test_nodes_out_of_order_are_sorted() -> None:
    model = conv_net()
    nodes = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    compact(model, 14)


# ---------------------------------------------------------------------- sizes


def test_dynamic_axes_are_those_that_differ() -> None:
    graph = from_onnx(attention())
    assert graph.inputs[0].shape == (2, 16, 12)
    assert graph.inputs[0].dynamic == {0, 1}


def test_example_inputs_give_sizes() -> None:
    graph = from_onnx(attention(), {"x": np.zeros((1, 5, 12), np.float32)})
    assert graph.inputs[0].shape == (2, 5, 12)


def test_axis_that_cannot_vary_is_fixed_in_the_declaration() -> None:
    """S is declared open, but the table of positions has 16 rows."""
    nodes = [node("Add", "x position", "a"), node("MatMul", "a w", "h"), node("MatMul", "h v", "y")]
    weights = {"position": weight(16, 12), "w": weight(12, 6), "v": weight(6, 2)}
    graph = from_onnx(build(nodes, weights, LINEAR))
    assert graph.inputs[0].dynamic == {0}
    assert graph.source["fixed_sizes"] == {"S": 16}
    dims = emit(graph).graph.input[0].type.tensor_type.shape.dim
    assert (dims[0].dim_param, dims[1].dim_value) == ("N", 16)


# ---------------------------------------------------------------------- external data


@pytest.fixture
def beside(tmp_path: Path) -> Path:
    path = tmp_path / "net.onnx"
    onnx.save_model(conv_net(), str(path), save_as_external_data=True, location="net.data", size_threshold=0)
    return path


def test_external_data_is_mapped(beside: Path) -> None:
    graph = from_onnx(beside)
    stored = next(c.data for c in graph.constants.values() if c.name == "w1")
    assert isinstance(stored.base, np.memmap) or isinstance(stored, np.memmap)
    np.testing.assert_array_equal(stored, weight(8, 3, 3, 3))
    compact(beside, 14)
    assert read_model(beside).SerializeToString() == conv_net().SerializeToString()


def redirect(path: Path, location: str) -> None:
    model = onnx.load_model(str(path), load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    path.write_bytes(model.SerializeToString())


def test_missing_external_data(beside: Path) -> None:
    (beside.parent / "net.data").unlink()
    for call in (lambda: read_model(beside), lambda: from_onnx(beside)):
        refused(call, "net.data", "no such file")


@pytest.mark.parametrize("location", ["../net.data", "/etc/hostname", "a/../../net.data", "", "..\\net.data"])
def test_external_data_elsewhere(beside: Path, location: str) -> None:
    redirect(beside, location)
    for call in (lambda: read_model(beside), lambda: from_onnx(beside)):
        refused(call, "outside the model's folder")


def test_external_data_behind_a_link(beside: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    secret = tmp_path_factory.mktemp("elsewhere") / "secret"
    secret.write_bytes((beside.parent / "net.data").read_bytes())
    (beside.parent / "net.data").unlink()
    (beside.parent / "net.data").symlink_to(secret)
    refused(lambda: from_onnx(beside), "outside the model's folder")


def test_short_external_data(beside: Path) -> None:
    data = beside.parent / "net.data"
    data.write_bytes(data.read_bytes()[:100])
    refused(lambda: from_onnx(beside), "net.data", "needs")


def test_external_data_without_a_folder(beside: Path) -> None:
    refused(lambda: from_onnx(onnx.load_model(str(beside), load_external_data=False)), "folder is not known")


# ---------------------------------------------------------------------- refusals


def test_missing_file(tmp_path: Path) -> None:
    refused(lambda: read_model(tmp_path / "none.onnx"), "no such file")
    refused(lambda: from_onnx(tmp_path), "a folder")


@pytest.mark.parametrize("content", [b"", b"plain text, no protobuf at all", b"\x80\x04pickle"])
def test_other_files(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    refused(lambda: read_model(path), str(path))


def test_truncated_file(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    whole = conv_net().SerializeToString()
    for size in (len(whole) // 2, len(whole) - 3, 40):
        path.write_bytes(whole[:size])
        refused(lambda: read_model(path), str(path))


def changed(edit: Callable[[ModelProto], Any]) -> ModelProto:
    model = conv_net()
    edit(model)
    return model


def _cut_weight(model: ModelProto) -> None:
    model.graph.initializer[0].raw_data = model.graph.initializer[0].raw_data[:-4]


def _absurd_weight(model: ModelProto) -> None:
    model.graph.initializer[0].dims[0] = 1 << 62


def _absurd_input(model: ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 1 << 40


def _huge_input(model: ModelProto) -> None:
    for dim in model.graph.input[0].type.tensor_type.shape.dim:
        dim.dim_value = 1 << 20


def _cycle(model: ModelProto) -> None:
    model.graph.node[0].input[0] = "c"


def _undefined(model: ModelProto) -> None:
    model.graph.node[0].input[0] = "nowhere"


def _twice(model: ModelProto) -> None:
    model.graph.node[1].output[0] = "a"


def _no_output(model: ModelProto) -> None:
    model.graph.output[0].name = "nowhere"


def _no_initialiser(model: ModelProto) -> None:
    del model.graph.initializer[0]


def _unknown_op(model: ModelProto) -> None:
    model.graph.node[1].op_type = "Nonsense"


def _no_opset(model: ModelProto) -> None:
    del model.opset_import[:]


def _future_opset(model: ModelProto) -> None:
    model.opset_import[0].version = 999


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (_cut_weight, "bytes"),
        (_absurd_weight, "absurd"),
        (_absurd_input, "absurd"),
        (_huge_input, "absurd"),
        (_cycle, "cycle"),
        (_undefined, "nowhere"),
        (_twice, "computed twice"),
        (_no_output, "never computed"),
        (_no_initialiser, "w1"),
        (_unknown_op, "Nonsense"),
        (_no_opset, "not a valid ONNX model"),
        (_future_opset, "opset 999"),
    ],
)
def test_invalid_models(edit: Callable[[ModelProto], Any], words: str) -> None:
    refused(lambda: from_onnx(changed(edit)), words)


def test_example_inputs_that_do_not_fit() -> None:
    refused(lambda: from_onnx(conv_net(), {"z": np.zeros(1)}), "no input 'z'")
    refused(lambda: from_onnx(conv_net(), {"x": np.zeros((2, 4, 8, 8))}), "[2, 4, 8, 8]")
    refused(lambda: from_onnx(conv_net(), {"x": np.zeros(3)}), "shape [3]")


def test_integers_stay_below_the_tables_that_they_point_into() -> None:
    model = build(
        [
            node("Cast", "ids", "wide", to=TensorProto.INT64),
            node("Gather", "words wide", "e"),
            node("Gather", "places ids", "p"),
            node("Add", "e p", "y"),
        ],
        {"words": weight(900, 6), "places": weight(40, 6)},
    )
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("ids", TensorProto.INT32, ("N", 50)))
    (ids,) = sample_inputs(from_onnx(model), seed=0)
    assert 2 < ids.max() < 40


def test_integers_of_each_input_stay_below_its_own_tables() -> None:
    model = build(
        [
            node("Unsqueeze", "ids last", "wide"),
            node("Squeeze", "wide last", "back"),
            node("Gather", "words back", "e"),
            node("Gather", "places at", "p"),
            node("Add", "e p", "y"),
        ],
        {"words": weight(900, 6), "places": weight(40, 6), "last": np.array([2])},
    )
    del model.graph.input[:]
    model.graph.input.extend(
        helper.make_tensor_value_info(n, TensorProto.INT64, ("N", 50)) for n in ("ids", "at", "spare")
    )
    ids, at, spare = sample_inputs(from_onnx(model), seed=0)
    assert 40 < ids.max() < 900 and 2 < at.max() < 40 and spare.max() == 1
