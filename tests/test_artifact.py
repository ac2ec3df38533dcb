"""What is said of a place that holds no artifact."""

from __future__ import annotations

import pickle
from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

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


def test_channels_last_stay_last(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model = network.eval().to(memory_format=torch.channels_last)
    result = prunec.compile(model, (torch.randn(2, 3, 8, 8),), ratio=0.5, measure=False)
    assert result.module is not None
    result.save(tmp_path / "artifact")
    again = prunec.load(tmp_path / "artifact").module
    assert again is not None
    for module in (result.module, again):
        weights = {name: p for name, p in module.named_parameters() if p.dim() == 4}
        assert weights["2.weight"].shape == (8, 8, 3, 3)
        assert all(p.is_contiguous(memory_format=torch.channels_last) for p in weights.values())
    x = torch.randn(2, 3, 8, 8)
    assert torch.allclose(again(x), result.module(x), atol=1e-6)
