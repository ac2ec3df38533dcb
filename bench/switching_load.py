"""A load that changes, as it is written down beforehand: phases, and the moments at which requests come.

Rates are shares of what the largest variant can answer on this machine, so that the same trace means the same on any.
Requests come at random, whether those before them are answered or not (an open loop), and from a seed: the same
settings give the same trace.  No trace has more than :data:`MOST` requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

MOST = 20_000


@dataclass(frozen=True)
class Phase:
    """``seconds`` in which the rate goes evenly from ``rate`` to ``until`` (None: stays); ``pressed``: of memory."""

    name: str
    seconds: float
    rate: float
    until: float | None = None
    pressed: bool = False

    @property
    def last(self) -> float:
        """The rate at the end."""
        return self.rate if self.until is None else self.until

    @property
    def area(self) -> float:
        """Requests, for a capacity of one a second."""
        return self.seconds * (self.rate + self.last) / 2


PHASES = (
    Phase("steady", 3, 0.4),
    Phase("ramp", 6, 0.4, 2.0),
    Phase("recovery", 4, 0.4),
    Phase("burst", 2, 4.0),
    Phase("recovery", 4, 0.4),
    Phase("memory", 2, 0.4, pressed=True),
    Phase("recovery", 3, 0.4),
)


@dataclass(frozen=True)
class Load:
    """A trace: ``arrivals`` in seconds from its start, ``capacity`` in requests a second, ``asked`` by number."""

    phases: tuple[Phase, ...]
    capacity: float
    arrivals: NDArray[np.float64]
    asked: NDArray[np.int64]

    @property
    def seconds(self) -> float:
        """How long it is."""
        return sum(p.seconds for p in self.phases)

    def phase(self, at: float) -> int:
        """Which phase it is ``at`` seconds after the start; the last one after the end."""
        ends = np.cumsum([p.seconds for p in self.phases])
        return min(int(np.searchsorted(ends, at, side="right")), len(self.phases) - 1)


def scaled(phases: Sequence[Phase], by: float) -> tuple[Phase, ...]:
    """The same phases, longer or shorter."""
    return tuple(replace(p, seconds=p.seconds * by) for p in phases)


def load(capacity: float, kinds: int, *, seed: int, phases: Sequence[Phase] = PHASES, most: int = MOST) -> Load:
    """Requests of ``kinds`` kinds.

    Where ``capacity`` would make more than ``most`` requests, it is taken to be smaller.
    """
    rng = np.random.default_rng(seed)
    capacity = min(capacity, 0.9 * most / sum(p.area for p in phases))
    starts = np.cumsum([0.0, *(p.seconds for p in phases)])
    came = [start + _arrivals(phase, capacity, rng) for start, phase in zip(starts, phases)]
    arrivals = np.concatenate(came)[:most]
    return Load(tuple(phases), capacity, arrivals, rng.integers(kinds, size=len(arrivals)))


def _arrivals(phase: Phase, capacity: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """A Poisson process, thinned to the rate of each moment."""
    highest = max(phase.rate, phase.last)
    count = rng.poisson(highest * capacity * phase.seconds)
    at = np.sort(rng.random(count)) * phase.seconds
    rate = phase.rate + (phase.last - phase.rate) * at / phase.seconds
    return at[rng.random(count) * highest < rate]
