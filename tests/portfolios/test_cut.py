"""Channels cut from a network, and an earlier state of it cut alike."""

from __future__ import annotations

import pytest
import torch

from prunec.ir.errors import BudgetError, ModelError
from prunec.portfolios.cut import cut_alike, cut_to, parameters
from prunec.portfolios.job import Job
from prunec.portfolios.tensors import State, copied, read, written

from .nets import Net, net

JOB = Job("nets.py:net", (0.5,))


def test_a_state_is_cut_as_the_network_is() -> None:
    """Compared with slicing by hand, from which channels stay."""
    torch.manual_seed(0)
    model, inputs = net()
    early = {name: torch.randn_like(t) if t.is_floating_point() else t for name, t in model.state_dict().items()}
    result = cut_to(JOB, model.eval(), inputs, 0.5)
    assert result.module is not None
    found = cut_alike(early, result.kept, copied(result.module))
    a, b = result.kept["a.weight"][0], result.kept["b.weight"][0]
    assert a is not None and b is not None and 0 < a.size < 12 and 0 < b.size < 16
    by_hand = {
        "a.weight": early["a.weight"][a],
        **{f"norm.{n}": early[f"norm.{n}"][a] for n in ("weight", "bias", "running_mean", "running_var")},
        "norm.num_batches_tracked": early["norm.num_batches_tracked"],
        "b.weight": early["b.weight"][b][:, a],
        "b.bias": early["b.bias"][b],
        "head.weight": early["head.weight"][:, b],
        "head.bias": early["head.bias"],
    }
    assert found.keys() == by_hand.keys()
    assert all(torch.equal(found[name], by_hand[name]) for name in found)
    result.module.load_state_dict(found)


@pytest.mark.parametrize("wrong", ["missing", "shape"])
def test_a_state_that_does_not_fit_is_an_error(wrong: str) -> None:
    smaller = {"w": torch.zeros(2, 3)}
    state: State = {} if wrong == "missing" else {"w": torch.zeros(4, 4)}
    with pytest.raises(ModelError, match="w of the compact network"):
        cut_alike(state, {"w": (torch.arange(2).numpy(), None)}, smaller)


def test_the_budget_is_of_the_dense_network() -> None:
    torch.manual_seed(0)
    model, inputs = net()
    dense = parameters(model.eval(), inputs)
    assert dense == sum(p.numel() for p in model.parameters())
    first = cut_to(JOB, model, inputs, 0.7)
    second = cut_to(JOB, first.module.eval(), inputs, 0.4, dense)  # type: ignore[union-attr]
    assert second.report["params"]["compact"] <= 0.4 * dense
    assert second.report["params"]["compact"] > 0.25 * dense
    assert second.report["verify"]["max_rel_err"] < 1e-5


def test_a_network_that_cannot_become_so_small() -> None:
    model, inputs = net()
    with pytest.raises(BudgetError, match="cannot be met"):
        cut_to(JOB, model.eval(), inputs, 0.001)


def test_tensors_come_back_as_they_were() -> None:
    tied = torch.randn(3)
    state = {"a": torch.randn(3, 4).t(), "b": tied, "c": tied, "n": torch.tensor(3), "m": torch.tensor([True, False])}
    found = read(written(state))
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], state[name]) and found[name].dtype == state[name].dtype for name in state)


def test_a_copy_is_no_view() -> None:
    model = Net()
    state = copied(model)
    with torch.no_grad():
        model.head.bias.add_(1)
    assert not torch.equal(state["head.bias"], model.head.bias)
