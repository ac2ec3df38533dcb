"""Channels in training: whole units become zero over dependency groups, and what is left computes what was trained."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils import _pytree as pytree

import prunec
from prunec.ir.errors import UsageError
from prunec.passes.train.channels import OfUnits

from ..models import micro, oracle


def step(model: nn.Module, optimizer: torch.optim.Optimizer, inputs: micro.Inputs) -> None:
    """One step of training towards outputs of zero."""
    model.train()
    optimizer.zero_grad()
    args, kwargs = oracle.split(inputs)
    leaves = [x for x in pytree.tree_leaves(model(*args, **kwargs)) if isinstance(x, torch.Tensor)]
    torch.autograd.backward(torch.stack([x.square().mean() for x in leaves if x.is_floating_point()]).sum())
    optimizer.step()


def outputs(model: nn.Module | None, inputs: micro.Inputs) -> Any:
    assert model is not None
    return oracle.call(model.eval(), inputs)


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1),
        nn.BatchNorm2d(32), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 5),
    )  # fmt: skip


IMAGES = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


NO_GROUP = {
    "attention_over_steps", "dict_output", "global_response_norm", "group_norm", "gru", "gru_in_both_directions",
    "gru_of_two_layers_that_meet", "index_of_channels", "initial_state_of_zeros", "initial_state_that_is_given",
    "learned_initial_state", "literal_named_like_a_method", "lstm", "lstm_in_both_directions", "lstm_of_steps",
    "lstm_of_two_layers", "lstm_with_dropout", "lstm_with_projection", "lstm_with_projection_in_both_directions",
    "norm_over_image", "rms_norm", "rnn_relu_without_bias", "rnn_tanh", "softmax_over_channels",
    "statistics_of_the_batch", "weight_norms",
}  # fmt: skip
"""Small networks in which nothing can be masked as a whole: all is pinned, recurrent, or seen by a norm."""


@pytest.mark.parametrize("name", sorted(micro.CASES))
def test_what_is_left_computes_what_was_trained(name: str) -> None:
    """Every family of small networks: mask half of the units, train, and compile without them."""
    model, inputs = micro.build(name)
    model = copy.deepcopy(model).float()
    inputs = pytree.tree_map(
        lambda x: x.float() if isinstance(x, torch.Tensor) and x.is_floating_point() else x, inputs
    )
    before = {n: tuple(p.shape) for n, p in model.named_parameters()}
    try:
        sparse = prunec.train(model, "pdp{channels=0.5,warm=0,rise=1,settle=1}", inputs)
    except UsageError:
        assert name in NO_GROUP
        assert {n: tuple(p.shape) for n, p in model.named_parameters()} == before
        return
    with sparse:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        for _ in range(3):
            step(model, optimizer, inputs)
            sparse.step()
        share, units = sparse.sparsity(), sum(x.original.numel() for _, layers in sparse.layers for x in layers)
        soft = outputs(model, inputs)
    assert 0.3 <= share <= 0.5 + 0.5 / units
    assert {n: tuple(p.shape) for n, p in model.named_parameters()} == before
    assert oracle.distance(soft, outputs(model, inputs)) < 1e-6, "masks were hard"
    result = prunec.compile(model, inputs, "shrink,verify", measure=False)
    assert result.report["units"]["removed"] > 0
    assert result.report["params"]["ratio"] < 1
    assert oracle.distance(outputs(model, inputs), outputs(result.module, inputs)) < 1e-5


@pytest.mark.parametrize("recipe", ["pdp{channels=0.5,warm=1,rise=2,settle=1}", "gradual{channels=0.5,rise=2}",
                                    "ste{channels=0.5}", "ste{channels=0.5,decay=0.001}"])  # fmt: skip
def test_the_share_of_units_is_met(recipe: str) -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with prunec.train(model, recipe, (IMAGES,)) as sparse:
        for _ in range(5):
            step(model, optimizer, (IMAGES,))
            sparse.step()
        assert sparse.sparsity() == 0.5
        assert set(sparse.densities()) == {"0.weight:0", "3.weight:0"}
    state = model.state_dict()
    first, second = ((state[f"{k}.weight"] != 0).flatten(1).any(1) for k in (0, 3))
    assert int(first.sum()) + int(second.sum()) == 24
    for name in ("0.bias", "1.weight", "1.bias"):
        assert torch.equal(state[name] != 0, first), name
    assert torch.equal((state["3.weight"] != 0).any((0, 2, 3)), first), "the inputs of what reads them too"
    assert torch.equal((state["8.weight"] != 0).any(0), second)


def test_the_gradient_goes_through_the_mask_of_a_unit() -> None:
    """Of a weight: what the loss gains as its unit comes to stay; none where the mask is taken as constant."""
    model = network()
    prunec.train(model, "pdp{channels=0.5,warm=0,rise=1,tau=1.0}", (IMAGES,))
    original = dict(model.named_parameters())["0.parametrizations.weight.original"]
    groups = {m.units for m in model.modules() if isinstance(m, OfUnits)}

    def gradient() -> torch.Tensor:
        (found,) = torch.autograd.grad(model.eval()(IMAGES).square().sum(), original)
        return found

    through = gradient()
    for units in groups:
        held = units.mask()
        assert held is not None and held.requires_grad
        fixed = held.detach()
        units.mask = lambda fixed=fixed: fixed  # type: ignore[method-assign, misc]
        near = (fixed - 0.5).abs() < 0.3
        assert near.any()
    assert (through - gradient()).abs().max() > 1e-3 * through.abs().max()


def test_units_that_a_norm_sees_are_left() -> None:
    """Zero is not the same as gone under a layer norm; the hidden units of its block are nobody's business."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(6, 16), nn.LayerNorm(16), nn.ReLU(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 3),
    )  # fmt: skip
    inputs = (torch.randn(4, 6),)
    with prunec.train(model, "pdp{channels=0.5,warm=0,rise=1,settle=1}", inputs) as sparse:
        assert sparse.notes == ["pdp: 1 group left, a norm or a sum sees all of their channels: 0.weight:0"]
        assert set(sparse.densities()) == {"3.weight:0"}
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        for _ in range(3):
            step(model, optimizer, inputs)
            sparse.step()
    result = prunec.compile(model, inputs, "shrink,verify", measure=False)
    assert result.report["units"]["removed"] == 6
    assert oracle.distance(outputs(model, inputs), outputs(result.module, inputs)) < 1e-5


