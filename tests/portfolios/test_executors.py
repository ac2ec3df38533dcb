"""One outcome wherever steps run; and what goes wrong in them is said where the build runs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from prunec.ir.errors import EnvironmentProblem, ModelError, PrunecError, UsageError
from prunec.plugins import load as load_plugins
from prunec.portfolios import Job, build_levels, executor_for
from prunec.portfolios.executor import InProcess
from prunec.portfolios.processes import Processes

NETS = Path(__file__).with_name("nets.py")
STEPS = str(Path(__file__).with_name("steps.py"))
JOB = Job(f"{NETS}:net", (0.5,), method="oneshot", of="elements")
TELLING = Job("net.onnx", (0.4,), method="telling", plugins=(STEPS,))
RECORD = "step.json"


def files(work: Path) -> dict[str, bytes]:
    """All that was made, but for the records, which hold seconds."""
    found = {str(p.relative_to(work)): p.read_bytes() for p in sorted(work.rglob("*")) if p.is_file()}
    return {name: data for name, data in found.items() if not name.endswith(RECORD)}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("alone")
    build_levels(JOB, work, executor_for())
    return work


def test_processes_make_the_same_bytes(tmp_path: Path, alone: Path) -> None:
    """From the same dense network; that is known again."""
    work, said = tmp_path / "work", list[str]()
    shutil.copytree(alone, work, ignore=shutil.ignore_patterns("level-*"))
    build_levels(JOB, work, executor_for(jobs=2), lambda name, what: said.append(f"{name} {what.split()[0]}"))
    assert files(work) == files(alone) and (work / "level-1/model.onnx").exists()
    assert [line for line in said if "starts" in line] == ["level-1-trained starts", "level-1 starts"]


@pytest.mark.slow
def test_ray_makes_the_same_bytes(tmp_path: Path, alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    build_levels(JOB, tmp_path, executor_for("ray"))
    assert files(tmp_path) == files(alone)


@pytest.mark.parametrize(
    ("function", "error", "said", "hint"),
    [
        (
            "fit_fails_small",
            ModelError,
            "level-1-trained: .*fit_fails_small failed: ZeroDivisionError: a small",
            "kept",
        ),
        ("fit_over_budget", ModelError, "dense-trained: .*fit_over_budget failed: BudgetError: a budget of", "kept"),
        ("fit_idle", UsageError, "dense-trained: .*fit_idle ended, and no torch optimizer", "model.parameters"),
        ("fit_other", UsageError, "dense-trained: .*fit_other returned another model", "in place"),
    ],
)
def test_a_training_that_goes_wrong(
    tmp_path: Path, function: str, error: type[PrunecError], said: str, hint: str
) -> None:
    with pytest.raises(error, match=said) as caught:
        build_levels(Job(f"{NETS}:net", (0.5,), train=f"{NETS}:{function}"), tmp_path, InProcess())
    assert hint in caught.value.hint
    assert (tmp_path / "dense/model.onnx").exists() == (function == "fit_fails_small")
    assert function in "".join(caught.value.__notes__), "--debug shows where"


def test_a_measure_that_is_none(tmp_path: Path) -> None:
    job = Job(f"{NETS}:net", (0.5,), evaluate=f"{NETS}:evaluate_nan")
    with pytest.raises(UsageError, match=r"building dense: .*evaluate_nan returned nan"):
        build_levels(job, tmp_path, InProcess())
    assert (tmp_path / "dense-trained").exists(), "the training is not lost"


def test_a_process_that_dies_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And it was one of its own: the step before it ran in another."""
    monkeypatch.chdir(tmp_path)
    load_plugins([STEPS])
    with pytest.raises(EnvironmentProblem, match="a process ended in the middle of it") as caught:
        build_levels(TELLING, tmp_path / "work", Processes(1))
    assert "--jobs 1" in caught.value.hint and "level-1" in caught.value.message
    assert json.loads((tmp_path / "work/dense/facts.json").read_text())["notes"] == ["dense"]
    assert (tmp_path / "process.txt").read_text() == "level-1"


_KILLED = """
from pathlib import Path
from prunec.plugins import load
from prunec.portfolios import Job, build_levels
from prunec.portfolios.processes import Processes
if __name__ == "__main__":
    load([{steps!r}])
    build_levels(Job("net.onnx", (0.3,), method="telling", plugins=({steps!r},)), Path("work"), Processes(1))
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_processes_end_with_the_one_that_started_them(tmp_path: Path, how: signal.Signals) -> None:
    (tmp_path / "build.py").write_text(_KILLED.format(steps=STEPS))
    parent = subprocess.Popen([sys.executable, "build.py"], cwd=tmp_path)
    told = tmp_path / "process.txt"
    try:
        _until(lambda: told.exists() and told.read_text() != "")
    finally:
        parent.send_signal(how)
        parent.wait()
    _until(lambda: not _runs(int(told.read_text())), 20)


def _until(true: Callable[[], bool], most_s: float = 120) -> None:
    end = time.monotonic() + most_s
    while not true():
        assert time.monotonic() < end, "it does not come true"
        time.sleep(0.05)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{process}/stat")
    return not (status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z")


def test_an_interrupt_in_a_training_is_one(tmp_path: Path) -> None:
    job = Job(f"{NETS}:net", (0.5,), train=f"{NETS}:fit_interrupted_small")
    with pytest.raises(KeyboardInterrupt):
        build_levels(job, tmp_path, InProcess())
    assert (tmp_path / "dense/model.onnx").exists() and not (tmp_path / "level-1-trained").exists()


def test_without_ray_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(EnvironmentProblem, match="not installed") as caught:
        executor_for("ray")
    assert "pip install 'prunec[ray]'" in caught.value.hint


def test_a_cluster_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ray = pytest.importorskip("ray", reason="the extra `ray` is not installed")

    def init(**options: object) -> None:
        assert options["runtime_env"] == {"working_dir": os.getcwd()}, "the current folder goes along"
        raise ConnectionError("nobody answers")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_ADDRESS", "192.0.2.1:6379")
    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(EnvironmentProblem, match="nobody answers") as caught:
        executor_for("ray")
    assert "RAY_ADDRESS" in caught.value.hint


@pytest.mark.parametrize(
    ("on", "jobs", "said"), [("spark", 1, "--on cannot be"), ("processes", 0, "--jobs cannot be 0")]
)
def test_an_executor_that_there_is_not(on: str, jobs: int, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        executor_for(on, jobs)  # type: ignore[arg-type]
