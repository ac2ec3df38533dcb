"""The bench of accuracy without fine-tuning: its networks, what it counts as pruned, and what it writes.  No data."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn


def of_bench(name: str) -> ModuleType:
    """A module of the benches, which are no part of the package."""
    root = str(Path(__file__).resolve().parents[1])
    sys.path.append(root)
    try:
        return import_module(f"bench.{name}")
    finally:
        sys.path.remove(root)


cifar10, models, plot, accuracy = map(of_bench, ("cifar10", "cifar_models", "accuracy_plot", "unconstrained_accuracy"))
CURVES, share = accuracy.CURVES, accuracy.share


class Two(nn.Module):
    """An image layer, and two layers that read its four channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.one = nn.Conv2d(4, 2, 3)
        self.other = nn.Conv2d(4, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        return torch.cat([self.one(x), self.other(x)], 1)


def tiny() -> Any:
    """A DenseNet of two dense layers with random weights, which nobody runs as ONNX, and four random images."""
    torch.manual_seed(0)
    model = models.DenseNet(layers=(1, 1), growth=16, stem=32).eval()
    example = torch.randn(2, 3, 32, 32)
    images = cifar10.Images(torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8), torch.arange(4))
    return accuracy.Dense(model, onnx.ModelProto(), example, images, cifar10.Settings())


def result() -> dict[str, Any]:
    """What a run returns, made up."""
    point = {"curve": "constrained", "asked": 0.5, "macs": 0.25, "latency": 0.625, "verified": True}
    points = [
        {**point, "share": 0.4, "top1": 51.5},
        {**point, "curve": "unconstrained, aligned", "share": 0.3, "top1": 62},
    ]
    network = {"settings": {"test_images": 1000}, "top1": 88.0, "points": points}
    return {"method": "lamp", "seconds": 3.0, "command": "a command", "networks": {"resnet20": network}}


def test_the_dense_net_is_as_wide_as_its_layers_say() -> None:
    model = models.DenseNet((4, 6, 8), growth=12, stem=16).eval()
    assert model.norm.num_features == ((16 + 4 * 12) // 2 + 6 * 12) // 2 + 8 * 12
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize(("depth", "blocks"), [(20, 9), (56, 27)])
def test_a_res_net_has_its_depth(depth: int, blocks: int) -> None:
    assert sum(isinstance(m, cifar10.Block) for m in cifar10.ResNet(depth).modules()) == blocks


def test_nothing_of_the_dense_network_is_pruned() -> None:
    assert share(Two(), Two()) == 0


def test_a_channel_read_with_zero_weights_is_pruned_for_that_layer_alone() -> None:
    model = Two()
    with torch.no_grad():
        model.one.weight[:, :3] = 0
    assert share(Two(), model) == 3 / 8


def test_a_channel_that_is_gone_is_pruned_and_the_image_is_not_counted() -> None:
    model = Two()
    model.stem, model.other = nn.Conv2d(3, 1, 3), nn.Conv2d(1, 2, 3)
    assert share(Two(), model) == 3 / 8


def test_a_layer_that_is_gone_reads_nothing() -> None:
    model = Two()
    del model.other
    assert share(Two(), model) == 4 / 8


@pytest.mark.parametrize("name", CURVES)
def test_each_curve_prunes(name: str) -> None:
    dense = tiny()
    found = accuracy.pruned(dense, CURVES[name], "lamp", 0.6, verify=False)
    assert found.plan is not None
    assert found.plan.mode == name.partition(",")[0]
    assert isinstance(found.module, nn.Module)
    assert 0 < share(dense.model, found.module) < 1
    assert 0 <= cifar10.top1(found.module, dense.images, dense.settings) <= 100


def test_unconstrained_the_share_is_that_asked_for() -> None:
    dense = tiny()
    found = accuracy.pruned(dense, CURVES["unconstrained"], "lamp", 0.6, verify=False)
    assert isinstance(found.module, nn.Module)
    assert share(dense.model, found.module) == pytest.approx(0.6, abs=0.05)


def test_the_methods_are_criteria() -> None:
    from prunec.passes.score.scoring import find_criterion

    assert all(map(find_criterion, accuracy.METHODS))


def test_the_table_has_a_line_for_each_point() -> None:
    lines = accuracy.table(result()).splitlines()
    assert "resnet20: 88.00 % dense, 1,000 images" in lines
    assert "constrained                0.50   0.400   0.250    0.625   51.50 %" in lines
    assert lines[-1] == "lamp, no fine-tuning, 3 s: a command"


def test_the_figure_is_the_same_twice(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the figure is drawn by matplotlib, which `.[bench]` installs")
    for name in ("a.svg", "b.svg"):
        plot.draw(result(), tmp_path / name)
    text = (tmp_path / "a.svg").read_text()
    assert text == (tmp_path / "b.svg").read_text()
    assert "unconstrained, aligned" in text and "latency/dense" in text


def test_without_data_nothing_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PRUNEC_DATA", str(tmp_path))
    assert accuracy.main(["--models", *models.NETWORKS]) == 0
    assert f"no CIFAR-10 in {tmp_path}" in capsys.readouterr().err
