"""Why units cannot be removed: each cause with the units that it holds."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from prunec.ir.analysis import analyse
from prunec.ir.pins import Pin, pins

from ..models import oracle


def found(name: str) -> list[Pin]:
    return pins(oracle.known(name).groups.analysis)


def test_the_outputs_are_one_cause() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 5))
    analysis = oracle.subject(model.double(), (torch.randn(2, 3, 4, 4).double(),)).groups.analysis
    first, second = pins(analysis)
    assert (first.cause, first.why, first.units, first.alone) == (
        "aten.conv2d.default",
        "its declaration keeps the axis",
        6,
        6,
    )
    assert first.parameters == (("0.weight", 2), ("0.weight", 3))
    assert (second.cause, second.why, second.units, second.alone) == ("output", "its shape is kept", 5, 5)
    assert second.parameters == (("3.weight", 0), ("3.bias", 0))
    assert not second.opaque


def test_an_op_that_is_not_understood_holds_what_it_costs() -> None:
    kind = "prunec_tests.twice.default"
    analysis = oracle.known("custom_op").groups.analysis
    (opaque,) = (pin for pin in pins(analysis) if pin.opaque)
    assert (opaque.cause, opaque.why) == (kind, "no declaration for this op")
    assert opaque.units == opaque.alone == analysis.opaque_costs()[kind]
    assert opaque.parameters == (("a.weight", 0), ("a.bias", 0))


def test_nodes_that_differ_in_their_place_alone_are_one_cause() -> None:
    (pin,) = (pin for pin in found("multihead_attention") if "select" in pin.cause)
    assert len(pin.nodes) == 3
    assert pin.why == "selected by its number"


@pytest.mark.parametrize(
    "name",
    "plain multihead_attention grouped_query_decoder relative_bias index_of_channels lstm custom_op".split(),
)
def test_the_causes_account_for_every_unit_that_is_pinned(name: str) -> None:
    analysis = analyse(oracle.known(name).graph)
    causes = pins(analysis)
    held = analysis.pinned_units()
    assert sum(pin.alone for pin in causes) <= held <= sum(pin.units for pin in causes)
    assert [pin.units for pin in causes] == sorted((pin.units for pin in causes), reverse=True)
    assert all(pin.parameters and pin.nodes and 0 <= pin.alone <= pin.units for pin in causes)
