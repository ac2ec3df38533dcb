"""Thousands of hostile files, each through the whole compile: an error that says so, or a right result.

``pytest -m fuzz tests/fuzz/test_hostile_files.py -s [--fuzz-mutations 10000] [--fuzz-seed 0]`` prints what became of
them.  The numbers of the findings make the same bytes again: ``mutated(seeds(), number)``.
"""

from __future__ import annotations

import re
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest

from . import workers as workers_module
from .mutations import mutated
from .seeds import SEEDS
from .workers import Outcome, Workers

_FACE = Path(__file__).parents[3] / "shared/data/onnx/ultraface-slim-320.onnx"
_FACE_EVERY = 50
"""Mutations of a real file are slower: one in so many."""

_CANNOT_FAIL = ("the output does not depend on the input", "the mask does not move the output")


def seeds() -> list[onnx.ModelProto]:
    """The healthy models that are mutated."""
    return [make() for make in SEEDS.values()]


def files(numbers: range, folder: Path) -> Iterator[Path]:
    """One mutated file after another; the name says the number."""
    models = seeds()
    face = [onnx.load_model(str(_FACE))] if _FACE.is_file() else models
    (folder / "linked.data").symlink_to("/etc/hostname")
    (folder / "x.data").write_bytes(bytes(range(256)) * 4)
    for number in numbers:
        path = folder / f"{number}.onnx"
        path.write_bytes(mutated(face if number % _FACE_EVERY == 0 else models, number))
        yield path


def is_right(outcome: Outcome) -> bool:
    """Compiled and equal, or refused as a file: with exit code 3, or 4 where a check could not have failed."""
    if outcome.what != "refused":
        return outcome.what == "compiled"
    cannot_fail = any(words in outcome.message for words in _CANNOT_FAIL)
    return outcome.code == 3 or (outcome.code == 4 and cannot_fail)


def kind(outcome: Outcome) -> str:
    """The outcome without names and numbers, for counting."""
    message = re.sub(r"'[^']*'|\"[^\"]*\"|\S*/\S*|-?\d[\d.e+-]*", "…", outcome.message)
    return f"{outcome.what} {outcome.code or ''} {message[:90]}"


@pytest.mark.fuzz
def test_mutations_are_refused_or_compiled(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    start, count = (request.config.getoption(f"--fuzz-{name}") for name in ("seed", "mutations"))
    found, counts, slowest = [], Counter[str](), 0.0
    with Workers() as workers:
        for outcome in workers.outcomes(files(range(start, start + count), tmp_path)):
            counts[kind(outcome)] += 1
            slowest = max(slowest, outcome.seconds)
            if not is_right(outcome):
                found.append(outcome)
            outcome.job.unlink()
    for what, n in counts.most_common():
        print(f"{n:6} {what}")
    print(f"{count} files, the slowest {slowest:.1f} s; found: {len(found)}")
    assert not found, "\n".join(f"{o.job.stem}: {o.what} {o.code} {o.message}\n{o.trace}" for o in found[:10])


def test_workers_see_crashes_and_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The harness could fail: a child that dies or stops is a finding, and the next file is compiled all the same."""
    good = tmp_path / "good.onnx"
    good.write_bytes(SEEDS["functions"]().SerializeToString())
    with Workers(1) as workers:
        workers.children[0].process.kill()
        workers.children[0].process.wait()
        assert [o.what for o in workers.outcomes([good, good])] == ["died", "compiled"]
        workers.children[0].process.send_signal(signal.SIGSTOP)
        monkeypatch.setattr(workers_module, "HUNG_S", 0.5)
        assert [o.what for o in workers.outcomes([good])] == ["hung"]
