from __future__ import annotations

import contextlib
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from prunec.ir.errors import ModelError, UsageError
from prunec.models import OnnxFile
from prunec.pt2 import load_program
from prunec.sources import InputShape, load_source

FACTORIES = """
import torch
def module(): return torch.nn.Linear(3, 2)
def with_inputs(): return torch.nn.Linear(3, 2), (torch.zeros(2, 3),)
def with_tensor(): return torch.nn.Linear(3, 2), torch.zeros(2, 3)
def broken(): raise RuntimeError("no weights here")
def number(): return 7
def leaves(): raise SystemExit(1)
ready = torch.nn.Linear(3, 2)
class Net(torch.nn.Linear):
    def __init__(self): super().__init__(3, 2)
"""


@pytest.fixture
def factories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prunec_test_factories.py").write_text(FACTORIES)
    return "prunec_test_factories.py"


@pytest.mark.parametrize("name", ["module", "with_inputs", "with_tensor", "ready", "Net"])
def test_a_factory_in_a_file(factories: str, name: str) -> None:
    model, inputs = load_source(f"{factories}:{name}")
    assert isinstance(model, torch.nn.Linear)
    if name.startswith("with"):
        assert isinstance(inputs, tuple)
        assert inputs[0].shape == (2, 3)
    else:
        assert inputs is None


def test_a_factory_in_a_module(factories: str) -> None:
    model, _ = load_source(f"{factories.removesuffix('.py')}:module")
    assert isinstance(model, torch.nn.Linear)


def test_the_seed_makes_the_weights(factories: str) -> None:
    one, same, other = (load_source(f"{factories}:module", seed=s)[0].weight for s in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("broken", "RuntimeError: no weights here"),
        ("number", "gives a int, no model"),
        ("leaves", "SystemExit"),
        ("modul", "has no 'modul'"),
    ],
)
def test_a_factory_that_gives_no_model(factories: str, name: str, message: str) -> None:
    with pytest.raises(ModelError) as caught:
        load_source(f"{factories}:{name}")
    assert message in str(caught.value)


def test_a_module_that_does_not_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prunec_test_broken.py").write_text("import absent_package")
    for source in ("prunec_test_broken:f", "prunec_test_broken.py:f"):
        with pytest.raises(ModelError, match="absent_package"):
            load_source(source)


def test_torchvision_models_and_close_names() -> None:
    pytest.importorskip("torchvision", reason="the models are torchvision's")
    model, inputs = load_source("torchvision:squeezenet1_1")
    assert not model.training
    assert inputs[0].shape == (2, 3, 224, 224)
    with pytest.raises(ModelError, match="resnet18"):
        load_source("torchvision:resnet81")


def test_inputs_for_torch_sources(factories: str) -> None:
    _, given = load_source(f"{factories}:module", [InputShape.parse("2x3"), InputShape.parse("4x5:int")])
    assert [t.shape for t in given] == [(2, 3), (4, 5)]
    assert given[1].dtype == torch.int64
    _, named = load_source(f"{factories}:module", [InputShape.parse("input:2x3")])
    assert named["input"].shape == (2, 3)
    with pytest.raises(UsageError, match="a name for each shape"):
        load_source(f"{factories}:module", [InputShape.parse("input:2x3"), InputShape.parse("2x3")])


def test_input_names_may_hold_colons() -> None:
    assert InputShape.parse("x:0:2x3:int64") == InputShape((2, 3), "x:0", "int")
    assert InputShape.parse("7") == InputShape((7,))


def test_inputs_for_onnx_sources(tmp_path: Path) -> None:
    values = [helper.make_tensor_value_info(n, TensorProto.INT64, ["n", "t"]) for n in ("a", "b", "y")]
    graph = helper.make_graph([helper.make_node("Add", ["a", "b"], ["y"])], "g", values[:2], values[2:])
    path = str(tmp_path / "m.onnx")
    onnx.save(helper.make_model(graph), path)
    file, inputs = load_source(path)
    assert isinstance(file, OnnxFile)
    assert file.path == Path(path)
    assert [v.name for v in file.proto.graph.input] == ["a", "b"]
    assert inputs is None
    _, feeds = load_source(path, [InputShape((2, 7))])
    assert {k: (v.shape, v.dtype) for k, v in feeds.items()} == dict.fromkeys("ab", ((2, 7), np.dtype(np.int64)))
    with pytest.raises(UsageError, match="no input 'c'") as error:
        load_source(path, [InputShape((2, 7), "c")])
    assert error.value.hint == "inputs: a, b"
    with pytest.raises(UsageError, match="fewer inputs"):
        load_source(path, [InputShape((2, 7))] * 3)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pt2") / "m.pt2"
    batch = torch.export.Dim("batch", min=2)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4)).eval()
    exported = torch.export.export(model, (torch.randn(2, 3),), dynamic_shapes=({0: batch},))
    torch.export.save(exported, path)
    return path


