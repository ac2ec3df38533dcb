"""Packed forms: the tensor comes back exactly, in numpy, in ONNX Runtime and out of a file; and it is smaller."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from prunec.ir.emit.onnx_external import Emitted
from prunec.ir.emit.onnx_packed import packed
from prunec.ir.frontends.onnx_packed import unpacked
from prunec.ir.packing import Bitmask, Form, Packing, Palette, Pattern, Sparse, bits

Array = NDArray[Any]
KINDS = {np.float32: TensorProto.FLOAT, np.float16: TensorProto.FLOAT16, np.float64: TensorProto.DOUBLE}


def products(tensors: dict[str, Array], opset: int) -> onnx.ModelProto:
    """A model that multiplies each tensor by its input, a single number."""
    kinds = {n: KINDS[t.dtype.type] for n, t in tensors.items()}
    nodes = [helper.make_node("Mul", [n, f"{n}_x"], [f"{n}_y"]) for n in tensors]
    inputs = [helper.make_tensor_value_info(f"{n}_x", kinds[n], [1]) for n in tensors]
    outputs = [helper.make_tensor_value_info(f"{n}_y", kinds[n], None) for n in tensors]
    held = [numpy_helper.from_array(t, n) for n, t in tensors.items()]
    graph = helper.make_graph(nodes, "products", inputs, outputs, held)
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=12 if opset >= 25 else 10
    )


def subjects(dtype: Any) -> tuple[dict[str, Array], dict[str, str], Packing]:
    """Tensors, the form that each is smallest in, and what has to be known for it."""
    rng = np.random.default_rng(0)
    dense = rng.standard_normal((64, 32, 3, 3)).astype(dtype)
    rows, each = Pattern(1, 4, 4), Pattern(2, 4)
    flat = rng.standard_normal((96, 128)).astype(dtype)
    flat *= each.best(np.abs(flat))
    scale = rng.random((64, 1, 1, 1)).astype(np.promote_types(dtype, np.float32))
    known = Palette.of(
        (64, 32, 3, 3), rng.integers(0, 13, (4, 2304)), rng.standard_normal((4, 13, 2)).astype(dtype), scale
    )
    few = rng.standard_normal(16).astype(dtype)
    tensors = {
        "bitmask": dense * (rng.random(dense.shape) < 0.1),
        "rows": dense * rows.best(np.abs(dense)),
        "flat": flat,
        "flat_transposed": np.ascontiguousarray(flat.T),
        "few": rng.choice(few, dense.shape),
        "three": rng.choice(few[:3], (65, 133)),
        "two": rng.choice(few[:2], (651, 33)),
        "known": known.dense(),
        "dense": dense,
        "masked_palette": rng.choice(few, dense.shape) * (rng.random(dense.shape) < 0.1),
        "small": np.zeros((8, 8), dtype),
    }
    nm, palette = dict.fromkeys(("rows", "flat", "flat_transposed"), "nm"), ("few", "three", "two", "known")
    forms = {"bitmask": "bitmask", "masked_palette": "bitmask", **nm, **dict.fromkeys(palette, "palette")}
    return tensors, forms, Packing((rows, each), (known,))


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
@pytest.mark.parametrize("opset", [13, 18, 20, 21, 25])
def test_a_file_is_smaller_and_runs_the_same(opset: int, dtype: Any) -> None:
    tensors, forms, packing = subjects(dtype)
    model = products(tensors, opset)
    small, count = packed(Emitted(model), packing)
    assert {form: list(forms.values()).count(form) for form in ("nm", "palette", "bitmask")} | {"dense": 1} == count
    assert small.proto.ByteSize() < 0.4 * model.ByteSize()
    session = ort.InferenceSession(small.proto.SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run(None, {f"{n}_x": np.ones(1, t.dtype) for n, t in tensors.items()})
    for (name, tensor), result in zip(tensors.items(), found, strict=True):
        np.testing.assert_array_equal(result, tensor, err_msg=name)


def test_a_model_in_an_old_opset_stays_as_it_is() -> None:
    tensors, _, packing = subjects(np.float32)
    model = Emitted(products(tensors, 12))
    same, count = packed(model, packing)
    assert same is model and count == {"dense": len(tensors) - 1}


def test_a_file_is_unpacked_where_it_is_read() -> None:
    tensors, _, packing = subjects(np.float32)
    model = products(tensors, 20)
    small, _ = packed(Emitted(model), packing)
    back, again = unpacked(small.proto)
    assert again is not None and set(again.patterns) == {Pattern(2, 4), Pattern(1, 4, 4)}
    written = [packed(Emitted(m), p)[0].proto.graph.initializer for m, p in ((model, packing), (back, again))]
    one, other = ({t.name: t.SerializeToString() for t in held} for held in written)
    assert one == other
    assert [n.op_type for n in back.graph.node] == [n.op_type for n in model.graph.node]
    held = {t.name: numpy_helper.to_array(t) for t in back.graph.initializer}
    assert held.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(held[name], tensor)
    assert unpacked(model) == (model, None)


def test_the_runtime_computes_tensors_once(tmp_path: Any) -> None:
    """Nothing of the packed form is left in the graph that runs."""
    tensors, _, packing = subjects(np.float32)
    small, _ = packed(Emitted(products(tensors, 20)), packing)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    ort.InferenceSession(small.proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    assert {n.op_type for n in onnx.load(tmp_path / "optimised.onnx").graph.node} == {"Mul"}


@given(st.integers(0, 300), st.sampled_from(bits.WIDTHS), st.randoms(use_true_random=False))
def test_small_integers(count: int, width: int, random: Any) -> None:
    codes = np.array([random.randrange(1 << width) for _ in range(count)], np.uint8)
    data = bits.packed(codes, width)
    assert data.nbytes == -(-count * width // 8)
    np.testing.assert_array_equal(bits.unpacked(data, width, count), codes)


@settings(deadline=None)
@given(
    st.sampled_from([(1, 2, 1), (2, 4, 1), (1, 4, 2), (3, 8, 4), (1, 16, 1)]),
    st.lists(st.integers(1, 3), min_size=2, max_size=4),
    st.integers(0, 1000),
)
def test_patterns(pattern: tuple[int, int, int], sizes: list[int], seed: int) -> None:
    """The best of each block stay, the same in all rows of it, and the form gives the tensor back."""
    n, m, v = pattern
    rng = np.random.default_rng(seed)
    tensor = rng.standard_normal((sizes[0] * v, sizes[1] * m, *sizes[2:]))
    found = Pattern(n, m, v)
    np.testing.assert_array_equal(found.tensor(found.blocks(tensor)), tensor)
    kept = found.best(np.abs(tensor))
    blocks = found.blocks(kept)
    assert (blocks.sum(-1) == n).all()
    assert (blocks == blocks[..., :1, :]).all()
    sums = found.blocks(np.abs(tensor)).sum(-2)
    least = np.where(blocks[..., 0, :], sums, np.inf).min(-1)
    assert (np.where(blocks[..., 0, :], -np.inf, sums).max(-1) <= least).all()
    masked = tensor * kept
    assert found.holds(masked)
    assert not Pattern(n, m, v).holds(tensor)
    assert_same(Sparse.of(masked, found), masked)
    assert_same(Bitmask.of(masked), masked)


def test_what_a_pattern_does_not_divide() -> None:
    assert not Pattern(2, 4).fits((8, 6))
    assert not Pattern(1, 4, 4).fits((6, 8))
    assert not Pattern(2, 4).fits((8,))
    assert str(Pattern(2, 4)) == "2:4" and str(Pattern(1, 4, 8)) == "8:1:4"


def test_a_tensor_of_many_numbers_is_no_palette() -> None:
    assert Palette.found(np.arange(257.0)) is None
    found = Palette.found(np.arange(256.0))
    assert found is not None
    assert_same(found, np.arange(256.0))


def assert_same(form: Form, tensor: Array) -> None:
    np.testing.assert_array_equal(form.dense(), tensor)
    assert form.dtype == tensor.dtype and tuple(form.shape) == tensor.shape
    assert form.size_bytes == sum(a.nbytes for a in form.arrays().values())


def _packed_one() -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    tensor = rng.integers(0, 4, (64, 64)).astype(np.float32)
    made, count = packed(Emitted(products({"fc.weight": tensor}, 21)), Packing())
    assert count["palette"] == 1
    return made.proto


def test_a_constant_that_others_read_stays() -> None:
    model = _packed_one()
    table = next(t for t in model.graph.initializer if t.name.endswith(".table"))
    model.graph.node.append(helper.make_node("Identity", [table.name], ["also"]))
    model.graph.output.append(helper.make_tensor_value_info("also", TensorProto.FLOAT, None))
    dense, _ = unpacked(model)
    session = ort.InferenceSession(dense.SerializeToString())
    np.testing.assert_array_equal(
        session.run(["also"], {"fc.weight_x": np.ones(1, np.float32)})[0].ravel(), [0, 1, 2, 3]
    )


def test_nodes_of_other_kinds_are_not_run() -> None:
    model = _packed_one()
    node = next(n for n in model.graph.node if n.name.startswith("prunec"))
    node.op_type = "Loop"
    assert unpacked(model)[0] is model


def test_a_tensor_whose_parts_have_names_already_stays() -> None:
    rng = np.random.default_rng(0)
    one, other = (rng.integers(0, 4, (64, 64)).astype(np.float32) for _ in range(2))
    made, count = packed(Emitted(products({"fc": one, "fc.table": other}, 21)), Packing())
    assert count == {"dense": 1, "palette": 1}
    ort.InferenceSession(made.whole().SerializeToString())
