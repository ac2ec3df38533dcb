"""Units dropped in several steps, scored anew on the network that remains before each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from prunec.ir.errors import BudgetError, ModelError, UsageError
from prunec.passes.base import PASSES, Kind, Pass, State
from prunec.passes.plan.global_plan import MakePlan
from prunec.passes.plan.plan import Plan
from prunec.passes.plan.standing import Standing
from prunec.passes.remaining import remaining
from prunec.passes.rewrite import kept_indices
from prunec.passes.runner import Runner
from prunec.passes.score.again import scored_again
from prunec.passes.score.scoring import CRITERIA, ELEMENTS, Score, Scores, Scoring
from prunec.recipe import Recipe

from ..models import oracle
from ..models.oracle import Subject
from .subjects import mlp, with_groups
from .test_initialisation import vgg


def planned(subject: Subject, pipeline: str, **context: Any) -> tuple[Plan, State]:
    """The plan of a pipeline of criteria and planners."""
    state = with_groups(subject)
    state.context.update(context)
    Runner(ensured={"canonical", "groups"}).run(Recipe.parse(pipeline), state)
    return state.facts["plan"], state


def kept(plan: Plan) -> list[int]:
    return [n - len(plan.dropped[name]) for name, n in plan.sizes.items()]


def weak_link(bias: bool = False) -> Subject:
    """Two layers of two hidden units, W1 = (1, 2), W2 = ((1, 6), (5, 1)), W3 = (1, 4)."""
    layers = [nn.Linear(1, 2, bias=bias), nn.Linear(2, 2, bias=bias), nn.Linear(2, 1, bias=bias)]
    for layer, numbers in zip(layers, ([[1.0], [2.0]], [[1.0, 6.0], [5.0, 1.0]], [[1.0, 4.0]]), strict=True):
        with torch.no_grad():
            layer.weight.copy_(torch.tensor(numbers))
    return oracle.subject(nn.Sequential(*layers).double(), (torch.ones(2, 1).double(),))


HALF = "score{{method=l1,normalize=none}},plan{{ratio=0.5,align=1,floor=0,schedule=linear,steps={}}}"


def test_by_hand() -> None:
    """Scores are 7, 9 and 8, 10.  Once the first unit is gone they are 9 and 7, 5: the last one lived by it."""
    at_once, _ = planned(weak_link(), HALF.format(1))
    assert list(at_once.dropped.values()) == [(0,), (0,)]
    in_steps, _ = planned(weak_link(), HALF.format(2))
    assert list(in_steps.dropped.values()) == [(0,), (1,)]
    assert in_steps.reached["ratio"] == 0.5
    assert in_steps.budget == {"ratio": 0.5}


def bottleneck() -> Subject:
    """Layers of 8, 64 and 8 units without biases: the 64 share what the others share by eight."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for i, o in ((16, 8), (8, 64), (64, 8), (8, 4)):
        layers += [nn.Linear(i, o, bias=False), nn.ReLU()]
    return oracle.subject(nn.Sequential(*layers[:-1]).double(), (torch.randn(2, 16).double(),))


COLLAPSE = "score{{method=synflow,normalize=none}},plan{{ratio=0.78,align=1,floor=0.02,steps={}}}"


def test_synflow_at_once_empties_a_layer_down_to_its_floor() -> None:
    """Of 80 units 62 go: at once nearly all from the wide layer, in steps from all alike."""
    at_once, state = planned(bottleneck(), COLLAPSE.format(1))
    assert kept(at_once) == [8, 2, 7]
    (note,) = state.notes
    assert note.startswith("plan: 1 group at the floor") and "2.weight:0" in note
    in_steps, state = planned(bottleneck(), COLLAPSE.format(20))
    assert min(kept(in_steps)) >= 4
    assert state.notes == []


def test_a_layer_keeps_one_unit_whatever_the_steps() -> None:
    plan, state = planned(bottleneck(), "score{method=random},plan{ratio=0.96,align=1,floor=0,steps=5}")
    assert kept(plan) == [1, 1, 1]
    assert "3 groups at the floor" in state.notes[-1]


