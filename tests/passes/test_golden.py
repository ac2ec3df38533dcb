"""Text in, text out: each file in ``golden/`` opens with the command that prints what follows.

After a change that is meant, ``PRUNEC_WRITE_GOLDEN=1 pytest tests/passes/test_golden.py`` writes the files anew.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest
import torch

from prunec import cli
from prunec.ir.frontends.fx import export, from_exported
from prunec.ir.printer import print_graph
from prunec.passes.base import State
from prunec.passes.runner import Runner
from prunec.passes.target import find_target
from prunec.recipe import Recipe

from ..models import tiny

FOLDER = Path(__file__).parent / "golden"
FILES = sorted(FOLDER.glob("*.txt"))
ROOT = Path(__file__).parents[2]


def command_of(file: Path) -> list[str]:
    """The arguments after ``prunec`` in the first line."""
    first = shlex.split(file.read_text().splitlines()[0])
    assert first[:2] == ["#", "prunec"]
    return first[2:]


def printed(source: str, pipeline: str, after: str) -> str:
    """What ``--print-after`` shows, without the emitting and measuring around it."""
    torch.manual_seed(0)
    model, inputs = getattr(tiny, source.partition(":")[2])()
    graph = from_exported(export(model, inputs, {}))
    shown: list[str] = []
    state = State(graph, graph, find_target("generic"))
    Runner(print_after=(after,), show=shown.append).run(Recipe.parse(pipeline), state)
    return f"before:\n{print_graph(graph)}" + "".join(shown)


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_golden(file: Path) -> None:
    arguments = command_of(file)
    source, pipeline, after = arguments[1], arguments[arguments.index("-p") + 1], arguments[-1]
    head = file.read_text().splitlines()[0]
    found = f"{head}\n{printed(source, pipeline, after)}"
    if os.environ.get("PRUNEC_WRITE_GOLDEN"):
        file.write_text(found)
    assert found == file.read_text()


def test_the_golden_files_are_there() -> None:
    assert {f.stem for f in FILES} >= {"canonicalize_attention", "canonicalize_shuffle", "eliminate", "fold"}


def test_the_command_of_a_golden_file_prints_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    file = FOLDER / "eliminate.txt"
    monkeypatch.chdir(ROOT)
    arguments = [a if a != "o.onnx" else str(tmp_path / "o.onnx") for a in command_of(file)]
    assert cli.main([*arguments, "--quiet"]) == 0
    captured = capfd.readouterr()
    expected = file.read_text().partition("after eliminate:")[2].strip()
    assert expected in captured.out + captured.err
