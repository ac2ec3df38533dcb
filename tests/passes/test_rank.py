"""Rank: the network computes the same, and what a plan keeps is the beginning of each group."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import prunec
from prunec.ir.errors import UsageError

from ..models import micro, oracle
from .test_layout import compiled as proved


def beginnings(kept: dict[str, tuple[Any, ...]]) -> list[bool]:
    return [bool((axis == np.arange(axis.size)).all()) for axes in kept.values() for axis in axes if axis is not None]


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if k % 4 else n for k, n in enumerate(sorted(micro.CASES))]
)
def test_every_family_computes_the_same(name: str) -> None:
    state = proved(oracle.subject(*micro.build(name)), "score{method=random},rank,verify")
    assert state.facts["verified"]["ok"]
    assert any(note.startswith("rank:") for note in state.notes)


def mixed() -> tuple[nn.Module, tuple[torch.Tensor]]:
    """Two groups whose channels matter more the later they stand."""
    model = nn.Sequential(nn.Linear(8, 24), nn.ReLU(), nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 4))
    with torch.no_grad():
        for layer in model[:3:2]:
            assert isinstance(layer, nn.Linear)
            layer.weight *= torch.arange(1.0, len(layer.weight) + 1)[:, None]
    return model, (torch.randn(2, 8),)


def test_what_is_kept_is_a_beginning() -> None:
    model, inputs = mixed()
    before = prunec.compile(model, inputs, "score{method=l2},plan{ratio=0.4},eliminate,verify", measure=False)
    assert not any(beginnings(before.kept))
    ordered = prunec.compile(model, inputs, "score{method=l2},rank,verify", measure=False)
    assert ordered.module is not None
    kept = []
    for ratio in (0.2, 0.5, 0.7):
        pipeline = f"score{{method=l2}},plan{{ratio={ratio},align=1}},eliminate,fold,verify"
        result = prunec.compile(ordered.module.eval(), inputs, pipeline, measure=False)
        found = beginnings(result.kept)
        assert found and all(found)
        kept.append(result)
    large, small = (dict(r.module.state_dict()) for r in (kept[0], kept[-1]) if r.module is not None)
    for name, tensor in small.items():
        assert torch.equal(tensor, large[name][tuple(map(slice, tensor.shape))])


def test_the_order_is_told() -> None:
    model, inputs = mixed()
    result = prunec.compile(model, inputs, "score{method=l2},rank,verify", measure=False)
    assert "rank: 40 channels stand by score" in result.report["notes"]
    order = result.kept["0.weight"][0]
    assert order is not None and sorted(order.tolist()) == list(range(24))
    norms = torch.linalg.vector_norm(model[0].weight, dim=1)  # type: ignore[index]
    assert float(norms[order[0]]) > float(norms[order[-1]])


def test_nothing_that_may_move() -> None:
    result = prunec.compile(nn.Linear(8, 4), (torch.randn(2, 8),), "score,rank,verify", measure=False)
    assert "rank: nothing changed: no channel may move" in result.report["notes"]


def test_it_wants_scores_and_comes_before_a_plan() -> None:
    model, inputs = mixed()
    with pytest.raises(UsageError, match="rank"):
        prunec.compile(model, inputs, "score,plan{ratio=0.5},rank,eliminate,verify", measure=False)
