"""The how-to pages: what they say to write is written, what they say to run is run, in order, and what they show is so.

A ``python`` fence opens with the name of its file (``# acme.py``).  A ``sh`` fence runs in a folder of its own for each
page, and must end with 0.  Each line of a ``text`` fence must stand in what the ``sh`` fence before it printed.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import prunec

ROOT = Path(prunec.__file__).parent
PAGES = sorted((ROOT / "docs").glob("adding-*.md"))
_FENCE = re.compile(r"^```(python|sh|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def environment(tmp_path: Path) -> dict[str, str]:
    """One in which ``prunec`` and ``python`` are those of this run."""
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, line in {"prunec": f"{sys.executable} -m prunec.cli", "python": sys.executable}.items():
        (commands / name).write_text(f'#!/bin/sh\nexec {line} "$@"\n')
        (commands / name).chmod(0o755)
    path = f"{commands}{os.pathsep}{os.environ.get('PATH', '')}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT.parent), "CI": "true", "COLUMNS": "200"}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_a_page_does_what_it_says(page: Path, tmp_path: Path) -> None:
    work, variables, printed = tmp_path / "work", environment(tmp_path), ""
    work.mkdir()
    kinds = []
    for kind, text in _FENCE.findall(page.read_text(encoding="utf-8")):
        kinds.append(kind)
        if kind == "python":
            name = re.match(r"# (\w+\.py)\n", text)
            assert name, f"{page.name}: a python fence without the name of its file:\n{text}"
            (work / name[1]).write_text(text)
        elif kind == "sh":
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", text], cwd=work, env=variables, capture_output=True, text=True,
                check=False,
            )  # fmt: skip
            printed = _plain(done.stdout + done.stderr)
            assert done.returncode == 0, f"{page.name}:\n{text}\n{printed}"
        else:
            assert kinds[-2] == "sh", f"{page.name}: a text fence must follow a sh fence"
            missing = [line for line in text.splitlines() if _plain(line) not in printed]
            assert not missing, f"{page.name}: nothing printed {missing}:\n{printed}"
    assert {"python", "sh", "text"} <= set(kinds)


def _plain(text: str) -> str:
    """Text without runs of blanks within its lines: tables may be wider or narrower."""
    return "\n".join(" ".join(line.split()) for line in text.splitlines())


def test_there_is_a_page_for_each_thing_that_can_be_added() -> None:
    assert [p.stem for p in PAGES] == ["adding-a-criterion", "adding-a-pass", "adding-an-op"]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert all(f"docs/{p.name}" in readme for p in PAGES)
