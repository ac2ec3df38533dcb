"""The build: order, what is not done again, what breaks off, and what ends.

The steps here make no network: they write down that they ran.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest
import torch

from prunec.ir.errors import BudgetError, EnvironmentProblem, ModelError, PassError, PrunecError
from prunec.portfolios.executor import InProcess
from prunec.portfolios.job import Job
from prunec.portfolios.levels import build_levels
from prunec.portfolios.method import METHODS, method
from prunec.portfolios.step import MODEL, Files, Step, facts_file
from prunec.portfolios.variant import CompileVariant
from prunec.portfolios.work import Work
from prunec.portfolios.worker import Done, Failed, Task, perform

RAN: list[str] = []
WRONG: dict[str, BaseException] = {}
OTHERWISE: dict[str, bytes] = {}
JOB = Job("net.onnx", (0.5, 0.3, 0.2), method="noted")


@dataclass(frozen=True)
class Noted(Step):
    """Writes down that it ran."""

    density: float = 1.0

    def run(self, job: Job, before: Mapping[str, Files]) -> Files:
        RAN.append(self.name)
        if self.name in WRONG:
            raise WRONG[self.name]
        return {
            "made": b",".join(
                [OTHERWISE.get(self.name, self.name.encode()), *(files["made"] for files in before.values())]
            )
        }


@dataclass(frozen=True)
class NotedVariant(CompileVariant):
    """The same, with facts."""

    def run(self, job: Job, before: Mapping[str, Files]) -> Files:
        made = Noted(self.name).run(job, before)
        facts = {"params": 10, "elements": 8, "nonzero": round(8 * self.density), "accuracy": None, "notes": ["own"]}
        return {**made, MODEL: made["made"], "facts.json": facts_file(facts)}


@pytest.fixture(autouse=True)
def _noted() -> Iterator[None]:
    @method("noted", trains="if it can")
    def noted(job: Job) -> list[Step]:
        steps: list[Step] = [Noted("dense-trained"), NotedVariant("dense", ("dense-trained",))]
        last = "dense-trained"
        for name, density in job.levels:
            trained = f"{name}-trained"
            steps += [Noted(trained, (last,), density), NotedVariant(name, (trained,), density=density)]
            last = trained
        return steps

    RAN.clear()
    WRONG.clear()
    yield
    del METHODS["noted"]


def built(work: Path, job: Job = JOB) -> list[str]:
    """What ran."""
    RAN.clear()
    build_levels(job, work, InProcess())
    return list(RAN)


ALL = [
    "dense-trained", "dense", "level-1-trained", "level-1", "level-2-trained", "level-2", "level-3-trained", "level-3",
]  # fmt: skip


def test_each_step_runs_once_and_gets_what_was_before(tmp_path: Path) -> None:
    assert built(tmp_path) == ALL
    found = build_levels(JOB, tmp_path, InProcess())
    assert [b.name for b in found] == ["dense", "level-1", "level-2", "level-3"]
    assert found[2].model.read_bytes() == b"level-2,level-2-trained,level-1-trained,dense-trained"
    assert [b.density for b in found] == [1.0, 0.5, 0.25, 0.25]
    assert found[1].params == 10 and found[1].accuracy is None
    assert found[1].facts["notes"] == ["own"] and found[1].facts["method"] == "noted"
    assert set(found[1].facts["seconds"]) == {"level-1-trained", "level-1"}


def test_nothing_that_is_finished_is_done_again(tmp_path: Path) -> None:
    built(tmp_path)
    assert built(tmp_path) == []


@pytest.mark.parametrize("at", range(len(ALL)))
def test_a_build_that_broke_off_goes_on(tmp_path: Path, at: int) -> None:
    WRONG[ALL[at]] = ModelError("broken", hint="mend it")
    with pytest.raises(ModelError, match=f"building {ALL[at]}: broken") as caught:
        built(tmp_path)
    assert caught.value.hint == "mend it" and ALL[: at + 1] == RAN
    WRONG.clear()
    assert built(tmp_path) == ALL[at:]


def test_an_interrupt_leaves_what_is_finished(tmp_path: Path) -> None:
    WRONG["level-1"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        built(tmp_path)
    WRONG.clear()
    assert built(tmp_path) == ALL[3:]


def test_a_damaged_step_is_done_again_and_what_is_the_same_is_not(tmp_path: Path) -> None:
    built(tmp_path)
    (tmp_path / "level-1-trained/made").write_text("something else")
    RAN.clear()
    found = build_levels(JOB, tmp_path, InProcess())
    assert RAN == ["level-1-trained"]  # it came to the same, so that what follows stands
    assert any("was changed" in note for note in found[1].facts["notes"])


def test_what_follows_from_something_else_is_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built(tmp_path)
    (tmp_path / "level-1-trained/made").unlink()
    monkeypatch.setitem(OTHERWISE, "level-1-trained", b"other")
    assert built(tmp_path) == ALL[2:]


def test_a_step_that_comes_to_something_else_is_followed_by_others(tmp_path: Path) -> None:
    built(tmp_path)
    assert built(tmp_path, replace(JOB, densities=(0.5, 0.25, 0.2))) == ALL[4:6]


def test_a_further_level_leaves_the_others(tmp_path: Path) -> None:
    built(tmp_path)
    more = replace(JOB, densities=(*JOB.densities, 0.1))
    assert built(tmp_path, more) == ["level-4-trained", "level-4"]


def test_another_seed_is_another_build(tmp_path: Path) -> None:
    built(tmp_path)
    said: list[str] = []
    RAN.clear()
    build_levels(replace(JOB, seed=1), tmp_path, InProcess(), lambda stage, detail: said.append(f"{stage}: {detail}"))
    assert RAN == ALL
    assert any("was made from something else" in line for line in said)


def test_a_budget_that_cannot_be_met_ends_the_levels(tmp_path: Path) -> None:
    WRONG["level-2-trained"] = BudgetError("the budget cannot be met", hint="less")
    assert built(tmp_path) == ALL[:5]
    WRONG.clear()
    RAN.clear()
    found = build_levels(JOB, tmp_path, InProcess())
    assert not RAN, "that it ended is known as well"
    assert [b.name for b in found] == ["dense", "level-1"]
    assert found[-1].facts["notes"][-1] == ("level-2 was not made, nor what follows from it: the budget cannot be met")


def test_an_error_of_another_kind_is_a_bug(tmp_path: Path) -> None:
    WRONG["dense"] = KeyError("x")
    with pytest.raises(PassError, match="building dense: KeyError"):
        built(tmp_path)


class Two(InProcess):
    """Takes a second step before the first one is looked at."""

    slots = 2


def test_what_does_not_wait_for_each_other_runs_together(tmp_path: Path) -> None:
    """While a level is compiled the next one trains; the order of events tells."""
    events: list[str] = []
    build_levels(JOB, tmp_path, Two(), lambda stage, detail: events.append(f"{stage} {detail.split()[0]}"))
    assert events.index("level-1-trained starts") < events.index("dense took")
    assert events.index("level-2-trained starts") < events.index("level-1 took")


class Ended(InProcess):
    """Writes down that it was ended."""

    ended: list[type[BaseException] | None]

    def __enter__(self) -> Self:
        self.ended = []
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ended.append(kind)


def test_an_executor_is_always_ended(tmp_path: Path) -> None:
    executor = Ended()
    build_levels(JOB, tmp_path, executor)
    assert executor.ended == [None]
    with pytest.raises(PrunecError):
        build_levels(replace(JOB, method="nothing"), tmp_path, executor)
    assert len(executor.ended) == 1 and executor.ended[0] is not None


def test_a_step_leaves_the_process_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = torch.get_num_threads()
    seen: list[tuple[int, float]] = []

    def drawn(self: Noted, job: Job, before: Mapping[str, Files]) -> Files:
        seen.append((torch.get_num_threads(), float(torch.rand(1)) + random.random()))
        assert torch.is_grad_enabled() and torch.get_default_dtype() == torch.float32
        torch.set_default_dtype(torch.float64)
        torch.use_deterministic_algorithms(True)
        torch.set_grad_enabled(False)
        sys.path.insert(0, "elsewhere")
        os.chdir(tmp_path)
        return {}

    monkeypatch.setattr(Noted, "run", drawn)
    for name in ("dense-trained", "level-1-trained"):
        torch.rand(1)
        random.random()
        before = torch.random.get_rng_state(), random.getstate()
        assert isinstance(perform(Task(replace(JOB, threads=threads + 1), name, {}, None)), Done)
        assert torch.equal(torch.random.get_rng_state(), before[0]) and random.getstate() == before[1]
    assert seen[0] == seen[1] and seen[0][0] == threads + 1, "each step starts from the same"
    assert torch.get_num_threads() == threads and torch.get_default_dtype() == torch.float32
    assert torch.is_grad_enabled() and not torch.are_deterministic_algorithms_enabled()
    assert "elsewhere" not in sys.path and Path.cwd() != tmp_path


def test_another_version_elsewhere_is_said(tmp_path: Path) -> None:
    failed = perform(Task(JOB, ALL[0], {}, None, version="9.9"))
    assert isinstance(failed, Failed) and "the same version" in failed.hint and "9.9" in failed.message


def test_two_builds_do_not_share_a_folder(tmp_path: Path) -> None:
    with Work(tmp_path).locked(), pytest.raises(EnvironmentProblem, match="another process builds here"):
        built(tmp_path)
    assert not RAN


def test_a_budget_that_not_even_the_dense_network_meets(tmp_path: Path) -> None:
    WRONG["dense-trained"] = BudgetError("the budget cannot be met", hint="less")
    with pytest.raises(BudgetError, match="dense was not made, nor what follows from it: the budget cannot be met"):
        built(tmp_path)


def test_a_file_that_changes_during_a_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody knows which state of it the step was made from, so that it is not kept."""
    source = tmp_path / "net.onnx"
    source.write_bytes(b"one")
    run = Noted.run

    def changing(self: Noted, job: Job, before: Mapping[str, Files]) -> Files:
        if self.name == "level-1-trained":
            source.write_bytes(b"other")
        return run(self, job, before)

    monkeypatch.setattr(Noted, "run", changing)
    with pytest.raises(EnvironmentProblem, match="level-1-trained: a file that it is made from changed") as caught:
        built(tmp_path / "work", replace(JOB, source=str(source)))
    assert "start again" in caught.value.hint
    assert sorted(p.name for p in (tmp_path / "work").glob("[!.]*")) == ["dense", "dense-trained"]
