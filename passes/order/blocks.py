"""What a pattern N:M keeps of the scores of a weight, and what it would keep with another channel in some place.

A pattern has blocks of positions: ``m`` neighbours along the axis that is summed over, and ``v`` rows that share which
of these stay.  Channels stand along one of these axes; which ones share a block is their order.  Places are those of
the channels that move, the rest of a block stays.  An order holds for each place the channel that is there, by the
place where it was at first.  Start at :class:`Neighbours`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

Places = NDArray[np.int64]
Order = NDArray[np.int64]
Kept = NDArray[np.float64]

_AT_ONCE = 1 << 22
"""How many numbers are held at a time."""

_FEW = 8
"""Of so many numbers the highest are found by comparing them one by one, of more by sorting."""


class Side(Protocol):
    """An axis of a weight along which channels stand, in blocks."""

    @property
    def labels(self) -> Places:
        """In which block each place lies."""
        ...

    @property
    def work(self) -> int:
        """How many scores are compared to know what one channel would be worth in one place."""
        ...

    def instead(self, order: Order, at: Places, by: Places) -> Kept:
        """What the block of each place ``at`` keeps if the channel at each place ``by`` stood there: (at, by).

        Where both are in one block it says nothing, but for a place and itself: what the block keeps now.
        """
        ...


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Channels that are summed over: ``n`` of ``m`` neighbours stay, in each row of ``scores`` (positions, rows).

    ``places`` are the positions of the channels that move, ascending.
    """

    scores: NDArray[Any]
    places: Places
    n: int
    m: int

    @cached_property
    def labels(self) -> Places:
        return self.places // self.m

    @property
    def work(self) -> int:
        return int(self.scores.shape[1])

    def instead(self, order: Order, at: Places, by: Places) -> Kept:
        # with x in place of a channel, a block keeps the n - 1 largest of the others, and the n-th or x
        now, place = _standing(len(self.scores), self.places, order), self.places[at]
        end, others = (place // self.m + 1) * self.m, place[:, None] + np.arange(1, self.m)
        others = now[np.where(others < end[:, None], others, others - self.m)]
        kept = np.zeros((at.size, by.size))
        for rows in _parts(self.work, max(at.size * self.m, by.size)):
            part = self.scores[:, rows]
            x = part[now[self.places[by]]].astype(np.float64)
            best = highest(np.moveaxis(part[others], 1, 0).astype(np.float64), self.n)
            level = best[-1]
            kept += best[:-1].sum((0, 2))[:, None]
            kept += (level.sum(1)[:, None] + x.sum(1) + cdist(level, x, "cityblock")) / 2  # the sum of the larger ones
        return kept


@dataclass(frozen=True, eq=False)
class Rows:
    """Channels that are rows, of which ``v`` share a pattern: ``scores`` (rows, m, blocks) add up, ``n`` of m stay.

    ``places`` are the rows of the channels that move, ascending.
    """

    scores: NDArray[Any]
    places: Places
    n: int
    v: int

    @cached_property
    def labels(self) -> Places:
        return self.places // self.v

    @property
    def work(self) -> int:
        return int(self.scores[0].size) * (2 * self.n + 2)  # added, compared n times, added up

    def instead(self, order: Order, at: Places, by: Places) -> Kept:
        now = _standing(len(self.scores), self.places, order)
        kept = np.zeros((at.size, by.size))
        for blocks in _parts(self.scores.shape[2], by.size * self.scores.shape[1]):
            part = np.moveaxis(self.scores[:, :, blocks], 1, 0)
            x = part[:, now[self.places[by]]].astype(np.float64)
            for k, place in enumerate(self.places[at].tolist()):
                start = place // self.v * self.v
                others = part[:, now[[r for r in range(start, start + self.v) if r != place]]].sum(1, dtype=np.float64)
                kept[k] += highest(others[:, None] + x, self.n).sum((0, 2))
        return kept


def highest(numbers: NDArray[Any], n: int) -> NDArray[Any]:
    """The ``n`` highest along the first axis, descending."""
    if len(numbers) > _FEW:
        return np.sort(numbers, axis=0)[: -n - 1 : -1]
    found = list(numbers)
    for j in range(n):
        for i in range(j + 1, len(found)):
            larger = np.maximum(found[j], found[i])
            if j < n - 1:
                found[i] = np.minimum(found[j], found[i])
            found[j] = larger
    return np.stack(found[:n])


def _standing(size: int, places: Places, order: Order) -> Places:
    """Which position's channel stands at each position."""
    now = np.arange(size)
    now[places] = places[order]
    return now


def _parts(size: int, width: int) -> Iterator[slice]:
    """Ranges of ``size``, so that not too many numbers are held where each has ``width``."""
    step = max(1, _AT_ONCE // max(1, width))
    return (slice(start, start + step) for start in range(0, size, step))
