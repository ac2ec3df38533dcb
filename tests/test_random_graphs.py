"""Random networks with random drop sets: the compact module equals the masked source, whatever is wired to what."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from prunec.ir.emit.fx import emit
from prunec.passes.constants import fold_constants
from prunec.passes.fold import fold_batch_norms
from prunec.passes.rewrite import eliminate

from .models import micro, oracle
from .models.oracle import EXACT, Subject

Step = tuple[str, int, int]
_SIZE = 6
_WIDTHS = (4, 6, 8, 12)


class Random(nn.Module):
    """A network from a list of steps: each reads the current tensor (B, c, H, W) and perhaps an earlier one."""

    def __init__(self, steps: list[Step], tail: str, classes: int = 3) -> None:
        super().__init__()
        self.plan: list[tuple[str, int, str]] = []
        widths = [2]
        for k, (kind, a, b) in enumerate(steps):
            layer, width = _LAYERS[kind](widths[-1], a, b, widths)
            name = f"layer{k}"
            if layer is not None:
                self.add_module(name, layer)
            self.plan.append((kind, b, name))
            widths.append(width)
        self.tail, c = tail, widths[-1]
        if tail == "norm":
            self.norm = nn.LayerNorm(c)
        self.head = nn.Linear(c * _SIZE * _SIZE if tail == "flatten" else c, classes)

    def forward(self, x: Tensor) -> Tensor:
        seen = [x]
        for kind, b, name in self.plan:
            layer = self._modules.get(name)
            seen.append(layer(seen[-1]) if layer is not None else _FUNCTIONS[kind](seen, b))
        y = seen[-1].flatten(1) if self.tail == "flatten" else seen[-1].mean((2, 3))
        return self.head(self.norm(y) if self.tail == "norm" else y)  # type: ignore[no-any-return]


Built = tuple[nn.Module | None, int]


def _conv(i: int, a: int, b: int, widths: list[int]) -> Built:
    o = _WIDTHS[a % len(_WIDTHS)]
    groups = max(g for g in (1, 2, 4) if i % g == 0 and o % g == 0 and g <= b + 1)
    k = 1 + 2 * (b % 2)
    return nn.Conv2d(i, o, k, padding=k // 2, groups=groups, bias=bool(a % 2)), o


def _same(make: Callable[[int], nn.Module | None]) -> Callable[[int, int, int, list[int]], Built]:
    return lambda i, a, b, widths: (make(i), i)


def _cat(i: int, a: int, b: int, widths: list[int]) -> Built:
    return None, i + widths[b % len(widths)]


_LAYERS: dict[str, Callable[[int, int, int, list[int]], Built]] = {
    "conv": _conv,
    "depthwise": _same(lambda c: nn.Conv2d(c, c, 3, padding=1, groups=c)),
    "batch_norm": _same(nn.BatchNorm2d),
    "group_norm": _same(lambda c: nn.GroupNorm(2 if c % 2 == 0 else 1, c)),
    "relu": _same(lambda c: nn.ReLU()),
    "sigmoid": _same(lambda c: nn.Sigmoid()),
    "max_pool": _same(lambda c: nn.MaxPool2d(3, 1, 1)),
    "avg_pool": _same(lambda c: nn.AvgPool2d(3, 1, 1)),
    "cat": _cat,
    "add": _same(lambda c: None),
    "gate": _same(lambda c: None),
    "split": _same(lambda c: None),
    "shuffle": _same(lambda c: None),
}


def _add(seen: list[Tensor], b: int) -> Tensor:
    """The sum with an earlier tensor of the same width, with itself where there is none."""
    fits = [t for t in seen if t.shape[1] == seen[-1].shape[1]]
    return seen[-1] + torch.tanh(fits[b % len(fits)])


def _split(seen: list[Tensor], b: int) -> Tensor:
    left, right = seen[-1].tensor_split(2, 1)
    return torch.cat([F.relu(right), left], 1)


def _shuffle(seen: list[Tensor], b: int) -> Tensor:
    x = seen[-1]
    n, c, h, w = x.shape
    g = 2 if c % 2 == 0 else 1
    return x.view(n, g, c // g, h, w).transpose(1, 2).reshape(n, c, h, w)


_FUNCTIONS: dict[str, Callable[[list[Tensor], int], Tensor]] = {
    "cat": lambda seen, b: torch.cat([seen[-1], seen[b % len(seen)]], 1),
    "add": _add,
    "gate": lambda seen, b: seen[-1] * torch.sigmoid(seen[-1].mean((2, 3), keepdim=True)),
    "split": _split,
    "shuffle": _shuffle,
}

steps = st.lists(
    st.tuples(st.sampled_from(["conv", "conv", *sorted(_LAYERS)]), st.integers(0, 3), st.integers(0, 5)),
    min_size=2,
    max_size=9,
).map(lambda drawn: [("conv", 1, 0), *drawn])


def built(drawn: list[Step], tail: str, seed: int) -> Subject:
    torch.manual_seed(seed)
    model = Random(drawn, tail)
    for part in model.modules():
        micro._unsettle(part)
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim == 4 and seed % 2:  # filters of zeros: their constants flow on
                p[: p.shape[0] // 3] = 0
            if p.ndim == 4 and seed % 4 > 1 and p.shape[1] > 1:  # and channels that nobody reads
                p[:, -(p.shape[1] // 3) :] = 0
    return oracle.subject(model.double().eval(), (torch.randn(2, 2, _SIZE, _SIZE, dtype=torch.float64),))


def drop_set(subject: Subject, order: list[int], share: float) -> list[int]:
    """Units in a random order, as many as leave at least one position of every axis."""
    units = [int(u) for u in subject.groups.prunable]
    rng = np.random.default_rng(order)
    gone: list[int] = []
    for unit in rng.permutation(units)[: round(share * len(units))]:
        if subject.leaves_something([*gone, int(unit)]):
            gone.append(int(unit))
    return gone


def holds(drawn: list[Step], tail: str, seed: int, share: float) -> None:
    """The compact module equals the masked source; folded, it equals itself."""
    subject = built(drawn, tail, seed)
    gone = drop_set(subject, [seed], share)
    inputs: Any = oracle.fresh_inputs(subject.inputs, seed + 1)
    expected = oracle.call(subject.reference(gone), inputs)
    graph = eliminate(subject.groups.analysis, subject.groups.alive(np.asarray(gone, np.int64)))
    assert oracle.distance(expected, oracle.call(emit(graph), inputs)) < EXACT
    for before in (graph, fold_batch_norms(graph)[0]):
        folded = fold_constants(before)[0]
        assert oracle.distance(expected, oracle.call(emit(folded), inputs)) < 1e-8


_CALM = [HealthCheck.too_slow, HealthCheck.data_too_large]
_draw = given(steps, st.sampled_from(["pool", "flatten", "norm"]), st.integers(0, 1000), st.floats(0.1, 0.9))


@_draw
@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=_CALM)
def test_random_networks_are_pruned_exactly(drawn: list[Step], tail: str, seed: int, share: float) -> None:
    holds(drawn, tail, seed, share)


@pytest.mark.slow
@_draw
@settings(max_examples=500, deadline=None, suppress_health_check=_CALM)
def test_many_random_networks_are_pruned_exactly(drawn: list[Step], tail: str, seed: int, share: float) -> None:
    holds(drawn, tail, seed, share)
