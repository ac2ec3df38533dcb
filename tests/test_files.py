from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from prunec.files import check_folder, check_writable, write_model, write_whole
from prunec.ir.errors import EnvironmentProblem


def model_of(width: int) -> onnx.ModelProto:
    weight = numpy_helper.from_array(np.arange(width * width, dtype=np.float32).reshape(width, width), "w")
    value = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", width]) for n in ("x", "y")]
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", value[:1], value[1:], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")
    write_whole(path, "new")
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"half"
        raise RuntimeError("the other half")

    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError):
        write_whole(path, chunks())
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    write_whole(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"


def test_a_device_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    check_writable("/dev/null")
    write_whole("/dev/null", "anything")
    assert not Path("/dev/null").is_file()


@pytest.mark.parametrize("name", ["absent/a.onnx", "", "file/a.onnx"])
def test_a_place_that_cannot_be_written_is_an_environment_problem(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentProblem, match="cannot write"):
        check_writable(tmp_path / name)
    with pytest.raises(EnvironmentProblem, match="cannot write"):
        write_whole(tmp_path / name, b"")


def test_checking_leaves_nothing_behind(tmp_path: Path) -> None:
    check_writable(tmp_path / "a.onnx")
    check_folder(tmp_path / "new" / "deep")
    assert os.listdir(tmp_path) == []


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for name in ("file", "file/deep"):
        with pytest.raises(EnvironmentProblem):
            check_folder(tmp_path / name)


def test_a_model_reads_back_from_one_file(tmp_path: Path) -> None:
    assert write_model(tmp_path / "m.onnx", model_of(4)) == [tmp_path / "m.onnx"]
    assert onnx.load(tmp_path / "m.onnx") == model_of(4)


def test_a_model_reads_back_from_two_files(tmp_path: Path) -> None:
    model = model_of(32)
    assert write_model(tmp_path / "m.onnx", model, external=True) == [tmp_path / "m.onnx", tmp_path / "m.onnx.data"]
    assert sorted(os.listdir(tmp_path)) == ["m.onnx", "m.onnx.data"]
    onnx.checker.check_model(str(tmp_path / "m.onnx"))
    loaded = onnx.load(tmp_path / "m.onnx")
    found, expected = (numpy_helper.to_array(m.graph.initializer[0]) for m in (loaded, model))
    np.testing.assert_array_equal(found, expected)


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.onnx", "b.onnx"):
        write_model(tmp_path / name, model_of(8))
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
