"""Shrink: what is zero already goes, and nothing else; the network computes what it did."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

import prunec

from ..models import oracle

IMAGES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
PIPELINE = "shrink,eliminate,verify"


def network(norm: type[nn.Module] = nn.BatchNorm2d) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), norm(8), nn.ReLU(), nn.Conv2d(8, 6, 3, padding=1), nn.ReLU(), nn.Flatten(),
        nn.Linear(6 * 64, 5),
    ).eval()  # fmt: skip


def emptied(model: nn.Module, units: list[int]) -> nn.Module:
    """``model`` with zeros in all that the first convolution's ``units`` stand in, but running statistics."""
    with torch.no_grad():
        for name, axis in (("0.weight", 0), ("0.bias", 0), ("1.weight", 0), ("1.bias", 0), ("3.weight", 1)):
            dict(model.named_parameters())[name].index_fill_(axis, torch.tensor(units), 0)
        if isinstance(norm := model.get_submodule("1"), nn.BatchNorm2d):
            assert norm.running_mean is not None
            norm.running_mean.normal_()
    return model


def test_units_of_zeros_go_and_nothing_changes(tmp_path: Path) -> None:
    model = emptied(network(), [1, 4, 5])
    result = prunec.compile(model, (IMAGES,), PIPELINE, measure=False)
    assert result.report["units"]["removed"] == 3
    np.testing.assert_array_equal(result.kept["0.weight"][0], [0, 2, 3, 6, 7])
    with torch.no_grad():
        assert result.module is not None
        assert oracle.distance(model(IMAGES), result.module(IMAGES)) < 1e-6
    torch.onnx.export(model, (IMAGES,), tmp_path / "m.onnx", dynamo=True, verbose=False)
    again = prunec.compile(onnx.load(tmp_path / "m.onnx"), None, PIPELINE, measure=False)
    assert again.report["units"]["removed"] == 3


@pytest.mark.parametrize("name", ["0.weight", "0.bias", "1.bias", "3.weight"])
def test_one_number_keeps_a_unit(name: str) -> None:
    model = emptied(network(), [1, 4])
    axis = int(name == "3.weight")
    with torch.no_grad():
        dict(model.named_parameters())[name].select(axis, 4).fill_(1e-20)
    result = prunec.compile(model, (IMAGES,), PIPELINE, measure=False)
    assert result.report["units"]["removed"] == 1


def test_one_unit_of_a_group_stays() -> None:
    result = prunec.compile(emptied(network(), list(range(8))), (IMAGES,), PIPELINE, measure=False)
    assert result.report["units"]["removed"] == 7


def test_nothing_goes_and_it_says_so() -> None:
    result = prunec.compile(network(), (IMAGES,), PIPELINE, measure=False)
    assert result.report["units"]["removed"] == 0
    assert "shrink: no unit is zero in all of its elements, and nothing goes" in result.report["notes"]


def test_a_norm_over_channels_keeps_them() -> None:
    class OneGroup(nn.GroupNorm):
        def __init__(self, width: int) -> None:
            super().__init__(1, width)

    result = prunec.compile(emptied(network(OneGroup), [1, 4]), (IMAGES,), PIPELINE, measure=False)
    assert result.report["units"]["removed"] == 0
    assert any("2 units of zeros stay, for a norm" in note for note in result.report["notes"])


def test_what_a_buffer_adds_keeps_them() -> None:
    class Shifted(nn.Module):
        shift: Tensor

        def __init__(self, width: int) -> None:
            super().__init__()
            self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
            self.register_buffer("shift", (torch.arange(width) != 1).float())

        def forward(self, x: Tensor) -> Tensor:
            return x * self.weight[:, None, None] + (self.bias + self.shift)[:, None, None]

    model = emptied(network(Shifted), [1, 4])
    result = prunec.compile(model, (IMAGES,), PIPELINE, measure=False)
    assert result.report["units"]["removed"] == 1
    with torch.no_grad():
        assert result.module is not None
        assert oracle.distance(model(IMAGES), result.module(IMAGES)) < 1e-6


def test_targets() -> None:
    result = prunec.compile(emptied(network(), [1]), (IMAGES,), "shrink{ignore=[0.*]},eliminate,verify", measure=False)
    assert result.report["units"]["removed"] == 0