@pytest.mark.parametrize("steps", [1, 3])
def test_the_flow_is_conserved_by_every_group(steps: int) -> None:
    """The scores of a group's units add up to the flow twice: into the units, and out of them."""
    subject = bottleneck()
    _, state = planned(subject, COLLAPSE.format(steps))
    dropped = state.facts["plan"].units(subject.groups)
    left = remaining(subject.groups, dropped)
    sums = [scored_again(state, left, "test")[g.units].sum() for g in left.groups]
    np.testing.assert_allclose(sums, sums[0], rtol=1e-9)
    assert sums[0] > 0


@pytest.mark.parametrize("method", ["snip", "synflow", "grasp", "taylor", "magnitude"])
def test_what_remains_scores_as_the_masked_network_does(method: str) -> None:
    subject = oracle.known("residual")
    groups, state = subject.groups, with_groups(subject)
    dropped = np.concatenate([g.units[: len(g) // 3] for g in groups.groups])
    state.facts["scored_by"] = (Score(method=method, normalize="none"),)
    left = remaining(groups, dropped)
    found = scored_again(state, left, "test")
    masks = {}
    for value, indices in kept_indices(groups.analysis, groups.alive(dropped)).items():
        mask = np.zeros(value.shape or (), bool)
        mask[np.ix_(*(np.arange(n) if k is None else k for n, k in zip(mask.shape, indices, strict=True)))] = True
        masks[groups.analysis.graph.constants[value].name] = mask
    scoring = Scoring(groups, state, masks)
    elements = ELEMENTS[method](scoring)
    expected = scoring.total(lambda p: np.where(masks[p.name], elements[p.name], 0))
    np.testing.assert_allclose(found[left.prunable], expected[left.prunable], rtol=1e-5, atol=1e-12)


def test_force_lets_no_whole_unit_return() -> None:
    """With all that makes and reads a unit masked, every derivative by one of its elements is zero."""
    subject = weak_link()
    masks = {
        "0.weight": np.array([[True], [False]]), "1.weight": np.array([[True, False], [True, False]]),
        "2.weight": np.array([[True, True]]),
    }  # fmt: skip
    found = ELEMENTS["force"](Scoring(subject.groups, with_groups(subject), masks))
    assert not any(found[name][~mask].any() for name, mask in masks.items())
    assert all(found[name][mask].all() for name, mask in masks.items())


@pytest.mark.parametrize("budget", ["ratio=0.6", "macs=0.3", "params=0.3", "macs=0.4,params=0.3"])
@pytest.mark.parametrize("schedule", ["exponential", "linear"])
def test_every_budget_follows_the_schedule(budget: str, schedule: str) -> None:
    subject = mlp(8, 24, 24, 8)
    text = f"score{{method=l1}},plan{{{budget},align=4,steps=4,schedule={schedule}}}"
    plan, _ = planned(subject, text)
    used = [plan.reached[n] / a if n != "ratio" else (1 - plan.reached[n]) / (1 - a) for n, a in plan.budget.items()]
    assert 0.8 < max(used) <= 1
    assert all(k % 4 == 0 for k in kept(plan))


def test_steps_look_at_smaller_and_smaller_networks() -> None:
    """What is out is in no later scoring, and rounding is left to the last step."""
    seen: list[int] = []

    def sizes(scoring: Scoring) -> Scores:
        seen.append(scoring.groups.prunable.size)
        assert all(p.data.shape == p.shape for p in scoring.parameters())
        return scoring.total(lambda p: np.abs(p.data))

    CRITERIA["test_sizes"] = sizes
    try:
        plan, _ = planned(mlp(8, 32, 32, 8), "score{method=test_sizes},plan{ratio=0.75,align=8,floor=0,steps=4}")
    finally:
        del CRITERIA["test_sizes"]
    assert seen == [64, 45, 32, 22]
    assert sum(kept(plan)) == 16 and all(k % 8 == 0 for k in kept(plan))


def test_what_is_out_ranks_behind_and_what_left_last_first() -> None:
    units = np.arange(5)
    standing = Standing.of(np.array([5.0, 4.0, 3.0, 2.0, 1.0])).without(np.array([0]), 2)
    standing = standing.scored(np.array([9.0, 1.0, 2.0, 3.0, 4.0])).without(np.array([0, 1, 2]), 1)
    assert standing.order(units, standing.levels()).tolist() == [4, 3, 2, 1, 0]
    assert standing.dropped.tolist() == [0, 1, 2]
    assert standing.levels().tolist() == [-np.inf, -np.inf, -np.inf, 3, 4]


@dataclass(frozen=True)
class Inverted(Pass):
    """Least is most."""

    name: ClassVar[str] = "inverted"
    kind: ClassVar[Kind] = "criterion"
    requires: ClassVar[frozenset[str]] = frozenset({"groups", "scores"})
    ensures: ClassVar[frozenset[str]] = frozenset({"scores"})

    def run(self, state: State) -> Scores:
        return -np.asarray(state.facts["scores"])


def test_passes_that_change_scores_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 7, 9 and 8, 10 the last goes first, which leaves 2, 8 and 8: then the second, and not the first."""
    monkeypatch.setitem(PASSES, "inverted", Inverted)
    plan, state = planned(weak_link(), "score{method=random}," + HALF.format(2).replace(",plan", ",inverted,plan"))
    assert [p.name for p in state.facts["scored_by"]] == ["score", "inverted"]
    assert list(plan.dropped.values()) == [(1,), (1,)]


def test_scores_that_are_values_are_refused() -> None:
    subject = mlp(4, 8, 2)
    state = with_groups(subject)
    state.facts["scores"] = np.arange(subject.groups.analysis.solution.units, dtype=np.float64)
    assert kept(MakePlan(ratio=0.5, align=1).run(state)) == [4]
    with pytest.raises(UsageError, match=r"plan\{steps\}: the scores are given as values") as error:
        MakePlan(ratio=0.5, align=1, steps=2).run(state)
    assert "score{method=" in (error.value.hint or "")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ("ratio=0.5,steps=0", UsageError, r"plan\{steps\} cannot be 0"),
        ("ratio=0.5,steps=2,schedule=cubic", UsageError, "cannot be 'cubic'"),
        ("params=0.001,steps=3", BudgetError, "cannot be met"),
    ],
)
def test_what_cannot_be(options: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        planned(mlp(4, 8, 2), f"score{{method=l1}},plan{{{options}}}")


X = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(3)).double()
LABELS = torch.tensor([0, 3, 1, 2])


@pytest.fixture(scope="module")
def untrained() -> Subject:
    return oracle.subject(vgg().double(), (X,))


def cross_entropy(outputs: Tensor, labels: Tensor) -> Tensor:
    return nn.functional.cross_entropy(outputs, labels)


@pytest.mark.parametrize("method", sorted(ELEMENTS))
def test_every_criterion_of_elements_drops_units_in_steps(untrained: Subject, method: str) -> None:
    """Exact, and within the budget, by the loss of the caller's own data."""
    pipeline = f"score{{method={method}}},plan{{params=0.2,align=1,steps=3}},eliminate,verify"
    plan, state = planned(untrained, pipeline, samples=[(X,)], targets=[LABELS], loss=cross_entropy)
    assert 0.19 < plan.reached["params"] <= 0.2
    assert state.facts["verified"]["max_rel_err"] < 1e-9


def test_a_batch_of_one_has_no_statistics() -> None:
    """Where a map is a single number: said of samples; what needs no data takes as many examples as the model saw."""
    small = torch.ones(1, 3, 16, 16).double()
    narrow = nn.Sequential(nn.Conv2d(3, 4, 16), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1)).double().eval()
    subject = oracle.subject(narrow, (X,))
    with pytest.raises(ModelError, match="does not run: Expected more than 1 value per channel") as error:
        planned(subject, "score{method=snip},plan{ratio=0.5}", samples=[(small,)])
    assert "batch norm needs two" in (error.value.hint or "")
    assert planned(subject, "score{method=ntk_sap},plan{ratio=0.5,steps=2}")[0].reached["ratio"] >= 0.5
