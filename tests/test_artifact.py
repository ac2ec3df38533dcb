"""What is said of a place that holds no artifact."""

from __future__ import annotations

import pickle
from pathlib import Path

import onnx
import pytest

import prunec
from prunec.ir.errors import ModelError

from .runtime.onnx_models import layers

SAVED = "give the folder that result.save(…) or `prunec compile --save` wrote"


@pytest.mark.parametrize("name", ["notes.txt", "empty", "net.onnx", "weights.pt"])
def test_a_file_is_no_artifact(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes({"notes.txt": b"words", "weights.pt": pickle.dumps({"w": 1})}.get(name, b""))
    if name == "net.onnx":
        onnx.save(layers(3, 2), path)
    with pytest.raises(ModelError) as error:
        prunec.load(path)
    assert error.value.message == f"loading {path}: it is a file, and an artifact is a folder"
    assert (
        error.value.hint == f"{SAVED}; prunec.compile takes .onnx and .pt2 files, and modules with their weights loaded"
    )


def test_a_file_of_an_artifact_is_not_the_artifact(tmp_path: Path) -> None:
    prunec.compile(layers(3, 8, 2), ratio=0.5, measure=False).save(tmp_path / "half")
    with pytest.raises(ModelError) as error:
        prunec.load(tmp_path / "half" / "model.onnx")
    assert error.value.hint == f"give {tmp_path / 'half'}, in which it lies"
    assert prunec.load(tmp_path / "half").report["verify"]["ok"]


def test_a_folder_that_is_no_artifact_or_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as error:
        prunec.load(tmp_path)
    assert error.value.message == f"loading {tmp_path}: manifest.json is missing"
    assert error.value.hint == SAVED
    with pytest.raises(ModelError) as error:
        prunec.load(tmp_path / "absent")
    assert error.value.message == f"loading {tmp_path / 'absent'}: there is no such folder"
    assert error.value.hint == SAVED
