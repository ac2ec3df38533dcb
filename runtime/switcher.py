"""The controller: watches the conditions, asks a policy, and switches, neither late nor to and fro.

Down, to a faster variant, it goes as soon as the policy says so ``down`` times in a row; up only after ``up`` times,
not before ``dwell_s`` seconds on a variant, and after a fall soon behind a rise not for twice as long as before.  What
a variant takes is measured on: what it took lately, or, where it was not used, what it took when the portfolio was
built, times what requests take longer now.  Each decision says why.  Start at :meth:`Controller.step`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..ir.errors import PrunecError, UsageError
from .conditions import Conditions, of_machine
from .policy import SIGNALS, Candidate, Choice, Objective, Policy, most_accurate_in_time
from .portfolio import Portfolio
from .prepare import machine
from .variant import Variant

log = logging.getLogger("prunec.switching")
WINDOW_S = 2.0
"""Requests of the last seconds tell the rate and the percentile."""

_FEW, _MANY = 5, 20
_LATEST = 4096
_LAST = 64
_RECENT_S = 10.0
_SHORTEST_S = 0.25
_LONGEST = 64.0
_KEPT = 1000


@dataclass(frozen=True)
class Decision:
    """What the controller did ``at`` seconds after it began, and why; ``held`` says what kept it from more."""

    at: float
    before: str
    after: str
    wanted: str
    why: str
    held: str
    conditions: Conditions

    def __str__(self) -> str:
        moved = f"{self.before} -> {self.after}" if self.after != self.before else f"stays on {self.before}"
        rest = f"; not yet {self.wanted}: {self.held}" if self.held else ""
        return f"{self.at:9.2f} s  {moved}: {self.why}{rest}"


class Controller:
    """Picks the variant of ``portfolio`` that the conditions call for.

    Parameters
    ----------
    objective
        What is asked of the answers.
    policy
        ``(conditions, candidates, current, objective) -> Choice``.
    up, down
        How often in a row the policy has to want a slower, a faster variant.
    dwell_s
        Seconds on a variant before a slower one is taken.
    sense
        What the machine tells, as keywords of :class:`Conditions`.
    clock
        Seconds, never less than before.
    """

    def __init__(
        self,
        portfolio: Portfolio,
        objective: Objective | None = None,
        policy: Policy = most_accurate_in_time,
        *,
        up: int = 5,
        down: int = 1,
        dwell_s: float = 1.0,
        sense: Callable[[], Mapping[str, Any]] = of_machine,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.portfolio, self.objective, self.policy = portfolio, objective or Objective(), policy
        self.decisions: deque[Decision] = deque(maxlen=_KEPT)
        self._up, self._down, self._dwell_s = up, down, dwell_s
        self._sense, self._clock = sense, clock
        self._signal: str | None = None
        self._came: deque[float] = deque(maxlen=_LATEST)
        self._took: deque[tuple[float, float]] = deque(maxlen=_LATEST)
        self._way, self._times = "", 0
        self._began = self._since = clock()
        self._rose, self._patience = False, 1.0
        self._lock = threading.Lock()

    def signal(self, wish: str | None) -> None:
        """The user's wish: ``fast``, ``accurate``, the name of a variant, or None for none."""
        known = (*SIGNALS, *self.portfolio.variants)
        if wish is not None and wish not in known:
            raise UsageError(f"there is no signal {wish!r}", hint=f"None, or one of {', '.join(known)}")
        self._signal = wish

    def arrived(self) -> None:
        """A request came."""
        self._came.append(self._clock())

    def answered(self, seconds: float) -> None:
        """A request was answered ``seconds`` after it came."""
        self._took.append((self._clock(), seconds))

    def conditions(self, queue: int = 0) -> Conditions:
        """What is so now, with ``queue`` requests waiting."""
        now = self._clock()
        took = [s for t, s in list(self._took) if t > max(now - WINDOW_S, self._since)]
        came = [t for t in list(self._came) if t > now - WINDOW_S]
        whole = len(came) < _LATEST
        return Conditions(
            p95_ms=float(np.percentile(took, 95)) * 1e3 if len(took) >= _MANY else None,
            queue=queue,
            rate=len(came) / max(min(WINDOW_S, now - (self._began if whole else came[0])), _SHORTEST_S),
            signal=self._signal,
            **self._sense(),
        )

    def candidates(self) -> list[Candidate]:
        """What each variant that can be open is expected to do now, the largest first.

        One of which nothing was measured, then or now, is none, unless it answers.
        """
        slower, found = self._slower(), []
        for rank, (name, variant) in enumerate(self.portfolio.variants.items()):
            times = self._seen(name) or _built(variant, slower)
            if times is None and name == self.portfolio.active:
                times = (0.0, 0.0)
            if times is not None and (self.portfolio.fits(name) or name == self.portfolio.active):
                found.append(Candidate(name, *times, variant.accuracy, self.portfolio.holds(name), rank))
        return found

    def step(self, queue: int = 0) -> Decision:
        """Look, decide, and switch where that is called for; returns what was done, and why."""
        with self._lock:
            conditions, current = self.conditions(queue), self.portfolio.active
            candidates = self.candidates()
            choice = self.policy(conditions, candidates, current, self.objective)
            if not isinstance(choice, Choice) or choice.name not in self.portfolio.variants:
                raise UsageError(f"the policy returned {choice!r}", hint="return Choice(name of a variant, why)")
            held = self._held(choice, current, candidates, conditions)
            if not held and choice.name != current:
                held = self._switched(choice, conditions)
            if self.objective.is_short(conditions):
                self._give_back()
            after = self.portfolio.active
            decision = Decision(self._clock() - self._began, current, after, choice.name, choice.why, held, conditions)
            if after != current or held != self._last_held():
                log.info("%s", decision)
            self.decisions.append(decision)
            return decision

    def explain(self, most: int = 10) -> list[str]:
        """The last changes, and what holds now, in words."""
        kept = list(self.decisions)  # looks go on meanwhile
        changes, last = [d for d in kept if d.after != d.before], kept[-1:]
        return [str(d) for d in [*changes[-most:], *(d for d in last if d not in changes)]]

    def _held(self, choice: Choice, current: str, candidates: Sequence[Candidate], conditions: Conditions) -> str:
        """What speaks against following the policy now; empty where nothing does."""
        up = _run_ms(candidates, choice.name) > _run_ms(candidates, current)
        way = "" if choice.name == current else "up" if up else "down"
        self._times, self._way = self._times + 1 if way == self._way else 1, way
        if not way or conditions.signal is not None:
            return ""
        needed = self._up if up else self._down
        if self._times < needed:
            return f"wanted {self._times} of {needed} times"
        stayed, least = self._clock() - self._since, self._dwell_s * self._patience
        return f"{stayed:.1f} of {least:.1f} s on {current}" if up and stayed < least else ""

    def _switched(self, choice: Choice, conditions: Conditions) -> str:
        """Switch; returns what went wrong, if something did."""
        up = self._way == "up"
        try:
            self.portfolio.switch(choice.name, why=choice.why)
        except PrunecError as error:
            if error.message != self._last_held():
                log.error("cannot switch to %s: %s", choice.name, error)
            return error.message
        now = self._clock()
        by_load = not (conditions.signal or self.objective.is_pressed(conditions))
        if by_load and self._rose and not up and now - self._since < 4 * self._dwell_s * self._patience:
            self._patience = min(2 * self._patience, _LONGEST)
        elif up:
            self._patience = max(self._patience / 2, 1.0) if now - self._since > 16 * self._dwell_s else self._patience
        self._since, self._rose, self._times = now, up, 0
        return ""

    def _give_back(self) -> None:
        """Close what does not answer; it is opened again when it is called for."""
        for name in self.portfolio.resident:
            if self.portfolio.evict(name):
                log.info("closed %s, for memory is short", name)

    def _last_held(self) -> str:
        return self.decisions[-1].held if self.decisions else ""

    def _seen(self, name: str) -> tuple[float, float] | None:
        """The mean and the 95th percentile of the last runs of a variant, in ms; None: too few, or long ago."""
        since = time.monotonic() - _RECENT_S  # the portfolio's clock
        runs = [seconds * 1e3 for at, seconds in list(self.portfolio.timings[name])[-_LAST:] if at > since]
        if len(runs) < _FEW:
            return None
        return float(np.mean(runs)), float(np.percentile(runs, 95))

    def _slower(self) -> float:
        """How much more the active variant takes than it did when the portfolio was built."""
        built, seen = _built(self.portfolio.variants[self.portfolio.active], 1.0), self._seen(self.portfolio.active)
        return seen[0] / built[0] if seen and built else 1.0


def _built(variant: Variant, slower: float) -> tuple[float, float] | None:
    """The median and the 95th percentile that were measured, times ``slower``; None where nobody measured."""
    measured = variant.here(machine())
    if not measured.latency_ms:
        return None
    return measured.latency_ms * slower, (measured.p95_ms or measured.latency_ms) * slower


def _run_ms(candidates: Sequence[Candidate], name: str) -> float:
    return next((c.run_ms for c in candidates if c.name == name), 0.0)
