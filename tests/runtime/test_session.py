from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from prunec.ir.emit import onnx_external as external
from prunec.ir.errors import ModelError, UsageError
from prunec.runtime.session import Session, declared_inputs, feeds_for

from .onnx_models import identity, linear


def test_model_bytes_and_path_give_the_same_result(tmp_path: Path) -> None:
    model = linear()
    onnx.save(model, tmp_path / "m.onnx")
    feeds = feeds_for(model, seed=1)
    results = [Session(m).run(feeds)["y"] for m in (model, model.SerializeToString(), tmp_path / "m.onnx")]
    weight = onnx.numpy_helper.to_array(model.graph.initializer[0])
    for found in results:
        np.testing.assert_array_equal(found, results[0])
        np.testing.assert_allclose(found, feeds["x"] @ weight, rtol=1e-5)


def test_a_missing_file_is_a_model_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"there is no file .*nothing\.onnx"):
        Session(tmp_path / "nothing.onnx")


@pytest.mark.parametrize("junk", [b"", b"no protobuf at all", linear().SerializeToString()[:60]])
def test_a_broken_file_is_a_model_error(tmp_path: Path, junk: bytes) -> None:
    (tmp_path / "m.onnx").write_bytes(junk)
    with pytest.raises(ModelError):
        Session(tmp_path / "m.onnx")


def test_wrong_feeds_are_named_with_their_shapes() -> None:
    with pytest.raises(ModelError, match=r"x: float32\[2, 3\]"):
        Session(linear(width=4)).run({"x": np.zeros((2, 3), np.float32)})


def test_the_tensors_of_a_large_model_are_lent(monkeypatch: pytest.MonkeyPatch) -> None:
    model = linear(width=32)
    feeds = feeds_for(model)
    expected = Session(model).run(feeds)["y"]
    monkeypatch.setattr(external, "is_large", lambda model: True)
    np.testing.assert_array_equal(Session(model).run(feeds)["y"], expected)


def test_split_leaves_the_model_alone_and_aligns_tensors() -> None:
    model = linear(width=32, depth=3)
    before = model.SerializeToString(deterministic=True)
    slim, chunks = external.split(model, "data")
    assert model.SerializeToString(deterministic=True) == before
    offsets = [int(e.value) for t in slim.graph.initializer for e in t.external_data if e.key == "offset"]
    assert offsets == [0, 4096, 8192]
    data = b"".join(chunks)
    assert data[4096 : 4096 + 4096] == model.graph.initializer[1].raw_data


def test_feeds_are_the_same_for_a_seed_and_differ_between_seeds() -> None:
    model = linear()
    np.testing.assert_array_equal(feeds_for(model, 3)["x"], feeds_for(model, 3)["x"])
    assert not np.array_equal(feeds_for(model, 3)["x"], feeds_for(model, 4)["x"])


def test_undeclared_sizes_have_stated_defaults() -> None:
    model = identity(
        image=(TensorProto.FLOAT, ["n", 3, "h", "w"]),
        tokens=(TensorProto.INT64, ["n", "t"]),
        mask=(TensorProto.BOOL, ["n", "t"]),
        fixed=(TensorProto.FLOAT16, [5, 6]),
    )
    feeds = feeds_for(model, batch=3)
    assert {k: v.shape for k, v in feeds.items()} == {
        "image": (3, 3, 224, 224),
        "tokens": (3, 16),
        "mask": (3, 16),
        "fixed": (5, 6),
    }
    assert [v.dtype.name for v in feeds.values()] == ["float32", "int64", "bool", "float16"]
    assert feeds["tokens"].min() >= 0
    Session(model).run(feeds)


def test_a_given_size_of_a_symbol_holds_for_every_input() -> None:
    model = identity(tokens=(TensorProto.INT64, ["n", "t"]), mask=(TensorProto.BOOL, ["n", "t"]))
    assert feeds_for(model, sizes={"mask": (4, 9)})["tokens"].shape == (4, 9)


def test_a_session_and_its_model_declare_the_same_inputs() -> None:
    model = identity(a=(TensorProto.FLOAT, ["n", 3]), b=(TensorProto.INT32, [1, "t"]), c=(TensorProto.DOUBLE, [2]))
    assert declared_inputs(Session(model)) == declared_inputs(model)


@pytest.mark.parametrize("sizes", [{"x": (2, 5)}, {"x": (2,)}, {"y": (2, 4)}])
def test_sizes_that_contradict_the_model_are_usage_errors(sizes: dict[str, tuple[int, ...]]) -> None:
    with pytest.raises(UsageError):
        feeds_for(linear(width=4), sizes=sizes)
