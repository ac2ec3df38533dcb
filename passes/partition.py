"""Into which parts channels are split: what the target's cost model says is cheapest.

Channels with the same readers and makers are one class.  Each set partition of the classes is a choice, and up to eight
classes all of them are tried; of more, the two parts are merged whose merge costs least, step by step, from each class
alone, and the best of what was passed is taken.  Start at :func:`cheapest`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from .target import Target

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Part = tuple[int, ...]

_EXACT = 8
_ALL_PAIRS = 32
"""Parts of which any two may be merged; of more, one is always the smallest."""


@dataclass(frozen=True, eq=False)
class Work:
    """A node that is cloned for each part that it makes, and summed over each part that it reads.

    Attributes
    ----------
    made, read
        Which classes: (classes,); None where it makes, or sums over, none of the channels.
    rate_ns
        Nanoseconds of multiplying, for one channel made and one read.
    summand_ns
        Nanoseconds of adding once more to the result, for one channel made.
    in_sets
        Whether the channels made come in sets of blocks.
    """

    made: Bools | None
    read: Bools | None
    rate_ns: float
    summand_ns: float
    in_sets: bool = False


@dataclass(frozen=True)
class Choice:
    """Parts, each with its classes, and the nanoseconds that the model gives."""

    parts: tuple[Part, ...]
    time_ns: float


def cheapest(works: Sequence[Work], sizes: Sequence[int], cells: Sequence[int], target: Target) -> Choice:
    """The cheapest partition of classes with these ``sizes``; only classes of one cell may share a part."""
    model = _Model(works, sizes, target)
    return _exactly(model, np.asarray(cells)) if len(sizes) <= _EXACT else _merging(model, np.asarray(cells))


def unsplit_ns(works: Sequence[Work], sizes: Sequence[int], target: Target) -> float:
    """Nanoseconds of multiplying where each node has exactly its channels, all together."""
    return sum(
        w.rate_ns
        * _width(w.made, sizes, target.in_sets if w.in_sets else target.in_blocks)
        * _width(w.read, sizes, target.in_blocks)
        for w in works
    )


def _width(classes: Bools | None, sizes: Sequence[int], computed: Callable[[int], int]) -> int:
    return 1 if classes is None else computed(int(np.asarray(sizes)[classes].sum()))


@dataclass(frozen=True, eq=False)
class _Sums:
    """For each work (last axis) how many parts it makes and reads, and how wide they are together."""

    made: Floats
    made_width: Floats
    read: Floats
    read_width: Floats


class _Model:
    """The time of partitions, many at once."""

    def __init__(self, works: Sequence[Work], sizes: Sequence[int], target: Target) -> None:
        self.sizes, self.target = np.asarray(sizes, np.int64), target
        self.rate = np.array([w.rate_ns for w in works])
        self.summand = np.array([w.summand_ns for w in works])
        none = np.zeros(len(sizes), bool)
        self.made, self.read = (
            np.array([none if c is None else c for c in each]).reshape(len(works), len(sizes)).astype(np.int64).T
            for each in ([w.made for w in works], [w.read for w in works])
        )
        self.in_sets = np.array([w.in_sets for w in works], bool)
        self.plain = [
            np.array([c is None for c in each]) for each in ([w.made for w in works], [w.read for w in works])
        ]

    def widths(self, sizes: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Channels that parts of these ``sizes`` count as where each work makes or reads them: (…, parts, works)."""
        blocks = np.repeat(self.target.in_blocks(sizes)[..., None], self.in_sets.size, -1)
        return np.where(self.in_sets, self.target.in_sets(sizes)[..., None], blocks), blocks

    def hits(self, parts: NDArray[np.int64]) -> tuple[Bools, Bools]:
        """Which parts each work makes and reads: (…, parts, works)."""
        return parts @ self.made > 0, parts @ self.read > 0

    def time(self, sums: _Sums) -> Floats:
        """Nanoseconds of each partition: (…, works) -> (…)."""
        (made, made_width), (read, read_width) = (
            (np.where(plain, 1.0, count), np.where(plain, 1.0, width))
            for plain, count, width in zip(
                self.plain, (sums.made, sums.read), (sums.made_width, sums.read_width), strict=True
            )
        )
        found: Floats = (
            self.rate * made_width * read_width
            + (made * read - 1) * self.target.ns_per_node
            + (read - 1) * made_width * self.summand
        ).sum(-1)
        return found

    def sums(self, parts: NDArray[np.int64]) -> _Sums:
        made_width, read_width = self.widths(parts @ self.sizes)
        made, read = self.hits(parts)
        return _Sums(made.sum(-2), (made_width * made).sum(-2), read.sum(-2), (read_width * read).sum(-2))


def _exactly(model: _Model, cells: NDArray[np.int64]) -> Choice:
    """The best of all partitions."""
    parts = _partitions(len(cells))
    mixed = np.zeros(parts.shape[:2], bool)
    for cell in np.unique(cells):
        mixed |= (parts[..., cells == cell] > 0).any(-1) & (parts[..., cells != cell] > 0).any(-1)
    parts = parts[~mixed.any(-1)]
    times = model.time(model.sums(parts))
    best = int(times.argmin())
    return _choice(parts[best], times[best])


