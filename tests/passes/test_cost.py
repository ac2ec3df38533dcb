"""What is counted, and what is said of that which is not."""

from __future__ import annotations

import torch
from onnx import ModelProto
from torch import nn

import prunec
from prunec.ir.opset import OPS
from prunec.ir.signature import Signature, is_prunable
from prunec.passes.groups import find_groups  # noqa: F401  (fills the registry of ops)
from prunec.passes.runner import Runner
from prunec.recipe import Recipe

from ..ir.test_onnx_frontend import analysed, build, node, weight
from ..models.oracle import known, subject


def odd() -> ModelProto:
    """Two normalisations whose scale is broadcast: not understood, though they carry one parameter each."""
    nodes = [
        node("MatMul", "x b", "k"),
        node("MatMul", "k a", "h"),
        node("LayerNormalization", "h g", "n"),
        node("LayerNormalization", "n g", "m"),
        node("MatMul", "m v", "y"),
    ]
    return build(
        nodes, {"b": weight(12, 8), "a": weight(8, 6), "g": weight(1), "v": weight(6, 2)}, {"x": ("N", "S", 12)}
    )


def test_ops_that_are_not_understood_are_named_with_what_they_carry() -> None:
    _, groups = analysed(odd())
    assert [str(u) for u in groups.cost.uncounted()] == ["LayerNormalization (2 of them, 2 parameters)"]


def test_ops_without_parameters_are_named_too() -> None:
    (found,) = known("custom_op").groups.cost.uncounted()
    assert (found.kind, found.ops, found.params) == ("prunec_tests.twice.default", 1, 0)
    assert str(found) == "prunec_tests.twice.default"


def test_nothing_is_said_where_everything_is_counted() -> None:
    assert known("lstm").groups.cost.uncounted() == []
    state = known("lstm").state()
    Runner(ensured={"canonical"}).run(Recipe.parse("groups"), state)
    assert state.notes == []


def test_the_note_is_written_once() -> None:
    state = known("custom_op").state()
    for _ in range(2):
        Runner(ensured={"canonical"}).run(Recipe.parse("groups"), state)
    assert state.notes == [
        "MACs of 1 op is not counted: prunec_tests.twice.default; the budget of MACs does not see them"
    ]


def test_the_report_says_it() -> None:
    result = prunec.compile(odd(), macs=0.9, measure=False)
    assert any("MACs of 2 ops are not counted: LayerNormalization" in note for note in result.report["notes"])


class Transposed(nn.Module):
    """A convolution that is declared, in a spelling that is not."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 4, 3, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        none: list[int] = [0, 0]
        return torch.convolution(x, self.weight, None, [1, 1], none, [1, 1], True, none, 1)


def test_a_form_that_is_declined_is_not_counted_either() -> None:
    found = subject(Transposed().double(), (torch.randn(2, 3, 5, 5, dtype=torch.float64),)).groups.cost.uncounted()
    assert [str(u) for u in found] == ["aten.convolution.default (108 parameters)"]


def summed_letters(signature: Signature) -> set[str]:
    """Letters that stand in two operands and in no result: products are summed over them."""
    each = [{x for term in operand for x in term.letters} for operand in signature.operands]
    left = {x for k, one in enumerate(each) for x in one if is_prunable(x) and any(x in o for o in each[:k])}
    return left - {x for result in signature.results for term in result for x in term.letters}


def test_an_op_that_sums_products_says_what_it_costs() -> None:
    summing = {op.name for op in OPS.values() if op.signature is not None and summed_letters(op.signature)}
    assert {"conv", "linear", "matmul", "attention", "recurrent_cell"} <= summing
    assert {name for name in summing if OPS[name].macs is None} == set()
