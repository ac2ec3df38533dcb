"""Masks of single weights: exactly as many as asked, and zero whatever the optimizer makes of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, weight_norm

from prunec.ir.errors import ModelError
from prunec.portfolios.counting import Steps
from prunec.portfolios.masks import HeldAtZero, masked_weights, smallest_gone, unmasked

from .nets import Net, data

OPTIMIZERS: dict[str, Callable[[nn.Module], torch.optim.Optimizer]] = {
    "momentum": lambda m: torch.optim.SGD(m.parameters(), 0.1, momentum=0.9, nesterov=True),
    "adam": lambda m: torch.optim.Adam(m.parameters(), 0.01),
    "decay": lambda m: torch.optim.AdamW(m.parameters(), 0.01, weight_decay=0.5),
}


def network() -> Net:
    torch.manual_seed(0)
    return Net()


def trained(net: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 4) -> None:
    x, y = data()
    for _ in range(steps):
        optimizer.zero_grad()
        torch.autograd.backward(nn.functional.cross_entropy(net(x), y))
        optimizer.step()


def zeros(net: Net) -> int:
    return sum(int((w == 0).sum()) for w in masked_weights(net).values())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_what_is_masked_stays_zero(name: str) -> None:
    net = network()
    optimizer = OPTIMIZERS[name](net)
    trained(net, optimizer)  # it has momentum for every element
    masks = smallest_gone(masked_weights(net), None, 0.3)
    with Steps(net, always=HeldAtZero(net, masks)):
        trained(net, optimizer)
    for name, weight in masked_weights(net).items():
        assert not weight[~masks[name]].any()
        assert bool((weight[masks[name]] != 0).all())


def test_without_the_hook_momentum_brings_it_back() -> None:
    net = network()
    optimizer = OPTIMIZERS["momentum"](net)
    trained(net, optimizer)
    HeldAtZero(net, smallest_gone(masked_weights(net), None, 0.3))
    before = zeros(net)
    trained(net, optimizer, 1)
    assert before > 1000 and zeros(net) < 100


def test_the_hook_is_gone_afterwards() -> None:
    net = network()
    with Steps(net, always=HeldAtZero(net, smallest_gone(masked_weights(net), None, 0.3))):
        pass
    before = zeros(net)
    trained(net, OPTIMIZERS["adam"](net), 1)
    assert before > 1000 and zeros(net) < 200


@pytest.mark.parametrize("density", [0.8, 0.5, 0.123, 0.01])
def test_as_many_stay_as_were_asked_for(density: float) -> None:
    weights = masked_weights(network())
    masks = smallest_gone(weights, None, density)
    total = sum(w.numel() for w in weights.values())
    assert sum(int(m.sum()) for m in masks.values()) == round(density * total)


def test_the_smallest_go_of_all_layers_together() -> None:
    weights = {"a": torch.tensor([[3.0, -0.1], [0.2, 4.0]]), "b": torch.tensor([[-5.0, 0.3]])}
    masks = smallest_gone(weights, None, 0.5)
    assert masks["a"].tolist() == [[True, False], [False, True]] and masks["b"].tolist() == [[True, False]]


def test_of_equal_ones_the_first_stay() -> None:
    assert smallest_gone({"a": torch.ones(5)}, None, 0.4)["a"].tolist() == [True, True, False, False, False]


def test_what_is_gone_does_not_come_back_however_large_it_is() -> None:
    weights = {"a": torch.tensor([9.0, 1.0, 2.0, 0.0])}
    last = {"a": torch.tensor([False, True, True, True])}
    assert smallest_gone(weights, last, 0.75)["a"].tolist() == [False, True, True, True]


def test_biases_and_norms_have_no_mask() -> None:
    assert list(masked_weights(network())) == ["a.weight", "b.weight", "head.weight"]


def test_a_weight_that_two_layers_share_has_one_mask() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    net[1].weight = net[0].weight
    assert list(masked_weights(net)) == ["0.weight"]


@pytest.mark.parametrize("norm", [weight_norm, parametrizations.weight_norm])
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_weight_that_is_computed_has_no_mask(norm: Callable[[nn.Module], nn.Module]) -> None:
    net = nn.Sequential(nn.Linear(4, 4), norm(nn.Linear(4, 3)))
    with pytest.raises(ModelError, match=r"masking 1\.weight of shape \(3, 4\): it is no parameter") as caught:
        masked_weights(net)
    assert caught.value.hint == "remove the parametrizations before, or --of channels"


def test_weights_without_a_mask_are_noted_where_they_are_many() -> None:
    (note,) = unmasked(nn.Sequential(nn.Embedding(10, 8), nn.Linear(8, 8)))
    assert note.startswith("56% of the weights have no mask")
    assert unmasked(nn.Sequential(nn.Embedding(1, 8), nn.Linear(8, 80))) == [] == unmasked(network())
