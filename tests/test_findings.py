"""What ``prunec analyze`` finds in each group: layers, scores, costs, pins; and what is not understood."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import prunec
from prunec.findings import findings, spread
from prunec.passes.target import find_target

from .models import micro, oracle


def found(name: str, method: str | None = None) -> dict[str, Any]:
    return findings(oracle.known(name).groups, find_target("generic"), method)


def two_layers() -> tuple[nn.Module, Any]:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 5)), (torch.randn(2, 3),)


def test_a_group_has_layers_scores_and_costs() -> None:
    model, inputs = two_layers()
    data = prunec.analyze(model, inputs, score="l1")
    (group,) = data["groups"]
    assert (group["layers"], group["parameters"]) == (["0", "2"], [["0.weight", 0], ["0.bias", 0], ["2.weight", 1]])
    weights = {n: p.detach().abs() for n, p in model.named_parameters()}
    l1 = (weights["0.weight"].sum(1) + weights["0.bias"] + weights["2.weight"].sum(0)).numpy()
    assert group["scores"] == pytest.approx(spread(l1.astype(np.float64)), rel=1e-5)
    assert list(group["scores"]) == ["min", "lower", "median", "upper", "max"]
    assert group["cost"] == {"unit_macs": 8, "unit_params": 9, "macs_share": 1, "params_share": 72 / 77}
    assert (data["macs"], data["params"], data["criterion"]) == (64, 77, "l1")
    assert json.loads(json.dumps(data))["groups"] == data["groups"]


def test_pins_beside_a_group_are_named_by_their_numbers() -> None:
    data = found("relative_bias")
    beside = {g["name"]: g["pins"] for g in data["groups"]}
    for name, numbers in beside.items():
        places = next(g["parameters"] for g in data["groups"] if g["name"] == name)
        for k, pin in enumerate(data["pins"]):
            assert (k in numbers) == any(list(place) in places for place in pin["parameters"])


def test_pins_say_which_axis_of_which_value() -> None:
    (pin,) = (p for p in found("plain")["pins"] if p["cause"] == "aten.conv2d.default")
    first = pin["parameters"][0][0]
    assert [list(place) for place in pin["axes"]] == [[first, 2], [first, 3]]
    (output,) = (p for p in found("plain")["pins"] if p["cause"] == "output")
    assert [axis for _, axis in output["axes"]] == [1]


def test_an_op_that_no_unit_passes_costs_nothing_and_stands_last() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.layers = nn.Embedding(9, 3), two_layers()[0]

        def forward(self, ids: torch.Tensor) -> Any:
            x = torch.linalg.vector_norm(self.layers(self.table(ids)), dim=-1, keepdim=True)
            return self.table(ids).logcumsumexp(1), x * torch.diff(ids, dim=1).sum()

    data = prunec.analyze(Masked(), (torch.randint(0, 9, (2, 4)),))
    kinds = [o["kind"] for o in data["opaque"]]
    assert kinds[-1] == "aten.diff.default"
    assert (data["opaque"][-1]["cost"], data["opaque"][-1]["pins"]) == (0, [])
    assert list(data["opaque_ops"]) == sorted(data["opaque_ops"], key=lambda k: -data["opaque_ops"][k])


def test_weights_that_cannot_be_ranked_leave_the_scores_out() -> None:
    model, inputs = two_layers()
    with torch.no_grad():
        model[0].weight[0, 0] = torch.nan  # type: ignore[index]
    data = prunec.analyze(model, inputs)
    assert [g["scores"] for g in data["groups"]] == [None]
    lamp = "criterion 'lamp' gave NaN or infinite scores for 8 units"
    assert data["notes"] == [f"no scores: scoring: {lamp}; parameter '0.weight' is not finite"]
    with pytest.raises(prunec.ModelError, match="NaN"):
        prunec.analyze(model, inputs, score="l1")


@pytest.mark.parametrize("name", sorted(micro.OPAQUE))
def test_what_is_not_understood_is_listed_with_its_nodes_and_reasons(name: str) -> None:
    data = found(name)
    assert {o["kind"]: o["cost"] for o in data["opaque"]} == data["opaque_ops"]
    for kind in data["opaque"]:
        assert kind["nodes"] and kind["why"]
        assert all(data["pins"][k]["cause"] == kind["kind"] for k in kind["pins"])
        assert kind["pins"] or kind["cost"] == 0
