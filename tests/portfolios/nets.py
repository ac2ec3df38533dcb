"""A source as users write it: a micro network, its training and its evaluation, and functions that go wrong.

``SEEN`` is what each training saw when it began, and after each step: (start, states).
"""

from __future__ import annotations

import os
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prunec.ir.errors import BudgetError

STEPS_AN_EPOCH, EPOCHS = 5, 4
SEEN: list[tuple[int, list[dict[str, Tensor]]]] = []


class Net(nn.Module):
    """Two convolutions with a batch norm and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm = nn.Conv2d(1, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12)
        self.b, self.head = nn.Conv2d(12, 16, 3, 2), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.b(F.relu(self.norm(self.a(x)))))
        return self.head(x.mean((2, 3)))  # type: ignore[no-any-return]


def net() -> tuple[Net, tuple[Tensor]]:
    return Net(), (torch.randn(2, 1, 6, 6),)


def data() -> tuple[Tensor, Tensor]:
    """Images of three kinds: brighter above, brighter below, neither."""
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(96, 1, 6, 6, generator=generator), torch.arange(96) % 3
    x[y == 1, :, :3] += 1.5
    x[y == 2, :, 3:] += 1.5
    return x, y


def fit(model: nn.Module, start: int = 0, after_epoch: Callable[[], None] = lambda: None) -> None:
    x, y = data()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    states = [_copied(model)]
    SEEN.append((start, states))
    model.train()
    for step in range(start, EPOCHS * STEPS_AN_EPOCH):
        chosen = torch.randperm(len(x))[:32]
        _step(model, optimizer, x[chosen], y[chosen])
        states.append(_copied(model))
        if (step + 1) % STEPS_AN_EPOCH == 0:
            after_epoch()


def _step(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> None:
    optimizer.zero_grad()
    torch.autograd.backward(F.cross_entropy(model(x), y))
    optimizer.step()


def _copied(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


@torch.no_grad()
def evaluate(model: nn.Module) -> float:
    x, y = data()
    return float((model(x).argmax(1) == y).float().mean())


def fit_elsewhere(model: nn.Module) -> None:
    """Leaves the process in another folder."""
    fit(model)
    os.chdir("/")


def fit_as_it_is(model: nn.Module) -> None:
    """Trains in the mode that the network comes in."""
    x, y = data()
    _step(model, torch.optim.Adam(model.parameters(), 1e-2), x, y)


def evaluate_without_gradients(model: nn.Module) -> float:
    """Leaves the process without gradients."""
    torch.set_grad_enabled(False)
    return evaluate(model)


HELD = Net(), (torch.zeros(2, 1, 6, 6),)
"""A source that is an object."""


def held() -> tuple[Net, tuple[Tensor]]:
    """A factory that makes nothing new."""
    return HELD


# ---------------------------------------------------------------------- what goes wrong


class Wordy(Net):
    """Its state is more than tensors."""

    def get_extra_state(self) -> dict[str, int]:
        return {"version": 1}

    def set_extra_state(self, state: object) -> None:
        pass


def wordy() -> tuple[Net, tuple[Tensor]]:
    return Wordy(), (torch.zeros(2, 1, 6, 6),)


def fit_grows(model: nn.Module) -> None:
    """Adds a layer that the source has not."""
    fit(model)
    model.more = nn.Linear(2, 2)


def fit_by_loss(model: nn.Module) -> None:
    """Calls what a compact network has not."""
    model.loss()  # type: ignore[operator]


def fit_over_budget(model: nn.Module) -> None:
    raise BudgetError("a budget of its own", hint="none")


def fit_alone(model: nn.Module) -> None:
    """Takes none of the keywords."""
    fit(model)


def fit_fails_small(model: nn.Module) -> None:
    """Fails on every network but the dense one."""
    if sum(p.numel() for p in model.parameters()) < 1900:
        raise ZeroDivisionError("a small network")
    fit(model)


def fit_interrupted_small(model: nn.Module) -> None:
    if sum(p.numel() for p in model.parameters()) < 1900:
        raise KeyboardInterrupt
    fit(model)


def fit_dies_small(model: nn.Module) -> None:
    if sum(p.numel() for p in model.parameters()) < 1900:
        os._exit(3)
    fit(model)


def fit_idle(model: nn.Module) -> None:
    """Trains nothing."""


def fit_other(model: nn.Module) -> nn.Module:
    """Trains, and returns another network."""
    fit(model)
    return Net()


def fit_more(model: nn.Module, x: Tensor, y: Tensor) -> None:
    """Needs more than it gets."""


def evaluate_nan(model: nn.Module) -> float:
    return float("nan")


def evaluate_nothing(model: nn.Module) -> None:
    pass
