"""A trace played to a service, and what became of each request."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

try:
    from prunec.runtime.opened import Answer
except ImportError:  # a bare clone: the root of the repository is the package
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / ".dev"))
    from prunec.runtime.opened import Answer

from prunec.runtime.portfolio import Portfolio
from prunec.runtime.service import Busy, Service
from prunec.runtime.switcher import Controller

from .switching_load import Load
from .switching_requests import Requests

WAITING = 64
"""Requests that may wait; more are refused."""

REFUSED, LOST, WRONG = "refused", "lost", "wrong"
_LEAD_S = 0.2


@dataclass(frozen=True)
class Moved:
    """A change of the active variant ``at`` seconds after the start, and the seconds that it took."""

    at: float
    before: str
    after: str
    seconds: float
    why: str


@dataclass(frozen=True)
class Played:
    """What became of each request of a trace.

    Attributes
    ----------
    took
        Seconds from when it was to come to its answer; NaN without one.
    right
        Share of its images named right; NaN without an answer.
    variant
        Whose answer it is; or that it was refused, lost (no answer came), or wrong (not what the variant says alone).
    first
        The variant at the start.
    moves
        Changes of the variant.
    late_s
        How late the client was, at most: what is not the service's fault.
    """

    took: NDArray[np.float64]
    right: NDArray[np.float64]
    variant: list[str]
    first: str
    moves: list[Moved]
    late_s: float


class Clock:
    """Seconds since the trace began; below zero before."""

    def __init__(self) -> None:
        self.start = float("inf")

    def __call__(self) -> float:
        return time.monotonic() - self.start

    def begin(self) -> None:
        """The trace begins in a moment."""
        self.start = time.monotonic() + _LEAD_S


def play(
    portfolio: Portfolio, load: Load, requests: Requests, clock: Clock, controller: Controller | None = None
) -> Played:
    """Send the requests of ``load``, each at its time, and wait for the answers."""
    ended = np.full(len(load.arrivals), np.nan)
    futures: dict[int, Future[Answer]] = {}
    first, name, late = portfolio.active, portfolio.inputs[0].name, 0.0
    portfolio.run({name: requests.images[0]})
    with Service(portfolio, controller, most_waiting=WAITING) as service:
        clock.begin()
        wall = time.time() - clock()
        for k, (at, kind) in enumerate(zip(load.arrivals, load.asked)):
            if (wait := at - clock()) > 0:
                time.sleep(wait)
            late = max(late, clock() - at)
            try:
                futures[k] = service.submit({name: requests.images[kind]})
            except Busy:
                continue
            futures[k].add_done_callback(partial(_ended, ended, k, clock))
    fates = [_fate(futures.get(k), int(kind), requests) for k, kind in enumerate(load.asked)]
    answered = np.array([variant not in (REFUSED, LOST) for variant, _ in fates])
    moves = [Moved(s.at - wall - s.seconds, s.before, s.after, s.seconds, s.why) for s in portfolio.switches]
    return Played(
        took=np.where(answered, ended - load.arrivals, np.nan),
        right=np.array([right for _, right in fates]),
        variant=[variant for variant, _ in fates],
        first=first, moves=[m for m in moves if m.at > -_LEAD_S], late_s=late,
    )  # fmt: skip


def _ended(ended: NDArray[np.float64], k: int, clock: Callable[[], float], future: Future[Answer]) -> None:
    ended[k] = clock()


def _fate(future: Future[Answer] | None, kind: int, requests: Requests) -> tuple[str, float]:
    """Whose answer a request got, and the share of it that is right."""
    if future is None:
        return REFUSED, np.nan
    if not future.done() or future.cancelled() or future.exception() is not None:
        return LOST, np.nan
    answer = future.result()
    found = next(iter(answer.values()))
    right = requests.right(kind, found)
    return (answer.variant if requests.is_answer(kind, answer.variant, found) else WRONG), right