def test_an_exported_program_loads(program: Path) -> None:
    found, inputs = load_source(str(program))
    assert isinstance(found, torch.export.ExportedProgram)
    assert inputs is None
    assert found.module()(torch.randn(5, 3)).shape == (5, 4)


def test_shapes_for_an_exported_program_are_refused(program: Path) -> None:
    with pytest.raises(UsageError, match=r"--input does not go with .*m\.pt2") as error:
        load_source(str(program), [InputShape((2, 3))])
    assert "inputs of its own" in error.value.hint


@pytest.mark.parametrize(
    ("source", "hint"),
    [
        ("torchvison:resnet18", "did you mean 'torchvision'? --debug shows where"),
        ("prunec_test_factories.py:modul", "did you mean 'module'? a factory is a function"),
        ("prunec_test_factory.py:module", "did you mean 'prunec_test_factories.py'? give an .onnx"),
    ],
)
def test_a_source_that_is_nearly_right(factories: str, source: str, hint: str) -> None:
    with pytest.raises(ModelError) as error:
        load_source(source)
    assert error.value.hint.startswith(hint)


class Bomb:
    """A pickle that leaves a file behind when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def rewritten(source: Path, target: Path, change: Callable[[str, bytes], bytes], **added: bytes) -> Path:
    """A copy of a zip with some records changed and some added."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
        for name, data in added.items():
            new.writestr(f"m/{name}", data)
    return target


def edit_json(name: str, data: bytes, record: str, old: str, new: str) -> bytes:
    if not name.endswith(record):
        return data
    text = data.decode()
    assert old in text
    return text.replace(old, new).encode()


@pytest.mark.parametrize("protocol", [2, 4])
def test_example_inputs_are_not_unpickled(program: Path, tmp_path: Path, protocol: int) -> None:
    bomb = tmp_path / "exploded"
    torch.save(Bomb(bomb), tmp_path / "bomb.pt", pickle_protocol=protocol)
    evil = (tmp_path / "bomb.pt").read_bytes()
    path = rewritten(program, tmp_path / "m.pt2", lambda n, d: evil if "sample_inputs" in n else d)
    if protocol == 2:
        with contextlib.suppress(Exception):  # it does not matter what torch makes of the result
            torch.export.load(path)
        assert bomb.is_dir(), "the oracle: torch alone runs the pickle"
        bomb.rmdir()
    with pytest.raises(ModelError):
        load_program(path)
    assert not bomb.exists()


@pytest.mark.parametrize(
    "record", ["data/constants/opaque_obj_0", "data/constants/custom_obj_0", "data/weights/model.pt"]
)
def test_records_that_are_pickles_are_refused(program: Path, tmp_path: Path, record: str) -> None:
    bomb = tmp_path / "exploded"
    path = rewritten(program, tmp_path / "m.pt2", lambda n, d: d, **{record: pickle.dumps(Bomb(bomb))})
    with pytest.raises(ModelError, match="no plain tensor"):
        load_program(path)
    assert not bomb.exists()


@pytest.mark.parametrize(
    ("record", "old", "new", "message"),
    [
        ("weights_config.json", '"use_pickle": false', '"use_pickle": true', "stores a tensor as a pickle"),
        ("model.json", "torch.ops.aten.linear.default", "torch.hub.load", "is no operator"),
        ("model.json", '"expr_str": "', '"expr_str": "__import__(\'os\').getcwd() + ', "symbolic size"),
        ("model.json", '"builtins.tuple', '"__enum__', "would import a module"),
    ],
)
def test_graphs_that_run_code_are_refused(
    program: Path, tmp_path: Path, record: str, old: str, new: str, message: str
) -> None:
    def change(name: str, data: bytes) -> bytes:
        if record == "model.json" and name.endswith("/models/model.json") and old == '"builtins.tuple':
            tree = json.loads(data)
            tree["graph_module"]["module_call_graph"][0]["signature"]["in_spec"] = '{"__enum__": true}'
            return json.dumps(tree).encode()
        return edit_json(name, data, record, old, new)

    with pytest.raises(ModelError, match=message):
        load_program(rewritten(program, tmp_path / "m.pt2", change))


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04 cut off", b"text"])
def test_a_broken_archive_is_a_model_error(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "m.pt2").write_bytes(data)
    with pytest.raises(ModelError, match=r"m\.pt2"):
        load_program(tmp_path / "m.pt2")


def test_a_truncated_program_is_a_model_error(program: Path, tmp_path: Path) -> None:
    data = program.read_bytes()
    (tmp_path / "m.pt2").write_bytes(data[: len(data) // 2])
    with pytest.raises(ModelError):
        load_program(tmp_path / "m.pt2")


def test_a_state_dict_named_pt2_is_a_model_error(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "m.pt2")
    with pytest.raises(ModelError, match="pickle"):
        load_source(str(tmp_path / "m.pt2"))
