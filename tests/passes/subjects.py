"""Small subjects whose numbers can be worked out by hand, and a way to run part of a pipeline on them."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from prunec.passes.base import State
from prunec.passes.runner import Runner
from prunec.recipe import Recipe

from ..models import oracle
from ..models.oracle import Subject


def two_units(norm: bool = False) -> Subject:
    """x (2, 2) = rows (1, 2) -> linear ((3, 4), (0, 1)), bias (0, 2) -> linear (12, -2): two hidden units."""
    first, second = nn.Linear(2, 2), nn.Linear(2, 1)
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[3.0, 4.0], [0.0, 1.0]]))
        first.bias.copy_(torch.tensor([0.0, 2.0]))
        second.weight.copy_(torch.tensor([[12.0, -2.0]]))
    scale = nn.BatchNorm1d(2)
    with torch.no_grad():
        scale.weight.copy_(torch.tensor([0.25, -0.75]))
    model = nn.Sequential(first, *([scale] if norm else []), second)
    return oracle.subject(model.double().eval(), (torch.tensor([[1.0, 2.0], [1.0, 2.0]]).double(),))


def mlp(*widths: int) -> Subject:
    """Linear layers with rectifiers between them."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for i, o in pairwise(widths):
        layers += [nn.Linear(i, o), nn.ReLU()]
    return oracle.subject(nn.Sequential(*layers[:-1]).double(), (torch.randn(2, widths[0]).double(),))


def with_groups(subject: Subject, seed: int = 0) -> State:
    """A state that knows its groups."""
    state = subject.state(seed)
    state.facts["groups"] = subject.groups
    return state


def scored(subject: Subject, pipeline: str, seed: int = 0, loss: Any = None) -> np.ndarray:
    """Scores of the prunable units."""
    state = with_groups(subject, seed)
    state.context["loss"] = loss
    Runner(ensured={"canonical", "groups"}).run(Recipe.parse(pipeline), state)
    return np.asarray(state.facts["scores"][subject.groups.prunable])


def total(outputs: Tensor) -> Tensor:
    """A loss for gradients by hand."""
    return outputs.sum()
