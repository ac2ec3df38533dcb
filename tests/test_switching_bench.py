"""The bench of switching: its traces, its figures, and a tiny trace from end to end."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import prunec
from prunec.runtime.store import Entry


def of_bench(name: str) -> ModuleType:
    """A module of the benches, which are no part of the package."""
    root = str(Path(__file__).resolve().parents[1])
    sys.path.append(root)
    try:
        return import_module(f"bench.{name}")
    finally:
        sys.path.remove(root)


cold, loads, plot, requests, replay, summary, swap, trace, variants, verdict = (
    of_bench(f"switching_{name}")
    for name in "cold load plot requests replay summary swap trace variants verdict".split()
)
BATCH, SIDE = 4, 6


def test_the_same_seed_gives_the_same_trace() -> None:
    one, same, other = (loads.load(100.0, 8, seed=seed) for seed in (3, 3, 4))
    assert (one.arrivals == same.arrivals).all() and (one.asked == same.asked).all()
    assert len(other.arrivals) != len(one.arrivals) or (other.arrivals != one.arrivals).any()


def test_a_trace_is_in_order_within_its_seconds_and_asks_for_what_there_is() -> None:
    found = loads.load(200.0, 8, seed=0)
    assert (np.diff(found.arrivals) >= 0).all()
    assert found.arrivals[0] >= 0 and found.arrivals[-1] <= found.seconds
    assert set(found.asked) == set(range(8))


def test_rates_are_those_of_the_phases() -> None:
    phases = (loads.Phase("steady", 50, 0.5), loads.Phase("ramp", 50, 0.0, 2.0), loads.Phase("none", 50, 0.0))
    found = loads.load(20.0, 1, seed=0, phases=phases)
    counts = [sum(found.phase(at) == k for at in found.arrivals) for k in range(3)]
    assert counts[:2] == [pytest.approx(500, rel=0.15), pytest.approx(1000, rel=0.15)]
    assert counts[2] == 0
    early = sum(50 <= at < 75 for at in found.arrivals)
    assert early / counts[1] == pytest.approx(0.25, abs=0.06)


def test_a_trace_is_bounded_however_fast_the_machine_is() -> None:
    found = loads.load(1e9, 4, seed=0, most=500)
    assert 300 < len(found.arrivals) <= 500
    assert found.capacity < 1e9


def test_a_scaled_trace_has_the_same_phases() -> None:
    found = loads.scaled(loads.PHASES, 0.5)
    assert [p.rate for p in found] == [p.rate for p in loads.PHASES]
    assert sum(p.seconds for p in found) == pytest.approx(sum(p.seconds for p in loads.PHASES) / 2)


def played(took: list[float], right: list[float], variant: list[str]) -> tuple[Any, Any]:
    """What became of requests that came one each second, and their trace: two phases."""
    phases = (loads.Phase("a", 2, 1.0), loads.Phase("b", 2, 1.0, pressed=True))
    load = loads.Load(phases, 1.0, np.arange(len(took), dtype=float), np.zeros(len(took), int))
    moves = [replay.Moved(1.5, "big", "small", 0.002, "a reason")]
    return replay.Played(np.array(took), np.array(right), variant, "big", moves, 0.001), load


def test_the_summary_counts_what_was_refused_lost_wrong_and_late() -> None:
    nan = float("nan")
    kinds = ["big", replay.REFUSED, replay.LOST, replay.WRONG]
    found = summary.summary(*played([0.010, nan, nan, 0.200], [1.0, nan, nan, 0.5], kinds), 100.0)
    assert [found[k] for k in ("requests", "refused", "lost", "wrong")] == [4, 1, 1, 1]
    assert found["late"] == 0.75
    assert found["accuracy"] == 0.75
    assert found["in_time"] == 0.25
    assert found["p50_ms"] == pytest.approx(105)
    assert (found["switches"], found["switching_ms"]) == (1, 2.0)
    assert [p["late"] for p in found["phases"]] == [0.5, 1.0]
    assert found["series"]["variant"] == [[0.0, "big"], [1.5, "small"]]
    assert found["series"]["p95_ms"] == [pytest.approx(10), None, None, pytest.approx(200)]


def test_a_verdict_says_the_bound_and_what_was_seen() -> None:
    assert str(verdict.Verdict("a swap", 0.25, 0.1, " ms")) == "falls short a swap: 0.25 ms; promised: at most 0.1 ms"
    assert str(verdict.Verdict("times", 6.0, 5.0, more=True)) == "holds       times: 6; promised: at least 5"
    assert not verdict.Verdict("times", float("nan"), 5.0, more=True).holds


def test_times_faster_are_of_creation_and_first_run() -> None:
    def row(total: float) -> dict[str, float]:
        return {"creation": 1.0, "first": 2.0, "steady": 1.0, "total": total}

    rows = {n: {"default": row(60), "created": row(t), "switched": row(30)} for n, t in (("a", 10), ("b", 12))}
    assert cold.faster(rows, "created") == 5.5
    found = {"repeats": 3, "threads": 2, "variants": rows, "faster": {k: cold.faster(rows, k) for k in cold.OURS}}
    assert [v.holds for v in cold.verdicts(found)] == [True, False]
    assert len(cold.table(found).splitlines()) == 2 + 2 * 3 + 1


def entry(name: str, width: int, seed: int) -> Entry:
    """A small network, with random weights."""
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Conv2d(1, width, 3), nn.ReLU(), nn.Flatten(), nn.Linear(width * (SIDE - 2) ** 2, 5)).eval()
    model = prunec.compile(net, (torch.randn(2, 1, SIDE, SIDE),), "fold", verify=False, measure=False).onnx
    return Entry(name, model, accuracy=float(width))


def known(made: Any, count: int = 20) -> Any:
    """Requests whose labels are what the first variant says, half of them."""
    rng = np.random.default_rng(0)
    images = rng.standard_normal((count, 1, SIDE, SIDE)).astype(np.float32)
    labels = rng.integers(5, size=count)
    return requests.requests(images, labels, {n: made.file(n) for n in made.names}, kinds=3, batch=BATCH, seed=0)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Two variants, as a portfolio and as plain files."""
    folder = tmp_path_factory.mktemp("made") / "micro"
    return variants.written(folder, [entry("big", 32, 0), entry("small", 8, 1)], (BATCH, 1, SIDE, SIDE))


