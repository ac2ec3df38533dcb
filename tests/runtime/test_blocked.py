"""Weights of convolutions in blocks: the same numbers, read back bit by bit, in any ONNX Runtime."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from prunec.runtime.blocked import Blocks, through_blocks, without_blocks
from prunec.runtime.portfolio import Portfolio
from prunec.runtime.session import Session
from prunec.runtime.store import Entry, whole, writing

from .onnx_models import finish


def convolutions(*widths: int, groups: int = 1) -> onnx.ModelProto:
    """3x3 convolutions of these widths, the last in groups; x (batch, first, 8, 8) -> y."""
    rng = np.random.default_rng(0)
    weights, nodes, x = [], [], "x"
    for k, (i, o) in enumerate(pairwise(widths)):
        last = k == len(widths) - 2
        g = groups if last else 1
        weights.append(numpy_helper.from_array(rng.standard_normal((o, i // g, 3, 3), dtype=np.float32), f"w{k}"))
        y = "y" if last else f"h{k}"
        nodes.append(helper.make_node("Conv", [x, f"w{k}"], [y], f"conv{k}", pads=[1] * 4, group=g))
        x = y
    return finish(
        nodes,
        {"x": (TensorProto.FLOAT, ["batch", widths[0], 8, 8])},
        {"y": (TensorProto.FLOAT, ["batch", widths[-1], 8, 8])},
        weights,
    )


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 5), st.integers(1, 3), st.sampled_from([8, 16]), st.booleans())
def test_blocks_hold_the_weight(o: int, i: int, h: int, size: int, both: bool) -> None:
    i = i * size if both else i
    weight = np.random.default_rng(0).standard_normal((o, i, h, h), dtype=np.float32)
    blocks = Blocks((o, i, h, h), size, both)
    made = blocks.made(weight)
    assert made.shape == blocks.dims
    assert np.array_equal(blocks.undone(made), weight)


@pytest.mark.parametrize("size", [8, 16])
@pytest.mark.parametrize("widths", [(3, 32, 64), (3, 20, 24), (16, 9, 40)])
def test_the_model_reads_blocks_and_comes_back(widths: tuple[int, ...], size: int) -> None:
    model = convolutions(*widths)
    stored = set()
    for tensor in model.graph.initializer:
        weight = numpy_helper.to_array(tensor)
        o, i, h, w = weight.shape
        stored.add(Blocks((o, i, h, w), size, i % size == 0).made(weight).tobytes())
    changed, found = through_blocks(model, stored.__contains__)
    onnx.checker.check_model(changed, full_check=True)
    assert {t.raw_data for t in changed.graph.initializer if len(t.raw_data) >= 1024} <= stored
    x = {"x": np.random.default_rng(1).standard_normal((2, widths[0], 8, 8), dtype=np.float32)}
    np.testing.assert_array_equal(Session(changed).run(x)["y"], Session(model).run(x)["y"])
    assert without_blocks(changed, found).SerializeToString() == model.SerializeToString()


def test_what_is_not_stored_stays_as_it_is() -> None:
    model = convolutions(3, 32, 64)
    assert through_blocks(model, lambda raw: False) == (model, {})
    assert without_blocks(model, {}) is model


@pytest.mark.parametrize(
    ("widths", "groups"), [((3, 32, 64, 64), 1), ((3, 32, 32), 32), ((3, 20, 36), 1), ((16, 32, 64), 4)]
)
def test_a_portfolio_holds_each_number_once(tmp_path: Path, widths: tuple[int, ...], groups: int) -> None:
    """However ONNX Runtime lays them out on this machine."""
    model = convolutions(*widths, groups=groups)
    with writing(tmp_path) as store:
        store.add([Entry("one", model)])
        manifest = store.commit()
    found = {t.name: t.raw_data for t in whole(manifest, "one").graph.initializer}
    assert found == {t.name: t.raw_data for t in model.graph.initializer}
    if all(width % 16 == 0 for width in widths[1:]):  # others ONNX Runtime may transform, and they are stored twice
        assert manifest.pack.end < 1.3 * sum(map(len, found.values())) + 8192
    x = {"x": np.random.default_rng(1).standard_normal((2, widths[0], 8, 8), dtype=np.float32)}
    wanted = Session(model).run(x)["y"]
    np.testing.assert_allclose(Portfolio.open(tmp_path).run(x)["y"], wanted, atol=1e-3)
    np.testing.assert_allclose(Session(tmp_path / manifest["one"].stored.file).run(x)["y"], wanted, atol=1e-3)


def older(model: onnx.ModelProto, how: str) -> onnx.ModelProto:
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    if how.startswith("opset"):
        changed.opset_import[0].version = int(how.removeprefix("opset "))
    if how in ("inputs", "ir 3"):
        changed.ir_version = 3 if how == "ir 3" else 8
        for tensor in model.graph.initializer:
            changed.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    if how == "names":
        changed.graph.node.append(helper.make_node("Identity", ["x"], ["w1/turned"]))
    return changed


@pytest.mark.parametrize("how", ["opset 7", "opset 9", "opset 17", "ir 3", "inputs", "names"])
def test_whatever_is_stored_loads(tmp_path: Path, how: str) -> None:
    model = older(convolutions(3, 32, 60), how)
    with writing(tmp_path) as store:
        store.add([Entry("one", model)])
        manifest = store.commit()
    x = {"x": np.random.default_rng(1).standard_normal((2, 3, 8, 8), dtype=np.float32)}
    wanted = Session(model).run(x)["y"]
    np.testing.assert_allclose(Session(tmp_path / manifest["one"].stored.file).run(x)["y"], wanted, atol=1e-3)
    np.testing.assert_allclose(Session(whole(manifest, "one")).run(x)["y"], wanted, atol=1e-3)
    assert bool(manifest["one"].stored.blocks) is (how == "opset 17" or how == "names")
