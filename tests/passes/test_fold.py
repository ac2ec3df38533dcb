"""Folding: batch norms, and the constants of channels that no longer depend on the input (trap 7)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from prunec.ir.emit.fx import emit
from prunec.ir.graph import Graph
from prunec.passes.constants import fold_constants
from prunec.passes.fold import fold_batch_norms
from prunec.passes.runner import Runner
from prunec.recipe import Recipe

from ..models import micro, oracle

IMAGE = (torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)).double(),)


def dead(layer: Any, *filters: int, bias: float | None = None) -> Any:
    """``layer`` with filters of zeros, which still emit their bias."""
    with torch.no_grad():
        for f in filters:
            layer.weight[f] = 0
            if bias is not None:
                layer.bias[f] = bias
    return layer


def folded(*layers: nn.Module, inputs: Any = IMAGE) -> tuple[Graph, int, float]:
    """The graph after folding constants, how many channels went, and the error."""
    torch.manual_seed(0)
    model = nn.Sequential(*layers)
    for part in model.modules():
        micro._unsettle(part)
    return folded_module(model, inputs)


def folded_module(model: nn.Module, inputs: Any = IMAGE) -> tuple[Graph, int, float]:
    subject = oracle.subject(model.double().eval(), inputs)
    graph, removed = fold_constants(subject.graph)
    fresh = oracle.fresh_inputs(inputs, 1)
    return graph, removed, oracle.distance(oracle.call(model, fresh), oracle.call(emit(graph), fresh))


@pytest.mark.parametrize(
    "between",
    [[nn.Sigmoid()], [nn.ReLU()], [nn.GELU(), nn.AdaptiveAvgPool2d(2)], [nn.MaxPool2d(2)], [nn.Hardswish(), nn.Tanh()]],
    ids=["sigmoid", "relu", "gelu-pool", "pool", "two"],
)
def test_a_constant_channel_goes_into_the_next_bias(between: list[nn.Module]) -> None:
    graph, removed, error = folded(dead(nn.Conv2d(3, 6, 3), 1, 4), *between, nn.Conv2d(6, 4, 1))
    assert removed == 2
    assert error < 1e-12
    assert sorted(tuple(c.data.shape) for c in graph.constants.values())[-1] == (4, 4, 1, 1) or removed == 2


def test_a_layer_without_a_bias_gets_one() -> None:
    graph, removed, error = folded(dead(nn.Conv2d(3, 6, 3), 0), nn.Sigmoid(), nn.Conv2d(6, 4, 1, bias=False))
    assert removed == 1
    assert error < 1e-12
    assert any(c.role == "literal" and tuple(c.data.shape) == (4,) for c in graph.constants.values())


def test_a_constant_that_is_not_zero_stays_before_padding() -> None:
    graph, removed, error = folded(dead(nn.Conv2d(3, 6, 3), 1), nn.Sigmoid(), nn.Conv2d(6, 4, 3, padding=1))
    assert (removed, error) == (0, 0)
    assert tuple(graph.nodes[-1].inputs[1].shape) == (4, 6, 3, 3)  # type: ignore[union-attr, arg-type]


def test_a_constant_of_zero_goes_before_padding() -> None:
    layers = [dead(nn.Conv2d(3, 6, 3), 1, 2, bias=-1.0), nn.ReLU(), nn.Conv2d(6, 4, 3, padding=1)]
    _, removed, error = folded(*layers)
    assert removed == 2
    assert error < 1e-12


def test_average_pools_that_pad_keep_what_is_not_zero() -> None:
    _, removed, error = folded(dead(nn.Conv2d(3, 6, 3), 1), nn.AvgPool2d(3, 1, 1), nn.Conv2d(6, 4, 1))
    assert (removed, error) == (0, 0)


def test_a_chain_of_constants_is_followed() -> None:
    """A dead filter before a batch norm, a depthwise convolution and an activation."""
    layers = [dead(nn.Conv2d(3, 6, 3), 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 6, 3, groups=6), nn.Sigmoid()]
    torch.manual_seed(0)
    model = nn.Sequential(*layers, nn.Conv2d(6, 4, 1))
    for part in model.modules():
        micro._unsettle(part)
    subject = oracle.subject(model.double().eval(), IMAGE)
    graph, norms = fold_batch_norms(subject.graph)
    assert norms == 1
    graph, removed = fold_constants(graph)
    assert removed == 1
    fresh = oracle.fresh_inputs(IMAGE, 1)
    assert oracle.distance(oracle.call(model, fresh), oracle.call(emit(graph), fresh)) < 1e-12


def test_flattened_channels_go_as_runs() -> None:
    layers = [dead(nn.Conv2d(3, 6, 3), 2), nn.Sigmoid(), nn.Flatten(), nn.Linear(6 * 36, 4)]
    graph, removed, error = folded(*layers)
    assert removed == 1
    assert error < 1e-12
    assert tuple(graph.nodes[-1].inputs[1].shape) == (4, 5 * 36)  # type: ignore[union-attr, arg-type]


def test_linear_layers_fold_too() -> None:
    layers = [dead(nn.Linear(6, 8), 0, 7), nn.Sigmoid(), nn.Linear(8, 3)]
    _, removed, error = folded(*layers, inputs=(torch.randn(2, 6).double(),))
    assert removed == 2
    assert error < 1e-12


def test_a_layer_that_is_dead_altogether_keeps_one_channel() -> None:
    _, removed, error = folded(dead(nn.Conv2d(3, 4, 3), 0, 1, 2, 3), nn.Sigmoid(), nn.Conv2d(4, 2, 1))
    assert removed == 3
    assert error < 1e-12


class Residual(nn.Module):
    """A constant that meets one that is none: the sum depends on the input."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = dead(nn.Conv2d(3, 6, 1), 1, 2), dead(nn.Conv2d(3, 6, 1), 2), nn.Conv2d(6, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(torch.sigmoid(self.a(x) + self.b(x)))  # type: ignore[no-any-return]


