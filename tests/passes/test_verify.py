"""What verifying a plan takes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import prunec
from prunec.ir.graph import Graph
from prunec.passes import difference, verify
from prunec.passes.runner import Runner
from prunec.recipe import Recipe

from ..ir.test_onnx_frontend import build, node, weight
from ..models import micro, oracle


def test_no_graph_runs_twice_on_the_same_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    honest, seen = difference.run, []

    def run(graph: Graph, inputs: list[Any], double: bool = False) -> Any:
        seen.append((graph, float(inputs[0].sum())))
        return honest(graph, inputs, double)

    monkeypatch.setattr(verify, "run", run)
    monkeypatch.setattr(verify, "_SMALL_PARAMS", 0)  # no unit alone
    subject = oracle.subject(*micro.build("plain"))
    Runner(ensured={"canonical"}).run(
        Recipe.parse("score{method=l2},plan{ratio=0.5,align=1},eliminate,verify"), subject.state()
    )
    assert len(seen) == 6  # masked and compact with the model's own weights; dense twice, masked, compact with others
    assert len({(id(graph), total) for graph, total in seen}) == len(seen)


class Branch(nn.Module):
    """As ReZero and NFNets begin: what the branch computes shows only with another gain."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 8), nn.Linear(8, 4), nn.Linear(6, 4)
        self.gain = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        shown: Tensor = self.c(x) + self.gain * self.b(torch.relu(self.a(x)))
        return shown


def test_a_gain_of_zero_hides_nothing() -> None:
    report = prunec.compile(Branch(), torch.randn(2, 6), ratio=0.5, measure=False).report
    assert report["units"]["removed"] == 4
    assert report["verify"]["ok"]


@pytest.mark.parametrize("shape", [(), (1,)])
def test_a_gain_of_zero_hides_nothing_in_onnx(shape: tuple[int, ...]) -> None:
    nodes = [
        node("MatMul", "x a", "h"),
        node("Relu", "h", "r"),
        node("MatMul", "r b", "branch"),
        node("Mul", "branch gain", "g"),
        node("MatMul", "x c", "s"),
        node("Add", "s g", "y"),
    ]
    weights = {"a": weight(6, 8), "b": weight(8, 4), "c": weight(6, 4), "gain": np.zeros(shape, np.float32)}
    report = prunec.compile(build(nodes, weights, {"x": ("N", 6)}), ratio=0.5, measure=False).report
    assert report["units"]["removed"] == 4
    assert report["verify"]["ok"]
