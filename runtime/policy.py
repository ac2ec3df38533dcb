"""Policies: which variant the conditions call for.  A policy is one function, and this file has the one that is used.

It is given the conditions, what is asked (:class:`Objective`), and for each variant what it is expected to do now
(:class:`Candidate`): the time that was measured when the portfolio was built, corrected by what was measured since.
It returns a name and a reason; when to follow it is the controller's affair (``switcher.py``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..ir.errors import UsageError
from .conditions import Conditions

SIGNALS = ("fast", "accurate")
ROOM = 0.7
"""Of the objective: what a slower variant may be expected to take, so that one does not go up to fall back at once."""

ALIKE = 0.05
"""Within this share of each other variants take the same memory: what is measured is not more exact."""

BUSY = 0.9
"""Of the time: above this share of it spent on running, queues grow without bound for all practical purposes."""


@dataclass(frozen=True)
class Objective:
    """What is asked of the answers.

    Attributes
    ----------
    p95_ms
        What 95 of 100 requests may take at most, waiting included; None: as long as it takes.
    accuracy
        The least that a variant may have; None: any.
    free_bytes
        Memory that is to be left to others; where less is free, the variant that takes least is chosen.
    battery
        Below this share of a battery that is not charged, the fastest variant is chosen: it takes least energy.
    workers
        Requests that run at the same time.
    """

    p95_ms: float | None = None
    accuracy: float | None = None
    free_bytes: int = 0
    battery: float = 0.2
    workers: int = 1

    def __post_init__(self) -> None:
        if self.accuracy is not None and not math.isfinite(self.accuracy):
            raise UsageError(f"an accuracy of {self.accuracy} is none", hint="give a number")
        if self.free_bytes < 0:
            raise UsageError(f"free_bytes cannot be {self.free_bytes}", hint="0 or more")
        if self.workers < 1:
            raise UsageError(f"workers cannot be {self.workers}", hint="1 or more")
        if self.p95_ms is not None and not 0 < self.p95_ms < math.inf:
            raise UsageError(f"an objective of {self.p95_ms} ms cannot be met", hint="give milliseconds above 0")
        if not 0 <= self.battery <= 1:
            raise UsageError(f"battery cannot be {self.battery}", hint="a share, in [0, 1]")

    def is_short(self, conditions: Conditions) -> bool:
        """Whether less memory is free than is to be."""
        return conditions.free_bytes is not None and conditions.free_bytes < self.free_bytes

    def is_pressed(self, conditions: Conditions) -> bool:
        """Whether memory or the battery decides, and not the load."""
        return self.is_short(conditions) or (conditions.battery is not None and conditions.battery < self.battery)


@dataclass(frozen=True)
class Candidate:
    """What a variant is expected to do: one run takes ``run_ms``, 95 of 100 of them at most ``slow_ms``."""

    name: str
    run_ms: float
    slow_ms: float
    accuracy: float | None = None
    memory_bytes: int = 0
    rank: int = 0
    """Its place in the portfolio, the largest first: what goes for accuracy where nobody measured that."""

    def expected_ms(self, conditions: Conditions, workers: int) -> float:
        """What 95 of 100 requests would take on it: those that wait, then a queue of its own making, then its run.

        The queue is that of random arrivals and equal runs (M/D/1, Pollaczek and Khinchine); three times its mean wait
        stand for the 95th percentile, as in an exponential distribution.
        """
        busy = self.busy(conditions, workers)
        if busy >= BUSY:
            return float("inf")
        return self.slow_ms + self.run_ms * (conditions.queue / workers + 3 * busy / (2 * (1 - busy)) / workers)

    def busy(self, conditions: Conditions, workers: int) -> float:
        """The share of time that would be spent on running."""
        return conditions.rate * self.run_ms / 1e3 / workers


@dataclass(frozen=True)
class Choice:
    """A variant, and why it."""

    name: str
    why: str


Policy = Callable[[Conditions, Sequence[Candidate], str, Objective], Choice]


def most_accurate_in_time(
    conditions: Conditions, candidates: Sequence[Candidate], current: str, objective: Objective
) -> Choice:
    """The most accurate variant that is expected to meet the objective; the fastest where none is.

    A user's signal comes first, then memory and battery.  A variant slower than the current one has to leave room.
    """
    least = -math.inf if objective.accuracy is None else objective.accuracy
    allowed = [c for c in candidates if (-math.inf if c.accuracy is None else c.accuracy) >= least]
    allowed = allowed or [max(candidates, key=_worth)]
    pressed = _signalled(conditions, candidates, allowed) or _pressed(conditions, allowed, objective)
    if pressed is not None:
        return pressed
    if objective.p95_ms is None:
        return Choice(max(allowed, key=_worth).name, "no objective of latency: the most accurate")
    return _in_time(conditions, allowed, current, objective, objective.p95_ms)


def _in_time(
    conditions: Conditions, allowed: Sequence[Candidate], current: str, objective: Objective, p95_ms: float
) -> Choice:
    now = next((c.run_ms for c in allowed if c.name == current), 0.0)
    fits = []
    for candidate in allowed:
        expected = candidate.expected_ms(conditions, objective.workers)
        if candidate.name == current and conditions.p95_ms is not None:
            expected = max(expected, conditions.p95_ms)
        if expected <= p95_ms * (ROOM if candidate.run_ms > now else 1.0):
            fits.append((candidate, expected))
    if not fits:
        fastest = min(allowed, key=lambda c: c.run_ms)
        return Choice(fastest.name, f"none is expected to take {p95_ms:g} ms at most: the fastest")
    best, expected = max(fits, key=lambda found: _worth(found[0]))
    return Choice(best.name, f"the most accurate of those in time: {expected:.3g} of {p95_ms:g} ms expected")


def _signalled(conditions: Conditions, candidates: Sequence[Candidate], allowed: Sequence[Candidate]) -> Choice | None:
    if conditions.signal is None:
        return None
    why = f"the user's signal: {conditions.signal}"
    if conditions.signal == "fast":
        return Choice(min(allowed, key=lambda c: c.run_ms).name, why)
    if conditions.signal == "accurate":
        return Choice(max(allowed, key=_worth).name, why)
    return next((Choice(c.name, why) for c in candidates if c.name == conditions.signal), None)


def _pressed(conditions: Conditions, allowed: Sequence[Candidate], objective: Objective) -> Choice | None:
    if not objective.is_pressed(conditions):
        return None
    if objective.is_short(conditions):
        least = min(c.memory_bytes for c in allowed)
        alike = [c for c in allowed if c.memory_bytes <= least * (1 + ALIKE)]
        free, wanted = (conditions.free_bytes or 0) / 1e6, objective.free_bytes / 1e6
        return Choice(max(alike, key=_worth).name, f"{free:.0f} MB are free, and {wanted:.0f} are to be")
    why = f"the battery has {conditions.battery:.0%} left: the fastest"
    return Choice(min(allowed, key=lambda c: c.run_ms).name, why)


def _worth(candidate: Candidate) -> tuple[float, float, int]:
    """More is better: accuracy, then speed; where no accuracy is known, the place in the portfolio."""
    if candidate.accuracy is None:  # below any that is known
        return (-math.inf, 0.0, -candidate.rank)
    return (candidate.accuracy, -candidate.run_ms, -candidate.rank)
