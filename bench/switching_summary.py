"""What was played, in figures: of the whole trace, of each phase, and over time."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .switching_load import Load
from .switching_replay import LOST, REFUSED, WRONG, Played

BIN_S = 0.25


def summary(played: Played, load: Load, objective_ms: float) -> dict[str, Any]:
    """Figures of one contender.

    ``late`` is the share of all requests that were not answered within the objective, those refused included;
    ``in_time`` the share of all images asked about that were named right within it; ``accuracy`` that of the answers.
    """
    took_ms, answered = played.took * 1e3, ~np.isnan(played.took)
    in_time = answered & (np.nan_to_num(took_ms, nan=np.inf) <= objective_ms)
    return {
        "requests": len(took_ms),
        "refused": played.variant.count(REFUSED),
        "lost": played.variant.count(LOST),
        "wrong": played.variant.count(WRONG),
        **{f"p{q}_ms": _percentile(took_ms, q) for q in (50, 95, 99)},
        "late": float(1 - in_time.mean()),
        "accuracy": _mean(played.right),
        "in_time": float(np.where(in_time, played.right, 0.0).mean()),
        "switches": len(played.moves),
        "switching_ms": sum(m.seconds for m in played.moves) * 1e3,
        "client_late_ms": played.late_s * 1e3,
        "shares": {n: played.variant.count(n) / len(took_ms) for n in dict.fromkeys(played.variant)},
        "phases": _phases(took_ms, in_time, played.right, load),
        "moves": [
            {"at": round(m.at, 3), "before": m.before, "after": m.after, "ms": m.seconds * 1e3, "why": m.why}
            for m in played.moves
        ],
        "series": _series(took_ms, played, load),
    }


def _phases(
    took_ms: NDArray[np.float64], in_time: NDArray[np.bool_], right: NDArray[np.float64], load: Load
) -> list[dict[str, Any]]:
    which = np.array([load.phase(at) for at in load.arrivals])
    found = []
    for k, phase in enumerate(load.phases):
        own = which == k
        late = float(1 - in_time[own].mean()) if own.any() else 0.0
        row = {
            "phase": phase.name,
            "p95_ms": _percentile(took_ms[own], 95),
            "late": late,
            "accuracy": _mean(right[own]),
        }
        found.append(row)
    return found


def _series(took_ms: NDArray[np.float64], played: Played, load: Load) -> dict[str, list[Any]]:
    """For each quarter of a second in which requests came: the 95th percentile, and what is right of the answers."""
    bins = (load.arrivals / BIN_S).astype(int)
    points = [(k, bins == k) for k in np.unique(bins)]
    return {
        "at": [float((k + 0.5) * BIN_S) for k, _ in points],
        "p95_ms": [_rounded(_percentile(took_ms[own], 95)) for _, own in points],
        "accuracy": [_rounded(_mean(played.right[own])) for _, own in points],
        "variant": [[0.0, played.first], *([round(m.at, 3), m.after] for m in played.moves)],
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _percentile(values: NDArray[np.float64], q: float) -> float | None:
    values = values[~np.isnan(values)]
    return float(np.percentile(values, q)) if len(values) else None


def _mean(values: NDArray[np.float64]) -> float | None:
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else None
