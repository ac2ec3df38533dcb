"""Random graphs whose layers choose channels of their own: however they get them, the compact graph is exact."""

from __future__ import annotations

import random

import pytest
from hypothesis import note

from prunec.ir.errors import BudgetError, VerificationError
from prunec.ir.graph import Graph
from prunec.passes.base import State
from prunec.passes.runner import Runner
from prunec.passes.target import find_target
from prunec.recipe import Recipe

from . import onnx_program, onnx_rules, torch_program, torch_rules
from .batches import throw
from .checks import OnnxSubject, TorchSubject

assert torch_rules and onnx_rules, "importing them enters their rules"

pytestmark = pytest.mark.fuzz

_PIPELINE = (
    "score{{method=random}},groups{{mode=unconstrained}},plan{{ratio=0.4,align=1,floor=0}},layout{{{layout}}},"
    "eliminate,{then}verify"
)
_LAYOUTS = {
    "copies=naive": "reorder,",
    "copies=forbid,restore=none": "",
    "copies=cheapest": "",
    "copies=cheapest,align=4,restore=all": "reorder,",
}


def _holds(graph: Graph, dice: random.Random, drawn: list[str]) -> None:
    """Each layout is proved; networks that need all they have, or that no mask moves, prove nothing."""
    note(f"rules: {', '.join(drawn)}")
    for layout, then in _LAYOUTS.items():
        note(layout)
        state = State(graph, graph, find_target("generic"), dice.randrange(1 << 16))
        pipeline = _PIPELINE.format(layout=layout, then=then)
        try:
            Runner(ensured={"canonical"}).run(Recipe.parse(pipeline), state)
        except BudgetError:
            continue
        except VerificationError as error:
            if "could not fail" not in str(error):
                raise


def torch_graph(dice: random.Random) -> None:
    module, inputs, drawn = torch_program.program(dice)
    _holds(TorchSubject(module, inputs).graph, dice, drawn)


def onnx_graph(dice: random.Random) -> None:
    model, drawn = onnx_program.program(dice)
    _holds(OnnxSubject(model).graph, dice, drawn)


def test_random_torch_graphs(batch: int) -> None:
    throw(batch, torch_graph, size=2)


def test_random_onnx_graphs(batch: int) -> None:
    throw(batch, onnx_graph, size=2)