def test_only_what_is_constant_on_both_sides_of_a_sum_goes() -> None:
    torch.manual_seed(0)
    _, removed, error = folded_module(Residual())
    assert removed == 1
    assert error < 1e-12


class Read(nn.Module):
    """A constant channel that the output, or a normalisation, reads."""

    def __init__(self, norm: bool) -> None:
        super().__init__()
        self.a, self.b, self.norm = dead(nn.Conv2d(3, 6, 1), 1), nn.Conv2d(6, 4, 1), norm

    def forward(self, x: Tensor) -> Any:
        y = torch.sigmoid(self.a(x))
        return self.b(torch.softmax(y, 1)) if self.norm else (y, self.b(y))


@pytest.mark.parametrize("norm", [True, False])
def test_a_channel_that_something_else_reads_stays(norm: bool) -> None:
    _, removed, error = folded_module(Read(norm))
    assert (removed, error) == (0, 0)


class Tied(nn.Module):
    """Two layers share the bias that would have to change."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = dead(nn.Conv2d(3, 6, 1), 1), nn.Conv2d(6, 4, 1), nn.Conv2d(4, 4, 1)
        self.c.bias = self.b.bias

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.b(torch.sigmoid(self.a(x))))  # type: ignore[no-any-return]


def test_a_shared_bias_is_left_alone() -> None:
    _, removed, error = folded_module(Tied())
    assert (removed, error) == (0, 0)


# ---------------------------------------------------------------------- batch norms


@pytest.mark.parametrize(
    ("layers", "count"),
    [
        ([nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU()], 1),
        ([nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6, affine=False)], 1),
        ([nn.Conv2d(3, 6, 3, groups=3), nn.BatchNorm2d(6), nn.Conv2d(6, 6, 3, groups=6), nn.BatchNorm2d(6)], 2),
        ([nn.BatchNorm2d(3), nn.Conv2d(3, 6, 3)], 0),
        ([nn.Conv2d(3, 6, 3), nn.ReLU(), nn.BatchNorm2d(6)], 0),
        ([nn.ConvTranspose2d(3, 6, 2), nn.BatchNorm2d(6)], 0),
        ([nn.Flatten(), nn.Linear(192, 5), nn.BatchNorm1d(5)], 1),
        ([nn.Conv2d(3, 6, 3), nn.InstanceNorm2d(6, affine=True)], 0),
    ],
)
def test_batch_norms(layers: list[nn.Module], count: int) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(*layers)
    for part in model.modules():
        micro._unsettle(part)
    subject = oracle.subject(model.double().eval(), IMAGE)
    graph, found = fold_batch_norms(subject.graph)
    assert found == count
    assert (
        sum(n.op == "batch_norm" and "batch" in n.kind for n in graph.nodes)
        == sum(isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d)) for m in layers) - count
    )
    fresh = oracle.fresh_inputs(IMAGE, 1)
    assert oracle.distance(oracle.call(model, fresh), oracle.call(emit(graph), fresh)) < 1e-12
    assert oracle.distance(oracle.call(model, fresh), oracle.call(emit(subject.graph), fresh)) < 1e-12, "a copy"


class Branches(nn.Module):
    """The layer before the norm is read twice, or its weight is."""

    def __init__(self, twice: bool) -> None:
        super().__init__()
        self.a, self.norm, self.twice = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), twice

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        return self.norm(self.a(y)) if self.twice else y + self.norm(y)  # type: ignore[no-any-return]


@pytest.mark.parametrize("twice", [True, False])
def test_a_norm_behind_something_shared_stays(twice: bool) -> None:
    torch.manual_seed(0)
    subject = oracle.subject(Branches(twice).double().eval(), IMAGE)
    assert fold_batch_norms(subject.graph)[1] == 0


@pytest.mark.parametrize(
    ("blocks", "filters", "notes"),
    [
        (
            1,
            1,
            ["fold: 1 batch norm folded into what stands before", "fold: 1 channel constant or not read"],
        ),
        (
            2,
            2,
            ["fold: 2 batch norms folded into what stands before", "fold: 2 channels constant or not read"],
        ),
    ],
)
def test_notes_count_what_was_folded(blocks: int, filters: int, notes: list[str]) -> None:
    torch.manual_seed(0)
    normed = [layer for _ in range(blocks) for layer in (nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))]
    model = nn.Sequential(*normed, dead(nn.Conv2d(3, 6, 3), *range(filters)), nn.Sigmoid(), nn.Conv2d(6, 4, 1))
    state = oracle.subject(model.double().eval(), IMAGE).state()
    Runner(ensured={"canonical"}).run(Recipe.parse("fold"), state)
    assert [note[: len(start)] for note, start in zip(state.notes, notes, strict=True)] == notes
