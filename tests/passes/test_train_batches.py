"""An epoch without a batch is noticed, and no way of training is taken for one."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import prunec
from prunec.ir.errors import UsageError

X, Y = torch.randn(8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 4


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))


def backward(model: nn.Module) -> None:
    torch.autograd.backward(F.cross_entropy(model(X), Y))


def in_evaluation_mode(model: nn.Module) -> None:
    """As with frozen batch norms; and no optimizer steps, as while gradients accumulate."""
    backward(model.eval())


def at_a_rate_of_zero(model: nn.Module) -> None:
    backward(model)
    torch.optim.SGD(model.parameters(), lr=0.0).step()


def compiled(model: nn.Module) -> None:
    backward(torch.compile(model, backend="eager"))  # type: ignore[arg-type]


def functional(model: nn.Module) -> None:
    given = {name: parameter.clone() for name, parameter in model.named_parameters()}
    torch.autograd.backward(F.cross_entropy(torch.func.functional_call(model, given, (X,)), Y))


def checkpointed(model: nn.Module) -> None:
    """Where the forward that is seen first has no gradients."""
    from torch.utils.checkpoint import checkpoint

    out = checkpoint(model, X.clone().requires_grad_(), use_reentrant=True)
    torch.autograd.backward(out.sum())


def frozen(model: nn.Module) -> None:
    """Weights that are not trained in this epoch."""
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    model(X)
    for parameter in model.parameters():
        parameter.requires_grad_(True)


def elsewhere(model: nn.Module) -> None:
    """What a replica or another process leaves: other values, written past the counters of autograd."""
    for parameter in model.parameters():
        parameter.data.add_(0.1)


def read_from_a_checkpoint(model: nn.Module) -> None:
    model.load_state_dict(copy.deepcopy(model.state_dict()))


TRAINING = (
    backward, in_evaluation_mode, at_a_rate_of_zero, compiled, functional, checkpointed, frozen, elsewhere,
    read_from_a_checkpoint,
)  # fmt: skip


@pytest.mark.parametrize("recipe", ["pdp{sparsity=0.5,warm=0,rise=1}", "gradual{sparsity=0.5,rise=2}",
                                    "ste{n=2,m=4}", "dkm{bits=2,least=1}"])  # fmt: skip
@pytest.mark.parametrize("trained", TRAINING, ids=lambda f: f.__name__)
def test_no_training_is_taken_for_none(trained: Callable[[nn.Module], None], recipe: str) -> None:
    model = net()
    sparse = prunec.train(model, recipe)
    for _ in range(2):
        trained(model)
        sparse.step()
    assert sparse.epoch == 2


def evaluated(model: nn.Module) -> None:
    model.eval()
    with torch.no_grad():
        model(X)


def a_copy(model: nn.Module) -> None:
    backward(copy.deepcopy(model))


@pytest.mark.parametrize("instead", [lambda model: None, evaluated, a_copy], ids=["nothing", "evaluated", "a copy"])
def test_an_epoch_without_a_batch(instead: Callable[[nn.Module], None]) -> None:
    model = net()
    sparse = prunec.train(model, "pdp{sparsity=0.5,warm=0,rise=2}")
    backward(model)
    sparse.step(0.5)
    instead(model)
    sparse.sparsity(), sparse.densities(), sparse.table()  # looking at weights is no training
    with pytest.raises(UsageError, match="training, epoch 1: no batch went through the model"):
        sparse.step(0.5)
    assert sparse.epoch == 1 and len(sparse.history) == 1
    backward(model)
    sparse.step(0.5)
    sparse.skip(2)
    assert [entry["epoch"] for entry in sparse.history] == [1, 2, 3, 4]


def test_nothing_is_left_on_the_model() -> None:
    model = net()
    with prunec.train(model, "pdp{sparsity=0.5,warm=0,rise=2}"):
        pass
    assert not any(module._forward_pre_hooks for module in model.modules())
