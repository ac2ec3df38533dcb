"""One outcome wherever steps run; and what goes wrong in them is said where the build runs."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from prunec.ir.errors import EnvironmentProblem, ModelError, PrunecError, UsageError
from prunec.portfolios import Job, build_levels, executor_for
from prunec.portfolios.executor import InProcess

NETS = Path(__file__).with_name("nets.py")
JOB = Job(f"{NETS}:net", (0.5,), rewind=3)
RECORD = "step.json"


def files(work: Path) -> dict[str, bytes]:
    """All that was made, but for the records, which hold seconds."""
    found = {str(p.relative_to(work)): p.read_bytes() for p in sorted(work.rglob("*")) if p.is_file()}
    return {name: data for name, data in found.items() if not name.endswith(RECORD)}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    work = tmp_path_factory.mktemp("alone")
    build_levels(JOB, work, executor_for())
    return files(work)


def test_processes_make_the_same_bytes(tmp_path: Path, alone: dict[str, bytes]) -> None:
    build_levels(JOB, tmp_path, executor_for(jobs=2))
    assert files(tmp_path) == alone and "level-1/model.onnx" in alone


def test_ray_makes_the_same_bytes(tmp_path: Path, alone: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    build_levels(JOB, tmp_path, executor_for("ray"))
    assert files(tmp_path) == alone


@pytest.mark.parametrize(
    ("function", "error", "said", "hint"),
    [
        (
            "fit_fails_small",
            ModelError,
            "level-1-trained: .*fit_fails_small failed: ZeroDivisionError: a small",
            "kept",
        ),
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


def test_a_process_that_dies_is_said(tmp_path: Path) -> None:
    job = Job(f"{NETS}:net", (0.5,), method="oneshot", train=f"{NETS}:fit_dies_small")
    with pytest.raises(EnvironmentProblem, match="a process ended in the middle of it") as caught:
        build_levels(job, tmp_path, executor_for(jobs=2))
    assert "--jobs 1" in caught.value.hint and "level-1-trained" in caught.value.message
    assert (tmp_path / "dense-trained/state.safetensors").exists()


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
