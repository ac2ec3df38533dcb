"""The Pareto plot and the table of a portfolio."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from prunec.ir.errors import EnvironmentProblem, UsageError
from prunec.portfolios.plot import plot
from prunec.portfolios.table import HEADS, lines, rows
from prunec.runtime.manifest import Manifest
from prunec.runtime.pareto import marked

from ..runtime.portfolios import made

TIMES = {"large": 2.0, "middle": 1.0, "small": 1.5}


def timed(folder: Path) -> Manifest:
    manifest = made(folder)
    variants = {
        n: replace(v, latency_ms=TIMES[n], p95_ms=TIMES[n], memory_bytes=1000, size_bytes=10**6)
        for n, v in manifest.variants.items()
    }
    return marked(replace(manifest, variants=variants))


def test_pictures(tmp_path: Path) -> None:
    manifest = timed(tmp_path / "pf")
    plot(manifest, tmp_path / "a.svg")
    plot(manifest, tmp_path / "b.svg")
    text = (tmp_path / "a.svg").read_text()
    assert text == (tmp_path / "b.svg").read_text()
    assert all(word in text for word in ("large", "middle", "small", "dominated", "accuracy"))
    plot(manifest, tmp_path / "c.png")
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")


def test_what_cannot_be_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="no kind of picture"):
        plot(timed(tmp_path / "pf"), tmp_path / "a.pdf")
    with pytest.raises(UsageError, match="no variant was measured"):
        plot(made(tmp_path / "other"), tmp_path / "a.svg")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(EnvironmentProblem, match="matplotlib"):
        plot(timed(tmp_path / "third"), tmp_path / "a.svg")


def test_the_table(tmp_path: Path) -> None:
    manifest = timed(tmp_path)
    found = rows(manifest)
    assert all(len(row) == len(HEADS) for row in found)
    assert found[2][:4] == ("small", "0.6", "1.5 ms", "1.5 ms") and found[2][-1] == "dominated by middle"
    assert any("would take 3.00 MB as files" in line for line in lines(manifest))
    unknown = replace(manifest, variants={n: replace(v, accuracy=None) for n, v in manifest.variants.items()})
    assert rows(unknown)[0][1] == "-" and any("nobody measured" in line for line in lines(unknown))