def test_an_answer_of_another_variant_is_noticed(made: Any) -> None:
    held = known(made)
    assert held.is_answer(0, "big", held.answers["big"][0])
    assert not held.is_answer(0, "big", held.answers["small"][0])
    assert not held.is_answer(0, "big", held.answers["big"][1])
    assert not held.is_answer(0, "big", held.answers["big"][0][:1])


def test_variants_that_answer_alike_are_refused(made: Any) -> None:
    files = {"one": made.file("big"), "two": made.file("big")}
    images = np.zeros((4, 1, SIDE, SIDE), np.float32)
    with pytest.raises(ValueError, match="the same answer"):
        requests.requests(images, np.zeros(4, int), files, kinds=2, batch=2, seed=0)


def test_a_trace_from_end_to_end(made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "load", lambda *a, **k: loads.load(*a, **k, most=300))
    phases = (loads.Phase("steady", 0.4, 0.4), loads.Phase("memory", 0.4, 0.4, pressed=True))
    found = trace.traces(made, known(made), ("small",), seed=0, phases=phases)
    assert list(found["contenders"]) == ["fixed small", trace.CONTROLLER, trace.RELOADING]
    for row in found["contenders"].values():
        assert 0 < row["requests"] <= 300
        assert (row["lost"], row["wrong"]) == (0, 0)
        assert sum(row["shares"].values()) == pytest.approx(1)
    for name in (trace.CONTROLLER, trace.RELOADING):
        assert found["contenders"][name]["switches"] == len(found["contenders"][name]["moves"])
    assert all(v.holds for v in trace.verdicts(found))
    assert "reloading" in trace.table(found)
    json.dumps(found)
    pytest.importorskip("matplotlib", reason="the figure is drawn by matplotlib, which `.[bench]` installs")
    for name in ("a.svg", "b.svg"):
        plot.draw(found, tmp_path / name)
    text = (tmp_path / "a.svg").read_text()
    assert text == (tmp_path / "b.svg").read_text()
    assert "objective" in text and "memory" in text


def test_a_worker_measures_swaps(made: Any) -> None:
    found = swap.swaps(made, switches=20, rounds=2, seed=0)
    assert set(found["variants"]) == set(made.names)
    assert 0 < found["switch_ms"] <= found["switch_p99_ms"]
    assert "20 switches" in swap.table(found)
    assert len(swap.verdicts(found)) == 2
