"""Planners: budgets met and as full as rounding allows, under every constraint."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from prunec.ir.errors import BudgetError, UsageError
from prunec.passes.base import State
from prunec.passes.plan.global_plan import MakePlan
from prunec.passes.plan.patterns import chosen
from prunec.passes.plan.plan import Plan

from ..models import oracle
from ..models.oracle import Subject
from .subjects import mlp, with_groups


@pytest.fixture(scope="module")
def subject() -> Subject:
    """Hidden layers of 8 and 16 units."""
    return mlp(4, 8, 16, 2)


def planned(subject: Subject, scores: Any = None, **options: Any) -> tuple[Plan, State]:
    """A plan for given scores of the prunable units (rising ones when None)."""
    state = with_groups(subject)
    groups = subject.groups
    state.facts["scores"] = np.zeros(groups.analysis.solution.units)
    state.facts["scores"][groups.prunable] = np.arange(groups.prunable.size) + 1.0 if scores is None else scores
    return MakePlan(**{"align": 1, "floor": 0.0, **options}).run(state), state


def kept(plan: Plan) -> list[int]:
    return [n - len(plan.dropped[name]) for name, n in plan.sizes.items()]


def test_global_drops_the_lowest_of_all(subject: Subject) -> None:
    """Scores 1 … 24: the first group holds the eight lowest, of which the best stays."""
    plan, _ = planned(subject, ratio=0.5)
    assert kept(plan) == [1, 11]
    assert list(plan.dropped.values()) == [tuple(range(7)), tuple(range(5))]
    assert plan.reached["ratio"] == 0.5
    assert plan.budget == {"ratio": 0.5}


def test_global_ranks_units_against_each_other(subject: Subject) -> None:
    scores = np.random.default_rng(0).permutation(24) + 1.0
    plan, _ = planned(subject, scores, ratio=0.5)
    gone = plan.units(subject.groups)
    assert set(np.searchsorted(subject.groups.prunable, gone)) == set(np.argsort(scores)[:12])


def test_uniform_cuts_each_group_alike(subject: Subject) -> None:
    plan, _ = planned(subject, ratio=0.5, scope="uniform")
    assert kept(plan) == [4, 8]
    assert list(plan.dropped.values()) == [tuple(range(4)), tuple(range(8))]


@pytest.mark.parametrize("scope", ["global", "uniform"])
@pytest.mark.parametrize("which", ["macs", "params"])
@pytest.mark.parametrize("budget", [0.2, 0.5, 0.77, 1.0])
def test_a_budget_is_met_and_as_full_as_rounding_allows(
    subject: Subject, scope: str, which: str, budget: float
) -> None:
    scores = np.random.default_rng(1).uniform(1, 2, 24)
    plan, _ = planned(subject, scores, **{which: budget}, scope=scope)
    groups = subject.groups
    measure = getattr(groups.cost, which)
    dense = measure(groups.alive(np.zeros(0, np.int64)))
    compact = measure(groups.alive(plan.units(groups)))
    assert plan.reached[which] == pytest.approx(compact / dense)
    assert compact / dense <= budget + 1e-9
    for name, gone in plan.dropped.items():  # one unit more of any group misses the budget
        if gone:
            wider = Plan({**plan.dropped, name: gone[1:]}, plan.sizes, {}, {})
            assert measure(groups.alive(wider.units(groups))) / dense > budget


def _reachable(subject: Subject, scores: Any, which: str, budget: float, align: int) -> bool:
    """Whether one block of each group, the best units, meets the budget."""
    groups = subject.groups
    gone = [g.units[np.argsort(-scores[np.searchsorted(groups.prunable, g.units)])][align:] for g in groups.groups]
    if which == "ratio":
        return sum(map(len, gone)) / groups.prunable.size >= budget
    measure = getattr(groups.cost, which)
    return bool(measure(groups.alive(np.concatenate(gone))) / measure(groups.alive(np.zeros(0, np.int64))) <= budget)


@given(
    st.sampled_from(["ratio", "macs", "params"]), st.floats(0.15, 0.9), st.sampled_from([1, 2, 4]), st.integers(0, 99)
)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_every_plan_keeps_its_promises(which: str, budget: float, align: int, seed: int) -> None:
    subject = oracle.known("plain")
    scores = np.random.default_rng(seed).uniform(0.1, 2, subject.groups.prunable.size)
    options: dict[str, Any] = {which: budget, "align": align}
    if not _reachable(subject, scores, which, budget, align):
        with pytest.raises(BudgetError):
            planned(subject, scores, **options)
        return
    plan, _ = planned(subject, scores, **options)
    assert all(k % align == 0 or k == n for k, n in zip(kept(plan), plan.sizes.values(), strict=True))
    reached = plan.reached[which]
    assert reached >= budget - 1e-9 if which == "ratio" else reached <= budget + 1e-9
    assert subject.leaves_something(plan.units(subject.groups))


def test_align_rounds_to_blocks(subject: Subject) -> None:
    plan, _ = planned(subject, ratio=0.5, align=4)
    assert all(k % 4 == 0 for k in kept(plan))
    assert plan.reached["ratio"] >= 0.5


def test_align_auto_is_the_targets_block(subject: Subject) -> None:
    """The generic target knows no block."""
    assert kept(planned(subject, ratio=0.5, align="auto")[0]) == kept(planned(subject, ratio=0.5, align=1)[0])


def test_align_counts_positions_not_units() -> None:
    """A head spans several positions: its count need not be a multiple of the block."""
    plan, _ = planned(oracle.known("packed_attention"), ratio=0.3, align=4)
    heads = [k for k, n in zip(kept(plan), plan.sizes.values(), strict=True) if n == 3]
    assert heads
    assert heads[0] in (1, 2, 3)


def test_heads_and_head_dimensions_are_two_groups() -> None:
    groups = oracle.known("packed_attention").groups.groups
    assert [(g.name, len(g)) for g in groups] == [("qkv.weight:0", 3), ("qkv.weight:0#2", 4)]
    plan, _ = planned(oracle.known("packed_attention"), ratio=0.5, scope="uniform")
    assert kept(plan) in ([2, 2], [1, 2])


def test_floor_and_ceiling(subject: Subject) -> None:
    assert kept(planned(subject, ratio=0.5, floor=0.5)[0]) == [4, 8]
    assert kept(planned(subject, ratio=0.0, ceiling=0.5)[0]) == [4, 8]
    assert kept(planned(subject, ratio=0.4, floor=0.25)[0]) == [2, 12]


@pytest.mark.parametrize(
    ("options", "touched"),
    [
        ({"targets": ("0.weight",)}, [True, False]),
        ({"targets": ("2.*",)}, [False, True]),
        ({"ignore": ("0.weight:0",)}, [False, True]),
        ({"ignore": ("re:^2[.]",)}, [True, False]),
        ({"targets": ("type:linear",)}, [True, True]),
        ({"targets": ("*",), "ignore": ("re:^0",)}, [False, True]),
        ({"ignore": ("4.*", "4.weight")}, [True, True]),
    ],
)
def test_targets_and_ignore(subject: Subject, options: dict[str, Any], touched: list[bool]) -> None:
    plan, _ = planned(subject, ratio=0.25, scope="uniform", **options)
    assert [bool(gone) for gone in plan.dropped.values()] == touched


def test_no_group_is_left(subject: Subject) -> None:
    plan, state = planned(subject, ratio=0.5, targets=("0.*",), ignore=("0.*",))
    assert not any(plan.dropped.values())
    assert state.notes == ["nothing was pruned: targets and ignore leave no group"]


@pytest.mark.parametrize(
    ("options", "message", "near"),
    [
        ({"targets": ("2.wieght",)}, "plan{targets}: pattern '2.wieght' matches nothing", "2.weight"),
        ({"targets": ("*", "5.*")}, "plan{targets}: pattern '5.*' matches nothing", ""),
        ({"targets": ("4.weight",)}, "plan{targets}: pattern '4.weight' matches only what is pinned", ""),
        ({"targets": ("type:elementwise",)}, "plan{targets}: pattern 'type:elementwise' matches nothing", "parameters"),
        ({"ignore": ("type:elementwise",)}, "plan{ignore}: pattern 'type:elementwise' matches nothing", "parameters"),
        ({"ignore": ("0.wait",)}, "plan{ignore}: pattern '0.wait' matches nothing", "0.weight"),
        ({"ignore": ("type:linaer",)}, "plan{ignore}: pattern 'type:linaer' matches nothing", "type:linear"),
        ({"ignore": ("re:linear",)}, "plan{ignore}: pattern 're:linear' matches nothing", ""),
    ],
)
def test_a_pattern_that_means_nothing(subject: Subject, options: dict[str, Any], message: str, near: str) -> None:
    with pytest.raises(UsageError) as error:
        planned(subject, ratio=0.25, **options)
    assert error.value.message.startswith(message)
    assert near in error.value.hint
    assert "`prunec analyze`" in error.value.hint


def test_a_tied_weight_has_all_its_names() -> None:
    first, last = nn.Linear(4, 8), nn.Linear(4, 8)
    last.weight = first.weight
    model = nn.Sequential(first, nn.ReLU(), nn.Linear(8, 4), nn.ReLU(), last, nn.ReLU(), nn.Linear(8, 2))
    groups = oracle.subject(model.double(), (torch.randn(2, 4).double(),)).groups
    for name in ("0.weight", "4.weight"):
        assert [g.name for g in chosen(groups, MakePlan(ratio=0.5, targets=(name,)))] == ["0.weight:0"]
        assert chosen(groups, MakePlan(ratio=0.5, ignore=(name,))) == []


def test_nothing_to_prune_is_said() -> None:
    plan, state = planned(oracle.known("index_of_channels"), ratio=0.5)
    assert not any(plan.dropped.values())
    assert "no prunable unit" in state.notes[0]


@pytest.mark.parametrize("name", ["channel_shuffle", "dense_concat", "matmul_attention", "grouped_query_decoder"])
@pytest.mark.parametrize("seed", range(4))
def test_every_axis_keeps_a_position(name: str, seed: int) -> None:
    """Slices, halves and heads too, however the scores fall."""
    subject = oracle.known(name)
    scores = np.random.default_rng(seed).uniform(0.1, 1, subject.groups.prunable.size)
    try:
        plan, _ = planned(subject, scores, params=0.25)
    except BudgetError:
        plan, _ = planned(subject, scores, params=0.6)
    gone = plan.units(subject.groups)
    assert gone.size
    assert subject.leaves_something(gone)


def test_ratio_zero_drops_nothing_and_says_nothing(subject: Subject) -> None:
    plan, state = planned(subject, ratio=0.0)
    assert not any(plan.dropped.values())
    assert state.notes == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"macs": 0.01}, "the budget macs=0.01 cannot be met; the smallest plan reaches macs 0."),
        ({"params": 0.01}, "the budget params=0.01 cannot be met"),
        ({"ratio": 0.6, "floor": 0.5}, "the budget ratio=0.6 cannot be met; the smallest plan reaches ratio 0.5"),
        ({"macs": 0.5, "targets": ("0.*",), "ignore": ("0.*",)}, "cannot be met"),
        ({"ratio": 0.99}, "cannot be met"),
    ],
)
def test_budgets_that_cannot_be_met(subject: Subject, options: dict[str, Any], message: str) -> None:
    with pytest.raises(BudgetError) as error:
        planned(subject, **options)
    assert message in error.value.message
    assert error.value.exit_code == 5
    assert error.value.data["budget"] == {k: v for k, v in options.items() if k in ("ratio", "macs", "params")}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratio": 1.0}, r"plan\{ratio\} cannot be 1.0"),
        ({"ratio": -0.1}, r"plan\{ratio\} cannot be -0.1"),
        ({"ratio": float("nan")}, r"plan\{ratio\} cannot be nan"),
        ({"macs": 0.0}, r"plan\{macs\} cannot be 0.0"),
        ({"params": 1.5}, r"plan\{params\} cannot be 1.5"),
        ({"ratio": 0.5, "floor": 2.0}, r"plan\{floor\} cannot be 2.0"),
        ({"ratio": 0.5, "floor": 0.6, "ceiling": 0.5}, "floor 0.6 is above ceiling 0.5"),
        ({"ratio": 0.5, "align": 0}, r"plan\{align\} cannot be 0"),
        ({}, "no budget given"),
        ({"ratio": 0.5, "ignore": ("re:(",)}, "is no regular expression"),
    ],
)
def test_options_that_make_no_sense(subject: Subject, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        planned(subject, **options)


def test_a_plan_survives_json(subject: Subject) -> None:
    import json

    plan, _ = planned(subject, ratio=0.5)
    again = Plan.from_json(json.loads(json.dumps(plan.to_json())))
    assert again == plan
    np.testing.assert_array_equal(again.units(subject.groups), plan.units(subject.groups))


def test_two_budgets_at_once(subject: Subject) -> None:
    plan, _ = planned(subject, macs=0.5, params=0.4)
    assert plan.reached["macs"] <= 0.5
    assert plan.reached["params"] <= 0.4