def _choice(parts: NDArray[np.int64], time_ns: float) -> Choice:
    return Choice(tuple(tuple(np.flatnonzero(row).tolist()) for row in parts if row.any()), float(time_ns))


@cache
def _partitions(count: int) -> NDArray[np.int64]:
    """All partitions of ``count`` classes: (partitions, parts, classes), with empty parts; few parts come first."""
    labels = np.array(list(_labels(count)), np.int64).reshape(-1, count)
    found = (labels[:, None, :] == np.arange(count)[None, :, None]).astype(np.int64)
    few_first: NDArray[np.int64] = found[np.argsort(labels.max(1, initial=0), kind="stable")]
    return few_first


def _labels(count: int) -> Iterator[Part]:
    """For each partition the number of each class's part, counted as they appear."""
    if count == 0:
        yield ()
        return
    for rest in _labels(count - 1):
        for label in range(max(rest, default=-1) + 2):
            yield (*rest, label)


def _merging(model: _Model, cells: NDArray[np.int64]) -> Choice:
    """The best partition on the way from classes alone to parts that can no longer be merged."""
    parts = _Merging(model, cells)
    best, merges = parts.time(), 0
    while (pair := parts.cheapest_pair()) is not None:
        time_ns = parts.merge(*pair)
        if time_ns <= best:
            best, merges = time_ns, len(parts.merged)
    return Choice(_joined(len(cells), parts.merged[:merges]), best)


def _joined(count: int, merged: Sequence[tuple[int, int]]) -> tuple[Part, ...]:
    """The parts of ``count`` classes after merges, each of two places in the list of what is left."""
    parts: list[Part] = [(k,) for k in range(count)]
    for a, b in merged:
        parts[a] += parts.pop(b)
    return tuple(tuple(sorted(part)) for part in parts)


class _Merging:
    """Parts while they are merged: their cells, sizes, and which works make and read them (parts, works)."""

    def __init__(self, model: _Model, cells: NDArray[np.int64]) -> None:
        self.model, self.cell, self.size = model, cells, model.sizes
        self.hits = [model.made > 0, model.read > 0]
        self.merged: list[tuple[int, int]] = []

    def time(self) -> float:
        """Nanoseconds of the parts as they are."""
        return float(self.model.time(self._sums()))

    def _sums(self) -> _Sums:
        made_width, read_width = self.model.widths(self.size)
        made, read = self.hits
        return _Sums(made.sum(0), (made_width * made).sum(0), read.sum(0), (read_width * read).sum(0))

    def cheapest_pair(self) -> tuple[int, int] | None:
        """The two parts whose merge costs least; None where none may be merged."""
        pairs = self._pairs()
        if not pairs.size:
            return None
        a, b = pairs[int(self.model.time(self._merged(pairs)).argmin())].tolist()
        return a, b

    def merge(self, a: int, b: int) -> float:
        """Make ``b`` a part of ``a``, which comes before it; nanoseconds of what is left."""
        for hit in self.hits:
            hit[a] |= hit[b]
        self.size = np.delete(np.where(np.arange(self.size.size) == a, self.size + self.size[b], self.size), b)
        self.hits, self.cell = [np.delete(hit, b, 0) for hit in self.hits], np.delete(self.cell, b)
        self.merged.append((a, b))
        return self.time()

    def _pairs(self) -> NDArray[np.int64]:
        """The parts that may be merged: (pairs, 2)."""
        count = len(self.cell)
        if count <= _ALL_PAIRS:
            pairs = np.stack(np.triu_indices(count, 1), 1)
        else:
            _, which, often = np.unique(self.cell, return_inverse=True, return_counts=True)
            able = np.flatnonzero(often[which] > 1)
            if not able.size:
                return np.zeros((0, 2), np.int64)
            least, others = able[self.size[able].argmin()], np.arange(count)
            pairs = np.sort(np.stack([np.full(count, least), others], 1)[others != least], 1)
        return np.asarray(pairs[self.cell[pairs[:, 0]] == self.cell[pairs[:, 1]]], np.int64)

    def _merged(self, pairs: NDArray[np.int64]) -> _Sums:
        """The sums once the parts of each pair are one: (pairs, works)."""
        now, (a, b) = self._sums(), pairs.T
        alone, together = self.model.widths(self.size), self.model.widths(self.size[a] + self.size[b])
        counts, totals = (now.made, now.read), (now.made_width, now.read_width)
        found = []
        for hit, count, total, width, joint in zip(self.hits, counts, totals, alone, together, strict=True):
            found.append(count - (hit[a] & hit[b]))
            found.append(total - width[a] * hit[a] - width[b] * hit[b] + joint * (hit[a] | hit[b]))
        return _Sums(*found)
