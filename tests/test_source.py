"""What was read is held against the model itself: a mistake of the reader or of canonicalize cannot hide.

Every later comparison is of graphs that came of the one that was read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import nn

import prunec
from prunec.ir.errors import ModelError, VerificationError
from prunec.ir.frontends.fx import from_exported
from prunec.ir.graph import Graph
from prunec.passes.canonicalize import canonical

from .ir.test_onnx_frontend import LINEAR, build, node, weight

ONNX = build(
    [node("MatMul", "x a", "h"), node("Relu", "h", "r"), node("MatMul", "r b", "y")],
    {"a": weight(12, 8), "b": weight(8, 4)},
    LINEAR,
)


def sources(tmp_path: Path) -> dict[str, tuple[Any, Any]]:
    path = tmp_path / "model.onnx"
    onnx.save(ONNX, path)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 4))
    return {"memory": (ONNX, None), "file": (path, None), "torch": (network, torch.randn(2, 12))}


@pytest.mark.parametrize("source", ["memory", "file", "torch"])
def test_what_was_read_wrongly_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    model, inputs = sources(tmp_path)[source]
    assert prunec.compile(model, inputs, ratio=0.5, measure=False).report["seconds"]["verify_source"] > 0

    def wrong(graph: Graph) -> Graph:
        made = canonical(graph)
        first = next(c for c in made.constants.values() if len(c.data.shape) > 1)
        first.data = first.data * 1.01
        return made

    monkeypatch.setattr("prunec.api.canonical", wrong)
    with pytest.raises(VerificationError, match="what was read: the dense graph differs from the model by 0"):
        prunec.compile(model, inputs, ratio=0.5, measure=False)
    prunec.compile(model, inputs, ratio=0.5, measure=False, verify=False)


def test_what_the_reader_of_torch_got_wrong_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, x = nn.Sequential(nn.Linear(12, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4)), torch.randn(2, 12)
    program = torch.export.export(network.eval(), (x,))
    torch.export.save(program, tmp_path / "network.pt2")
    network.train()

    def wrong(given: Any) -> Graph:
        graph = from_exported(given)
        constant = next(c for c in graph.constants.values() if len(c.data.shape) > 1)
        constant.data = constant.data * 1.5
        return graph

    monkeypatch.setattr("prunec.ir.frontends.fx.from_exported", wrong)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    for model, inputs in ((network, x), (program, None), (tmp_path / "network.pt2", None)):
        with pytest.raises(VerificationError, match="the dense graph differs from the model by"):
            prunec.compile(model, inputs, ratio=0.5, measure=False)
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


class Pair(nn.Module):
    """Two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(12, 8), nn.Linear(8, 4)


class Random(Pair):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.relu(self.a(x))
        y: torch.Tensor = self.b(h + torch.rand_like(h))
        return y


def test_what_gives_other_outputs_each_time_cannot_be_compared() -> None:
    with pytest.raises(ModelError, match="other outputs each time it runs"):
        prunec.compile(Random(), torch.randn(2, 12), ratio=0.5, measure=False)


class Once(Pair):
    """It cannot run outside of the export."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not torch.compiler.is_exporting():
            raise RuntimeError("for export alone")
        y: torch.Tensor = self.b(torch.relu(self.a(x)))
        return y


def test_where_the_model_itself_does_not_run_that_is_noted() -> None:
    report = prunec.compile(Once(), torch.randn(2, 12), ratio=0.5, measure=False).report
    assert report["verify"]["ok"]
    assert any("the model itself did not run (for export alone)" in note for note in report["notes"])


def test_an_opset_that_onnx_runtime_does_not_know_is_compared_as_it_was_converted() -> None:
    old = build(
        [node("Conv", "x a", "h"), node("Relu", "h", "r"), node("Conv", "r b", "y")],
        {"a": weight(8, 3, 1, 1), "b": weight(4, 8, 1, 1)},
        {"x": (2, 3, 4, 4)},
        opset=6,
    )
    assert prunec.compile(old, ratio=0.5, measure=False).report["verify"]["ok"]


class Sized(Pair):
    """A size beside the tensor, and the tensor twice."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, int, torch.Tensor]:
        y = self.b(torch.relu(self.a(x)))
        return y, y.shape[0], y


def test_a_model_may_return_sizes_and_a_tensor_twice() -> None:
    result = prunec.compile(Sized(), torch.randn(2, 12), ratio=0.5, measure=False)
    assert result.report["units"]["removed"] == 4
    assert result.module is not None
    first, size, again = result.module(torch.randn(3, 12))
    assert size == 3
    assert torch.equal(first, again)
