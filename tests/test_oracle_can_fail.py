"""The compiler broken on purpose: ``verify`` must see each of these, or it proves nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from prunec.ir import analysis as analysis_room
from prunec.ir import arrays
from prunec.ir.analysis import Analysis
from prunec.ir.errors import VerificationError
from prunec.ir.frontends import fx_names
from prunec.ir.graph import Graph
from prunec.ir.ops import recurrent
from prunec.ir.opset import Op
from prunec.passes import idle, levels, verify
from prunec.passes.affine import affine
from prunec.passes.base import State
from prunec.passes.difference import relative_error
from prunec.passes.runner import Runner
from prunec.recipe import Recipe

from .models import micro, oracle
from .models.oracle import Subject

HALF = "score{method=l2},plan{ratio=0.5,align=1},eliminate,fold,verify"


def pruned(subject: Subject, pipeline: str = HALF) -> State:
    return Runner(ensured={"canonical"}).run(Recipe.parse(pipeline), subject.state())


def fresh(name: str) -> Subject:
    return oracle.subject(*micro.build(name))


def test_the_compiler_as_it_is_passes() -> None:
    for name in ("grouped", "plain", "packed_attention", "zero_head"):
        assert pruned(fresh(name)).facts["verified"]["ok"]


def test_a_refit_that_forgets_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Op.refitted
    monkeypatch.setattr(Op, "refitted", lambda op, f: {k: v for k, v in honest(op, f).items() if k != "groups"})
    with pytest.raises(VerificationError):
        pruned(fresh("grouped"), HALF.replace("fold,", ""))


@pytest.mark.parametrize("name", ["plain", "zero_head", "flatten_conv", "unet", "layer_norm"])
def test_kept_indices_that_are_off_by_one(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The error sits in what is sliced alone; with a zero head the outputs agree, and the check still sees it."""
    honest = arrays.keep

    def shifted(data: Any, kept: tuple[Any, ...]) -> Any:
        return honest(data, tuple(k if k is None or d else (k + 1) % data.shape[d] for d, k in enumerate(kept)))

    monkeypatch.setattr(arrays, "keep", shifted)
    with pytest.raises(VerificationError):
        pruned(fresh(name))


def test_kept_indices_that_are_off_by_one_in_the_masked_model_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same mistake on both sides of the comparison: rows and columns no longer agree."""
    honest = Analysis.kept

    def shifted(self: Analysis, value: Any, alive: Any) -> Any:
        found = honest(self, value, alive)
        return tuple(k if k is None or d else (k + 1) % value.shape[d] for d, k in enumerate(found))

    monkeypatch.setattr(Analysis, "kept", shifted)
    with pytest.raises(VerificationError):
        pruned(fresh("plain"))


@pytest.mark.parametrize("name", ["packed_attention", "multihead_attention", "grouped_query_flag"])
def test_an_attention_scale_that_stays_implicit(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(fx_names, "explicit", lambda graph, node: {})
    with pytest.raises(VerificationError):
        pruned(fresh(name))


@pytest.mark.parametrize("name", ["lstm", "gru_in_both_directions", "lstm_with_dropout"])
@pytest.mark.parametrize(("right", "wrong"), [("(G h)", "(h G)"), ("(G h) h", "(G h) K"), ("D B h", "D B K")])
def test_hidden_units_that_are_looked_for_in_the_wrong_place(
    monkeypatch: pytest.MonkeyPatch, name: str, right: str, wrong: str
) -> None:
    """Gates in another order, columns of the state or initial states that stay."""
    honest = recurrent._applied
    monkeypatch.setattr(recurrent, "_applied", lambda site, left, out: honest(site, left.replace(right, wrong), out))
    with pytest.raises(VerificationError):
        pruned(fresh(name))


class AttentionWithZeroHead(nn.Module):
    """Trap 1: whatever happens before the head, the output is zero."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.head = nn.Linear(12, 36), nn.Linear(12, 5)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).reshape(*x.shape[:2], 3, 3, 4).permute(2, 0, 3, 1, 4).unbind(0)
        y = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.head(y.transpose(1, 2).reshape(*x.shape[:2], 12))  # type: ignore[no-any-return]


def test_a_zero_head_does_not_hide_a_wrong_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model, inputs = AttentionWithZeroHead().double(), oracle.fresh_inputs(micro.tokens(), 0)
    inputs = (inputs[0].double(),)  # type: ignore[index]
    assert pruned(oracle.subject(model, inputs)).facts["verified"]["ok"]
    monkeypatch.setattr(fx_names, "explicit", lambda graph, node: {})
    subject = oracle.subject(model, inputs)
    assert subject.error(subject.groups.prunable[-1:]) == 0, "the model's own weights hide the mistake"
    with pytest.raises(VerificationError, match=r"with random weights|dropped alone"):
        pruned(subject)