def test_recurrent_layers_are_left() -> None:
    model, inputs = micro.build("lstm")
    with pytest.raises(UsageError, match=r"no group .* is a parameter that it reaches: a.weight:0, recurrent"):
        prunec.train(model, "pdp{channels=0.5,warm=0,rise=1}", inputs)


def test_resumed_from_a_checkpoint() -> None:
    def begun() -> tuple[nn.Module, Any, torch.optim.Optimizer]:
        model = network()
        return model, prunec.train(model, "pdp{channels=0.5,warm=1,rise=2,settle=2}", (IMAGES,)), sgd(model)

    def sgd(model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)

    model, sparse, optimizer = begun()
    saved: list[Any] = []
    for epoch in range(7):
        if epoch == 3:
            saved = copy.deepcopy([model.state_dict(), optimizer.state_dict(), sparse.state_dict()])
        step(model, optimizer, (IMAGES,))
        sparse.step()
    sparse.finish()
    again, resumed, other = begun()
    for part, state in zip((again, other, resumed), saved, strict=True):
        part.load_state_dict(state)
    for _ in range(3, 7):
        step(again, other, (IMAGES,))
        resumed.step()
    resumed.finish()
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_a_copy_trains_by_itself() -> None:
    model = network()
    prunec.train(model, "pdp{channels=0.5,warm=0,rise=1}", (IMAGES,))
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert outputs(twin, (IMAGES,)).abs().max() > 0
    held = next(m for m in twin.modules() if isinstance(m, OfUnits))
    own = {id(p) for p in twin.parameters()}
    assert all(id(p) in own for p, _ in held.units.parts)


def test_autocast() -> None:
    model = network()
    with prunec.train(model, "pdp{channels=0.5,warm=0,rise=1}", (IMAGES,)) as sparse:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = F.mse_loss(model(IMAGES).float(), torch.zeros(4, 5))
        torch.autograd.backward(loss)
        assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in model.parameters())
        sparse.step(loss)
    assert sum(int((p == 0).sum()) for p in model.parameters()) > 0


@pytest.mark.parametrize(
    ("recipe", "inputs", "message"),
    [
        ("pdp{channels=0.5}", None, "nothing says how the model runs"),
        ("pdp{channels=0.5,sparsity=0.5}", (IMAGES,), "both a sparsity and channels"),
        ("pdp{channels=1.0}", (IMAGES,), "cannot be 1.0"),
        ("pdp{channels=0.5},dkm{bits=2,least=1}", (IMAGES,), "trained already"),
        ("dkm{bits=2,least=1},pdp{channels=0.5}", (IMAGES,), "trained already"),
        ("pdp{channels=0.5,targets=[nothing*]}", (IMAGES,), "nothing"),
    ],
)
def test_what_cannot_be(recipe: str, inputs: Any, message: str) -> None:
    model = network()
    with pytest.raises(UsageError, match=message):
        prunec.train(model, recipe, inputs)
    assert set(model.state_dict()) == set(network().state_dict()), "nothing is left behind"


def test_global_shares_compare_groups() -> None:
    """A group whose units are all alike loses none before one of which some are faint."""
    model = network()
    with torch.no_grad():
        weights = dict(model.named_parameters())
        for name in ("3.weight", "8.weight"):
            weights[name].fill_(1.0)
        weights["0.weight"][:8] *= 0.01
        weights["3.weight"][:, :8] *= 0.01
    sparse = prunec.train(model, f"gradual{{channels={8 / 48},rise=1}}", (IMAGES,))
    assert sparse.densities() == {"0.weight:0": 0.5, "3.weight:0": 1.0}
    np.testing.assert_array_equal(sparse.layers[0][1][0].held.mask.numpy(), np.arange(16) >= 8)
