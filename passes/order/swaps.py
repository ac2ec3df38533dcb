"""Swaps: an order of channels in which patterns N:M keep more of the scores.

The sum of what all blocks keep is raised by swapping channels between two blocks.  Swaps in different blocks add up, so
that each round makes the best ones of all blocks at once.  Where no swap gains anything some are made by chance, and
what follows is kept if it ends higher (to escape from a local maximum).  Of very many channels a window of some blocks
is looked at, then another one.  What the search may cost is counted in scores compared, so that its result does not
depend on the machine.  Start at :func:`raised`.

References
----------
Pool and Yu: Channel Permutations for N:M Sparsity, NeurIPS 2021, sections 4 and 5 (greedy swaps, escapes); a sum over
several weights, and patterns that rows share, are ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from .blocks import Kept, Order, Places, Side

_ROUNDS = 10
"""How often all scores of a window are compared until no swap gains anything, about: what its width is chosen by."""

_TINY = 1e-12
"""A gain below this part of what is kept is none."""

_KICKED, _PATIENCE = 2, 30
"""A kick makes one of so many swaps that could be made at once; after so many kicks in vain the search ends."""


def raised(sides: Sequence[Side], work: float, rng: np.random.Generator) -> tuple[Order, float]:
    """An order of the channels along all ``sides`` that keeps no less than the order now does; and what it took.

    ``work`` bounds how many scores are compared, up to the last window.
    """
    search = _Search(sides, work, rng)
    return search.order, work - search.left


class _Search:
    """The order so far, and the work that is left."""

    def __init__(self, sides: Sequence[Side], work: float, rng: np.random.Generator) -> None:
        self.kinds, self.left, self.rng = _kinds(sides), work, rng
        self.each = sum(side.work for side in sides)
        self.order: Order = np.arange(sides[0].labels.size)
        width = int(work / (_ROUNDS * self.each * self.order.size))
        if width >= self.order.size:
            window = _Window(self, np.arange(self.order.size))
            window.climb()
            window.escape()
        else:
            while self.left > 0 and self._sweep(width):
                pass

    def _sweep(self, width: int) -> bool:
        """Go through windows of about ``width`` places until all were in one; whether any swap was made."""
        labels = self.kinds[0].labels
        blocks = self.rng.permutation(np.unique(labels))
        count = max(2, width * blocks.size // labels.size)
        before = self.order.copy()
        for start in range(0, blocks.size, count):
            if self.left > 0:
                _Window(self, np.flatnonzero(np.isin(labels, blocks[start : start + count]))).climb()
        return not np.array_equal(before, self.order)


@dataclass(frozen=True, eq=False)
class _Kind:
    """Sides in which the same places share blocks."""

    labels: Places
    sides: list[Side]


def _kinds(sides: Sequence[Side]) -> list[_Kind]:
    found: dict[bytes, _Kind] = {}
    for side in sides:
        labels = np.unique(side.labels, return_inverse=True)[1].ravel().astype(np.int64)
        found.setdefault(labels.tobytes(), _Kind(labels, [])).sides.append(side)
    return list(found.values())


class _Window:
    """Places among which channels are swapped, and what their blocks would keep with each other's channels."""

    def __init__(self, search: _Search, places: Places) -> None:
        self.search, self.places = search, places
        self.labels = [kind.labels[places] for kind in search.kinds]
        self.apart = [labels[:, None] != labels for labels in self.labels]
        self.kept: list[Kept] = [np.zeros((places.size, places.size)) for _ in self.labels]
        self._look(np.arange(places.size))

    def climb(self) -> float:
        """Swap until nothing is gained; what was."""
        gained = 0.0
        while self.search.left > 0 and (swaps := self._best()):
            gained += sum(gain for _, _, gain in swaps)
            self._swap([(a, b) for a, b, _ in swaps])
        return gained

    def escape(self) -> None:
        """Swap by chance and climb from there, as long as that ends higher now and then."""
        vain = 0
        while self.search.left > 0 and vain < _PATIENCE and (swaps := self._kick()):
            before = self.search.order.copy(), [kept.copy() for kept in self.kept]
            gains = self._gains()
            self._swap(swaps)
            gained = sum(float(gains[swap]) for swap in swaps) + self.climb()
            vain = 0 if gained > self._tiny() else vain + 1
            if vain:
                self.search.order, self.kept = before

    def _look(self, at: Places) -> None:
        """Know what the blocks of some of the places would keep."""
        for kept, kind in zip(self.kept, self.search.kinds, strict=True):
            kept[at] = sum(side.instead(self.search.order, self.places[at], self.places) for side in kind.sides)
        self.search.left -= float(at.size) * self.places.size * self.search.each

    def _gains(self) -> Kept:
        """What swapping the channels of two places gains."""
        total = np.zeros(self.kept[0].shape)
        for kept, apart in zip(self.kept, self.apart, strict=True):
            now = np.diagonal(kept)
            total += np.where(apart, kept + kept.T - now[:, None] - now, 0)
        return total

    def _tiny(self) -> float:
        return _TINY * sum(float(np.abs(np.diagonal(kept)).sum()) for kept in self.kept)

    def _best(self) -> list[tuple[int, int, float]]:
        """Swaps that gain, in blocks of their own, those that gain most first."""
        gains = self._gains()
        best = gains.argmax(1)
        gain = gains[np.arange(best.size), best]
        order = np.argsort(-gain, kind="stable")
        wanted = order[gain[order] > self._tiny()]
        chosen = self._in_own_blocks((int(a), int(best[a])) for a in wanted)
        return [(a, b, float(gains[a, b])) for a, b in chosen]

    def _kick(self) -> list[tuple[int, int]]:
        """Swaps by chance."""
        size = self.places.size
        drawn = self.search.rng.permutation(size)
        pairs = zip(drawn[: size // 2].tolist(), drawn[size // 2 :].tolist(), strict=False)
        found = self._in_own_blocks(pair for pair in pairs if any(apart[pair] for apart in self.apart))
        return found[: max(1, len(found) // _KICKED)]

    def _in_own_blocks(self, pairs: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
        """Those of ``pairs`` whose blocks no pair before them has."""
        used = [set[int]() for _ in self.labels]
        found = []
        for a, b in pairs:
            here = [{int(labels[a]), int(labels[b])} for labels in self.labels]
            if not any(u & h for u, h in zip(used, here, strict=True)):
                found.append((a, b))
                for u, h in zip(used, here, strict=True):
                    u |= h
        return found

    def _swap(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Swap the channels of each pair of places."""
        a, b = np.array(pairs).T
        order, here, there = self.search.order, np.concatenate([a, b]), np.concatenate([b, a])
        order[self.places[here]] = order[self.places[there]]
        changed = np.zeros(self.places.size, bool)
        for kept, labels in zip(self.kept, self.labels, strict=True):
            kept[:, here] = kept[:, there]
            changed |= np.isin(labels, labels[here])
        self._look(np.flatnonzero(changed))
