"""Latency, measured so that a ratio can be trusted: dense and compact in one process, turn and turn about.

Absolute times differ from machine to machine and from minute to minute; what happens to both models within the same
fraction of a second cancels in their ratio.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .session import Array, Session, Source, feeds_for

Feeds = Mapping[str, Array]


@dataclass(frozen=True)
class Latency:
    """Time of one run: median and interquartile range in milliseconds over ``runs`` runs."""

    median_ms: float
    iqr_ms: float
    runs: int

    @classmethod
    def of(cls, samples_ms: ArrayLike) -> Latency:
        """The summary of measured times."""
        low, middle, high = np.percentile(np.asarray(samples_ms, dtype=np.float64), (25, 50, 75))
        return cls(float(middle), float(high - low), np.size(np.asarray(samples_ms)))

    @property
    def ms(self) -> float:
        return self.median_ms


@dataclass(frozen=True)
class Comparison:
    """Dense against compact.  ``ratio`` is the median over rounds of compact/dense within the round."""

    dense: Latency
    compact: Latency
    ratio: float
    threads: int

    @property
    def dense_ms(self) -> float:
        return self.dense.median_ms

    @property
    def compact_ms(self) -> float:
        return self.compact.median_ms

    @property
    def rounds(self) -> int:
        return self.dense.runs

    def as_dict(self) -> dict[str, Any]:
        """JSON-serialisable; ``dense`` and ``compact`` are medians in milliseconds."""
        return {
            "dense": self.dense_ms,
            "compact": self.compact_ms,
            "ratio": self.ratio,
            "rounds": self.rounds,
            "threads": self.threads,
            "dense_stats": asdict(self.dense),
            "compact_stats": asdict(self.compact),
        }


def compare(
    dense: Session | Source,
    compact: Session | Source,
    feeds_dense: Feeds | None = None,
    feeds_compact: Feeds | None = None,
    *,
    budget_s: float = 3.0,
    min_rounds: int = 10,
    max_rounds: int = 300,
    threads: int | None = 1,
    seed: int = 0,
) -> Comparison:
    """Run both models in turns until ``budget_s`` seconds are spent, and compare.

    A round is one run of each; the order changes with every round, so that neither always finds the other's caches.
    There are at least ``min_rounds`` rounds (3 when one round alone exceeds the budget) and at most ``max_rounds``.
    ``threads`` is for sessions made here: one, so that the ratio does not depend on what the other cores do; None uses
    the cores that this process may use.  Feeds that are absent are random; ``feeds_compact`` defaults to those of the
    dense model.

    Raises
    ------
    ModelError
        A model does not load or does not run on its feeds.
    """
    a, b = _session(dense, threads, "the dense model"), _session(compact, threads, "the compact model")
    feeds_a = feeds_for(a, seed) if feeds_dense is None else feeds_dense
    feeds_b = feeds_a if feeds_compact is None else feeds_compact
    with quiet():
        warm = [_time_ms(s, f, endless=k > 0) for k in range(2) for s, f in ((a, feeds_a), (b, feeds_b))]
        least = min(min_rounds, 3) if warm[2] + warm[3] > budget_s * 1e3 else min_rounds
        rounds = _rounds((a, feeds_a), (b, feeds_b), time.perf_counter() + budget_s, least, max(max_rounds, least))
    times = np.array(rounds)
    return Comparison(
        Latency.of(times[:, 0]), Latency.of(times[:, 1]), float(np.median(times[:, 1] / times[:, 0])), a.threads
    )


def measure(model: Session | Source, feeds: Feeds | None = None, *, runs: int = 30, seed: int = 0) -> Latency:
    """The latency of one model alone; for ratios use :func:`compare`."""
    session = _session(model, None, "the model")
    chosen = feeds_for(session, seed) if feeds is None else feeds
    with quiet():
        _time_ms(session, chosen, endless=False)
        return Latency.of([_time_ms(session, chosen) for _ in range(runs)])


def _rounds(
    a: tuple[Session, Feeds], b: tuple[Session, Feeds], until: float, least: int, most: int
) -> list[tuple[float, float]]:
    """Times in milliseconds, one pair (a, b) for each round."""
    rounds: list[tuple[float, float]] = []
    while len(rounds) < least or (len(rounds) < most and time.perf_counter() < until):
        if len(rounds) % 2:
            second = _time_ms(*b)
            first = _time_ms(*a)
        else:
            first = _time_ms(*a)
            second = _time_ms(*b)
        rounds.append((first, second))
    return rounds


def _time_ms(session: Session, feeds: Feeds, *, endless: bool = True) -> float:
    start = time.perf_counter_ns()
    session.run(feeds, endless=endless)
    return (time.perf_counter_ns() - start) / 1e6


def _session(model: Session | Source, threads: int | None, name: str) -> Session:
    return model if isinstance(model, Session) else Session(model, threads=threads, name=name)


@contextmanager
def quiet() -> Iterator[None]:
    """No garbage collection inside a measurement."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