def test_an_index_that_still_counts_from_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fx_names, "explicit", lambda graph, node: {})
    subject = fresh("counted_from_the_end")
    with pytest.raises(VerificationError, match="dropped alone"):
        pruned(subject, "score,plan{ratio=0},eliminate,verify")


class Reversed(nn.Module):
    """An op that is not known and keeps the shape of whatever it gets: without its pin nothing crashes."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.ops.prunec_tests.reverse(torch.tanh(self.a(x))))  # type: ignore[no-any-return]


@torch.library.custom_op("prunec_tests::reverse", mutates_args=())
def reverse(x: Tensor) -> Tensor:
    return x.flip(1)


@reverse.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


def test_an_opaque_op_without_its_pin(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mistake here: what comes out is taken to have the axes of what went in."""
    torch.manual_seed(0)
    model, inputs = Reversed().double(), (torch.randn(2, 6, dtype=torch.float64),)
    assert oracle.subject(model, inputs).groups.prunable.size == 0
    monkeypatch.setattr(analysis_room, "_pin", lambda atoms, axes, node, why: [axes[node.inputs[0]]])
    subject = oracle.subject(model, inputs)
    assert subject.groups.prunable.size == 8
    with pytest.raises(VerificationError):
        pruned(subject)


class ConstantBeforePadding(nn.Module):
    """Filters of zeros with a bias: sigmoid(bias) flows into a convolution that pads."""

    def __init__(self, padding: int) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 4, 3, padding=padding)
        with torch.no_grad():
            self.a.weight[:2] = 0

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.sigmoid(self.a(x)))  # type: ignore[no-any-return]


def test_a_padded_constant_that_is_folded(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    inputs = (torch.randn(2, 3, 8, 8, dtype=torch.float64),)
    gentle = "score,plan{ratio=0},eliminate,fold,verify"
    subject = oracle.subject(ConstantBeforePadding(1).double(), inputs)
    assert pruned(subject, gentle).facts["verified"]["ok"]
    for module in (levels, idle):
        monkeypatch.setattr(module, "usable", lambda node, level: level)
    with pytest.raises(VerificationError, match="in the graph for inference"):
        pruned(subject, gentle)


def test_a_batch_norm_folded_with_the_wrong_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    from prunec.passes import fold

    honest = affine
    monkeypatch.setattr(fold, "affine", lambda graph, norm: (honest(graph, norm)[0] * 1.001, honest(graph, norm)[1]))
    with pytest.raises(VerificationError, match="in the graph for inference"):
        pruned(fresh("plain"))


def test_a_norm_whose_statistics_see_the_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trap 5: without the restriction to survivors the masked model is another one."""
    from prunec.passes import rewrite

    monkeypatch.setattr(rewrite, "normalises_dead", lambda site, alive: False)
    with pytest.raises(VerificationError):
        pruned(fresh("layer_norm"))


def test_a_mask_that_moves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A check whose two sides cannot differ is refused."""
    monkeypatch.setattr(verify, "mask", lambda analysis, *given: analysis.graph)
    monkeypatch.setattr(verify, "eliminate", lambda analysis, *given: analysis.graph)
    state = fresh("plain").state()
    runner = Runner(ensured={"canonical"})
    runner.run(Recipe.parse("score,plan{ratio=0.5,align=1}"), state)
    groups = state.facts["groups"]
    state.facts["alive"] = groups.alive(state.facts["plan"].units(groups))
    with pytest.raises(VerificationError, match="the mask does not move the output"):
        runner.run(Recipe.parse("verify"), state)


class Constant(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.relu(self.a(x * 0)))  # type: ignore[no-any-return]


def test_an_output_that_does_not_depend_on_the_input() -> None:
    with pytest.raises(VerificationError, match="does not depend on the input"):
        pruned(oracle.subject(Constant().double(), (torch.randn(2, 6, dtype=torch.float64),)))


def test_outputs_that_are_not_finite() -> None:
    assert relative_error([np.ones(3)], [np.array([1.0, np.nan, 1.0])]) == float("inf")
    assert relative_error([np.ones(3)], [np.ones(4)]) == float("inf")
    assert relative_error([np.ones(3)], []) == float("inf")
    assert relative_error([np.array([1.0, 4.0])], [np.array([1.0, 3.0])]) == 0.25
    assert relative_error([np.array([1, 2])], [np.array([1, 3])]) == 1.0


def test_a_compact_graph_that_does_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = arrays.keep
    monkeypatch.setattr(arrays, "keep", lambda data, kept: honest(data, (kept[0], *[None] * (len(kept) - 1))))
    with pytest.raises(VerificationError, match="the compact graph does not run"):
        pruned(fresh("plain"), HALF.replace("fold,", ""))


def test_nothing_of_this_leaves_a_trace() -> None:
    assert isinstance(fresh("plain").graph, Graph)
    assert pruned(fresh("plain")).facts["verified"]["max_rel_err"] < 1e-9
