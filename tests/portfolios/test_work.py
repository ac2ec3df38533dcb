"""The work folder: a step is there whole or not at all, and what is not it is found out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from prunec.ir.errors import EnvironmentProblem
from prunec.portfolios.work import Record, Work

FILES = {"state.safetensors": b"numbers", "facts.json": b"{}"}


@pytest.fixture
def work(tmp_path: Path) -> Work:
    made = Work(tmp_path / "work")
    made.keep("dense", "key", FILES, 1.5)
    return made


def test_what_was_kept_is_there(work: Work) -> None:
    held = work.held("dense", "key")
    assert isinstance(held, Record) and held.seconds == 1.5 and work.files("dense", held) == FILES
    assert work.held("level-1", "key") is None
    assert sorted(p.name for p in work.folder.iterdir()) == ["dense"]


def test_a_step_of_something_else_is_made_anew(work: Work) -> None:
    assert "made from something else" in str(work.held("dense", "other"))


@pytest.mark.parametrize("file", sorted(FILES))
def test_a_damaged_file_is_found(work: Work, file: str) -> None:
    path = work.folder / "dense" / file
    path.write_bytes(path.read_bytes() + b".")
    assert "was changed" in str(work.held("dense", "key"))
    path.unlink()
    assert "is missing" in str(work.held("dense", "key"))


@pytest.mark.parametrize("record", ["", "[]", "{}", '{"sha256": 3, "seconds": 1}', '{"sha256": {}, "seconds": "x"}'])
def test_a_record_that_is_none(work: Work, record: str) -> None:
    (work.folder / "dense/step.json").write_text(record)
    assert "no finished step" in str(work.held("dense", "key"))


def test_a_record_reaches_no_other_folder(work: Work, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"numbers")
    path = work.folder / "dense/step.json"
    record = json.loads(path.read_text())
    record["sha256"] = {"../../secret": record["sha256"]["state.safetensors"]}
    path.write_text(json.dumps(record))
    assert isinstance(work.held("dense", "key"), str)


def test_a_step_that_is_there_is_replaced(work: Work) -> None:
    work.keep("dense", "other", {"new": b"1"}, 0.1)
    held = work.held("dense", "other")
    assert isinstance(held, Record) and work.files("dense", held) == {"new": b"1"}


def test_what_breaks_off_leaves_what_was_there(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("prunec.portfolios.work.write_whole", full)
    with pytest.raises(EnvironmentProblem, match="No space left"):
        work.keep("dense", "other", {"new": b"1"}, 0.1)
    held = work.held("dense", "key")
    assert isinstance(held, Record) and work.files("dense", held) == FILES
    assert sorted(p.name for p in work.folder.iterdir()) == ["dense"]


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "work").write_text("")
    with pytest.raises(EnvironmentProblem):
        Work(tmp_path / "work")


def test_two_do_not_build_in_one_folder(work: Work) -> None:
    with (
        work.locked(),
        pytest.raises(EnvironmentProblem, match="another process builds here") as caught,
        Work(work.folder).locked(),
    ):
        pass
    assert "another folder" in caught.value.hint
    with Work(work.folder).locked():
        pass
