from __future__ import annotations

import json

import numpy as np

from prunec.runtime.profile import Latency, compare, measure
from prunec.runtime.session import Session

from .onnx_models import linear


def test_latency_is_median_and_interquartile_range() -> None:
    found = Latency.of([1.0, 2.0, 3.0, 4.0, 100.0])
    assert (found.ms, found.iqr_ms, found.runs) == (3.0, 2.0, 5)


def test_compare_takes_at_least_the_rounds_asked_for() -> None:
    found = compare(linear(), linear(), budget_s=0.05, min_rounds=12, max_rounds=12)
    assert found.rounds == found.compact.runs == 12
    assert found.threads == 1


def test_compare_stops_at_the_most_rounds() -> None:
    assert compare(linear(), linear(), budget_s=30.0, max_rounds=15).rounds == 15


def test_the_ratio_says_compact_over_dense() -> None:
    dense, compact = linear(width=512, depth=4), linear(width=16, depth=1)
    feeds = {"x": np.zeros((64, 512), np.float32)}, {"x": np.zeros((64, 16), np.float32)}
    found = compare(dense, compact, *feeds, budget_s=0.2)
    assert found.ratio < 0.8  # the work differs by a factor of 4096: which way round it is, not how fast
    assert found.compact_ms < found.dense_ms


def test_sessions_that_are_open_are_used_as_they_are() -> None:
    session = Session(linear(), threads=2)
    assert compare(session, session, budget_s=0.0).threads == 2


def test_a_comparison_is_json() -> None:
    found = json.loads(json.dumps(compare(linear(), linear(), budget_s=0.0).as_dict()))
    assert {"dense", "compact", "ratio", "rounds"} <= found.keys()


def test_measure_counts_its_runs() -> None:
    assert measure(linear(), runs=5).runs == 5
