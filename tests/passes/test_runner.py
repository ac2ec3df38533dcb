"""The runner: what passes require and ensure, which one failed, and what it shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest

from prunec.ir.errors import ModelError, PassError, UsageError
from prunec.ir.graph import Graph
from prunec.passes import verify
from prunec.passes.base import Kind, Pass, State, make
from prunec.passes.runner import Runner
from prunec.recipe import Recipe

from .subjects import mlp


@dataclass(frozen=True)
class Crash(Pass):
    """Divide by zero."""

    name: ClassVar[str] = "crash"
    kind: ClassVar[Kind] = "analysis"

    def run(self, state: State) -> Any:
        return 1 / 0


@dataclass(frozen=True)
class Exhaust(Pass):
    """Ask for more memory than there is."""

    name: ClassVar[str] = "exhaust"
    kind: ClassVar[Kind] = "analysis"

    def run(self, state: State) -> Any:
        return np.zeros(1 << 55)


@dataclass(frozen=True)
class Refuse(Pass):
    """Raise an error of prunec."""

    name: ClassVar[str] = "refuse"
    kind: ClassVar[Kind] = "analysis"

    def run(self, state: State) -> Any:
        raise ModelError("not this one")


@dataclass(frozen=True)
class Break(Pass):
    """Return a graph in which something is wrong."""

    how: str = "unsorted"

    name: ClassVar[str] = "break"
    kind: ClassVar[Kind] = "rewrite"

    def run(self, state: State) -> Graph:
        graph = state.graph.copy()
        if self.how == "unsorted":
            graph.nodes.reverse()
        elif self.how == "twice":
            graph.nodes.append(graph.nodes[-1])
        elif self.how == "lost":
            graph.nodes.pop()
        else:
            graph.inputs = graph.inputs * 2
        return graph


@dataclass(frozen=True)
class Forgetful(Pass):
    """Ensure a fact and give none."""

    name: ClassVar[str] = "forgetful"
    kind: ClassVar[Kind] = "analysis"
    ensures: ClassVar[frozenset[str]] = frozenset({"the moon"})

    def run(self, state: State) -> Any:
        return None


@dataclass(frozen=True)
class Needs(Pass):
    """Require what nobody ensures."""

    name: ClassVar[str] = "needs"
    kind: ClassVar[Kind] = "analysis"
    requires: ClassVar[frozenset[str]] = frozenset({"the moon"})

    def run(self, state: State) -> Any:
        return None


def ran(pipeline: str, *more: Pass, **options: Any) -> tuple[State, Runner]:
    runner = Runner(**options)
    state = mlp(4, 8, 2).state()
    runner.run([*(Recipe.parse(pipeline) if pipeline else ()), *more], state)
    return state, runner


def test_what_is_required_and_decides_nothing_is_provided() -> None:
    state, runner = ran("score")
    assert [s.name for s in runner.steps] == ["canonicalize", "groups", "score"]
    assert {"groups", "scores"} <= set(state.facts)


@pytest.mark.parametrize(
    ("pipeline", "fact", "before", "giver"),
    [
        ("eliminate", "'plan'", "groups", "plan or rectify"),
        ("plan{ratio=0.5}", "'scores'", "groups", "score"),
        ("score,eliminate", "'plan'", "canonicalize, groups, score", "plan or rectify"),
    ],
)
def test_a_decision_is_never_provided(pipeline: str, fact: str, before: str, giver: str) -> None:
    with pytest.raises(UsageError) as error:
        ran(pipeline)
    assert f"requires {fact}, which no pass before it ensures" in error.value.message
    assert before in error.value.message
    assert error.value.hint == f"put {giver} before it"


def test_a_fact_that_nobody_ensures() -> None:
    with pytest.raises(UsageError, match=r"requires 'the moon'.*before it: none"):
        ran("", Needs())


def test_a_fact_that_is_ensured_and_absent() -> None:
    with pytest.raises(PassError) as error:
        ran("score", Forgetful())
    assert error.value.message == (
        "pass 'forgetful' ensures 'the moon' and gave None (passes before it: canonicalize, groups, score)"
    )


@pytest.mark.parametrize("again", ["groups", "eliminate"])
def test_what_cannot_follow_eliminate(again: str) -> None:
    with pytest.raises(UsageError) as error:
        ran(f"score,plan{{ratio=0.5}},eliminate,{again}")
    assert f"pass {again!r} cannot follow a pass that ensures compact" in error.value.message
    again_alone = "compile what came out again, in a compile of its own"
    assert error.value.hint == ("put groups before score" if again == "groups" else again_alone)


def test_groups_are_the_same_when_they_are_asked_for() -> None:
    state, runner = ran("groups,score,plan{ratio=0.5},eliminate,verify")
    assert [s.name for s in runner.steps] == ["canonicalize", "groups", "score", "plan", "eliminate", "verify"]
    assert state.facts["verified"]["ok"]


def test_a_pass_that_crashes() -> None:
    with pytest.raises(PassError) as error:
        ran("score", Crash())
    assert error.value.message == (
        "pass 'crash' crashed: ZeroDivisionError: division by zero (passes before it: canonicalize, groups, score)"
    )
    assert error.value.exit_code == 6
    assert error.value.data["name"] == "crash"
    assert isinstance(error.value.__cause__, ZeroDivisionError)


def test_a_pass_that_needs_more_memory_than_there_is() -> None:
    """It is the model that asks for it."""
    with pytest.raises(ModelError, match="pass 'exhaust' needs more memory than there is"):
        ran("score", Exhaust())


def test_an_error_of_prunec_passes_through() -> None:
    with pytest.raises(ModelError, match="not this one"):
        ran("", Refuse())


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("unsorted", "before it is computed"),
        ("twice", "two nodes are named"),
        ("lost", "is never computed"),
        ("inputs", "the shape of an input changed"),
    ],
)
def test_a_pass_that_breaks_the_graph(how: str, message: str) -> None:
    with pytest.raises(PassError, match=message) as error:
        ran("score", Break(how))
    assert "pass 'break' broke the graph" in error.value.message


def test_training_rewrites_cannot_follow_inference_ones() -> None:
    with pytest.raises(UsageError, match="cannot follow a pass for inference only"):
        ran("score,plan{ratio=0.5},fold,eliminate")


def test_fold_leaves_the_training_graph_alone() -> None:
    state, _ = ran("score,plan{ratio=0.5,align=1},eliminate,fold,verify")
    assert state.inference is not None
    assert state.deployed is state.inference
    assert state.graph is not state.inference
    assert state.dense is not state.graph


def test_print_after() -> None:
    shown: list[str] = []
    pipeline = "score,plan{ratio=0.5,align=1},eliminate,fold"
    ran(pipeline, print_after=("eliminate",), show=shown.append)
    assert [text.splitlines()[0] for text in shown] == ["after eliminate:"]
    assert "float64[4,4] = parameter" in shown[0]
    shown.clear()
    ran(pipeline, print_after=("all",), show=shown.append)
    assert [text.splitlines()[0] for text in shown] == [f"after {n}:" for n in ("canonicalize", "eliminate", "fold")]


def test_progress_names_each_pass() -> None:
    told: list[str] = []
    ran("score,plan{ratio=0.5}", progress=lambda stage, detail: told.append(stage))
    assert told == ["canonicalize", "groups", "score", "plan"]


def test_steps_hold_options_and_seconds() -> None:
    _, runner = ran("score{method=l1},plan{ratio=0.5}")
    assert {s.name: s.options for s in runner.steps}["score"] == {"method": "l1"}
    assert all(s.seconds >= 0 for s in runner.steps)


def test_verify_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """After each rewrite that follows a plan, and not before."""
    calls: list[str] = []
    honest = verify.Verify.run

    def counted(self: verify.Verify, state: State) -> dict[str, Any]:
        calls.append("verify")
        return honest(self, state)

    monkeypatch.setattr(verify.Verify, "run", counted)
    ran("score,plan{ratio=0.5,align=1},eliminate,fold", verify_each=True)
    assert calls == ["verify", "verify"]


@pytest.mark.parametrize("skip", [frozenset[str](), frozenset({"verify"})])
def test_verify_each_has_the_tolerance_of_the_pipeline(monkeypatch: pytest.MonkeyPatch, skip: frozenset[str]) -> None:
    seen: list[float] = []

    def noted(self: verify.Verify, state: State) -> dict[str, Any]:
        seen.append(self.tolerance)
        return {}

    monkeypatch.setattr(verify.Verify, "run", noted)
    _, runner = ran("score,plan{ratio=0.5},eliminate,verify{tolerance=0.25}", verify_each=True, skip=skip)
    assert seen == [0.25] * (2 - len(skip))
    assert ("verify" in [s.name for s in runner.steps]) == (not skip)


def test_options_are_checked() -> None:
    with pytest.raises(UsageError, match="unknown pass 'nonsense'"):
        make("nonsense", {})
    with pytest.raises(UsageError, match="pass 'plan' has no option 'ration'"):
        make("plan", {"ration": 1})
    with pytest.raises(UsageError, match=r"option plan\{ratio\} cannot be 'half'"):
        make("plan", {"ratio": "half"})
    with pytest.raises(UsageError, match=r"option fold\{constants\} cannot be 1"):
        make("fold", {"constants": 1})


def test_verify_tells_which_of_its_checks_runs() -> None:
    told: list[tuple[str, str]] = []
    state = mlp(4, 8, 2).state()
    state.tell = lambda stage, detail: told.append((stage, detail))
    Runner(ensured={"canonical"}).run(Recipe.parse("score,plan{ratio=0.5},eliminate,verify"), state)
    details = ["with the model's own weights", "with random weights", "with units dropped alone"]
    assert told == [("verify", detail) for detail in details]
