"""Optimizer steps are counted without a word from the loop."""

from __future__ import annotations

import torch
from torch import nn

from prunec.portfolios.counting import Steps


def stepped(*optimizers: torch.optim.Optimizer) -> None:
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            for p in group["params"]:
                p.grad = torch.ones_like(p)
        optimizer.step()


def test_each_step_counts() -> None:
    net, seen = nn.Linear(2, 2), list[int]()
    optimizer = torch.optim.Adam(net.parameters())
    with Steps(net, counted=seen.append) as steps:
        for _ in range(3):
            stepped(optimizer)
    stepped(optimizer)
    assert seen == [1, 2, 3] and steps.count == 3


def test_optimizers_in_turn_make_one_step_together() -> None:
    net, calls = nn.Linear(2, 2), list[None]()
    of_weight, of_bias = torch.optim.SGD([net.weight], 0.1), torch.optim.Adam([net.bias])
    with Steps(net, always=lambda: calls.append(None)) as steps:
        for _ in range(3):
            stepped(of_weight, of_bias)
    assert steps.count == 3 and len(calls) == 6


def test_one_optimizer_after_the_other() -> None:
    net = nn.Linear(2, 2)
    first, second = torch.optim.Adam(net.parameters()), torch.optim.SGD(net.parameters(), 0.1)
    with Steps(net) as steps:
        stepped(first, first, first, second, second, second)
    assert steps.count == 6


def test_a_new_optimizer_each_epoch() -> None:
    net = nn.Linear(2, 2)
    with Steps(net) as steps:
        for _ in range(5):
            stepped(torch.optim.SGD(net.parameters(), 0.1))
    assert steps.count == 5


def test_other_models_do_not_count() -> None:
    net, other = nn.Linear(2, 2), nn.Linear(2, 2)
    with Steps(net) as steps:
        stepped(torch.optim.Adam(other.parameters()))
    assert steps.count == 0
