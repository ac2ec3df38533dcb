"""Sums over an axis whose dead positions would not be zero: the axis is kept, and the compile stays exact."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import prunec

from .test_onnx_frontend import analysed, build, ints, node, weight


class LinearAttention(torch.nn.Module):
    """softmax-free attention with the feature map elu(x) + 1, which is 1 where x is 0."""

    def __init__(self, einsum: bool, shift: float) -> None:
        super().__init__()
        self.einsum, self.shift = einsum, shift
        self.embed, self.out = torch.nn.Linear(12, 32), torch.nn.Linear(32, 10)
        self.q, self.k, self.v = (torch.nn.Linear(32, 32) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, t, _ = x.shape
        x = self.embed(x)
        q, k, v = (f(x).view(b, t, 4, 8).transpose(1, 2) for f in (self.q, self.k, self.v))
        q, k = F.elu(q) + self.shift, F.elu(k) + self.shift
        if self.einsum:
            y = torch.einsum("bhtd,bhde->bhte", q, torch.einsum("bhtd,bhte->bhde", k, v))
        else:
            y = q @ (k.transpose(-1, -2) @ v)
        result: torch.Tensor = self.out(y.transpose(1, 2).reshape(b, t, 32)).mean(1)
        return result


@pytest.mark.parametrize("einsum", [False, True])
def test_features_that_are_not_zero_keep_their_axis(einsum: bool) -> None:
    """With elu(x) + 1 the 8 feature dimensions stay; with elu(x), which is 0 at 0, they are units."""
    torch.manual_seed(0)
    units = {}
    for shift in (0.0, 1.0):
        model = LinearAttention(einsum, shift).eval()
        result = prunec.compile(model, torch.randn(2, 6, 12), ratio=0.5, measure=False)
        assert result.report["verify"]["max_rel_err"] < 1e-6
        units[shift] = result.report["units"]["total"]
    assert units[0.0] - units[1.0] == 8


class Scored(torch.nn.Module):
    """Two layers whose features are changed by ``through`` and then summed over."""

    def __init__(self, through: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.q, self.k, self.out = torch.nn.Linear(12, 8), torch.nn.Linear(12, 8), torch.nn.Linear(6, 3)
        self.through = through

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.out(self.through(self.q(x)) @ self.through(self.k(x)).transpose(-1, -2)).mean(1)
        return result


@pytest.mark.parametrize(
    ("through", "units"),
    [
        (torch.relu, 8),
        (lambda y: y * 2 - y, 8),
        (lambda y: y.unsqueeze(-1).sum(-1), 8),
        (torch.sigmoid, 0),
        (lambda y: torch.relu(y) + 1, 0),
        (lambda y: torch.cat([y, y]).view(2, *y.shape).logsumexp(0), 0),
        (lambda y: F.pad(y.unsqueeze(-1), (0, 1), value=2.0).sum(-1), 0),
        (lambda y: y + torch.ones(1), 0),
    ],
)
@pytest.mark.parametrize("frontend", ["fx", "onnx"])
def test_what_keeps_zeros(through: Callable[[torch.Tensor], torch.Tensor], units: int, frontend: str) -> None:
    torch.manual_seed(0)
    model, x = Scored(through).eval(), torch.randn(2, 6, 12)
    source: Any = model
    if frontend == "onnx":
        source = torch.onnx.export(model, (x,), dynamo=True, verbose=False).model_proto  # type: ignore[union-attr]
    result = prunec.compile(source, x if frontend == "fx" else None, ratio=0.5, measure=False)
    assert result.report["verify"]["max_rel_err"] < 1e-6
    assert result.report["units"]["total"] == units


def test_a_factor_that_is_a_size_of_the_input() -> None:
    model = Scored(lambda y: y * y.shape[0]).eval()
    result = prunec.compile(model, torch.randn(2, 6, 12), ratio=0.5, measure=False)
    assert result.report["verify"]["max_rel_err"] < 1e-6


@pytest.mark.parametrize(("size", "units"), [(8, 8), (1, 0)])
def test_a_factor_that_is_broadcast_along_a_sum_is_not_zero_there(size: int, units: int) -> None:
    class Weighted(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.out = torch.nn.Linear(12, 8), torch.nn.Linear(5, 3)
            self.w = torch.nn.Parameter(torch.randn(5, size))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.out(torch.einsum("btj,kj->btk", torch.sigmoid(self.q(x)), self.w))
            return result

    result = prunec.compile(Weighted().eval(), torch.randn(2, 6, 12), ratio=0.5, measure=False)
    assert result.report["verify"]["max_rel_err"] < 1e-6
    assert result.report["units"]["total"] == 5 + units


@pytest.mark.parametrize(("number", "units"), [(0.0, 8), (1.0, 0)])
def test_a_number_expanded_is_not_zero_unless_it_is(number: float, units: int) -> None:
    """sigmoid(h) · q sums over hidden units; q, made of one number, loses positions as h does, and holds it there."""
    nodes = [
        node("MatMul", "x a", "h"),
        node("Sigmoid", "h", "s"),
        node("Shape", "x", "shape"),
        node("Gather", "shape zero", "n", axis=0),
        node("Concat", "n eight two", "target", axis=0),
        node("Expand", "number target", "q"),
        node("MatMul", "s q", "y"),
    ]
    weights = {"a": weight(12, 8), "zero": ints(0), "eight": ints(8), "two": ints(2), "number": np.float32(number)}
    _, groups = analysed(build(nodes, weights, {"x": ("N", "S", 12)}))
    assert len(groups.prunable) == units
