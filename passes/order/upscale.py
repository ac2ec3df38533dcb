"""The order that UPSCALE publishes: along heaviest paths of readers that share channels.

A reader contained in another one is ordered inside it, by the same rules.  The others are the nodes of a graph, with an
edge where they share channels.  A path on which only neighbours share, in the order "shared with the one before, its
own, shared with the one after", makes a range of each of its readers; it is worth the channels that it covers, which
is the sum of its nodes' sizes less what its edges share.  The heaviest path comes first; then the heaviest one of the
readers that are left, which find some of their channels placed already.

The published search looks at all paths, of which there may be exponentially many.  Here a branch ends where it cannot
become heavier than the best path so far, which finds the same one, and the search for one path ends after a number of
steps.

References
----------
Wan et al.: UPSCALE: Unconstrained Channel Pruning, ICML 2023, algorithm 1; as their code has it (ml-upscale 0.1.1).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from .order import IntArray, Order, Reads, matrix

Channels = frozenset[int]
_NONE: Channels = frozenset()
_STEPS = 20_000
"""So many paths are looked at for the heaviest one, at most."""


def upscale_path(reads: Sequence[Reads] | Reads) -> IntArray:
    """All channels in the published order; those that nobody reads come last.

    reads: (readers, channels)

    >>> upscale_path(np.array([[False, True, False, True], [False, False, True, True]])).tolist()
    [1, 3, 2, 0]
    """
    rows = matrix(reads)
    different = dict.fromkeys(frozenset(np.flatnonzero(row).tolist()) for row in rows)
    return Order.of(_arranged([*different]), rows).channels


def _arranged(readers: Sequence[Channels]) -> list[int]:
    """The channels that these readers read, in the published order."""
    outer = [a for a in readers if not any(a < b for b in readers)]
    channels: dict[int, None] = {}
    for path in _paths(outer):
        for before, a, after in zip((_NONE, *path), path, (*path[1:], _NONE)):
            inside = _arranged_inside(a, readers)
            channels |= dict.fromkeys(c for c in inside if c in before)
            channels |= dict.fromkeys(c for c in inside if c not in before and c not in after)
            channels |= dict.fromkeys(c for c in inside if c in after)
    return list(channels)


def _arranged_inside(a: Channels, readers: Sequence[Channels]) -> list[int]:
    """A reader's channels: first those of the readers contained in it, as these have them, then the others."""
    inner = _arranged([b for b in readers if b < a])
    return [*inner, *sorted(a.difference(inner))]


def _paths(readers: Sequence[Channels]) -> Iterator[list[Channels]]:
    """The heaviest path, then that of the readers which are left, and so on."""
    left = list(range(len(readers)))
    while left:
        path = _Search([readers[k] for k in left]).heaviest()
        yield [readers[left[k]] for k in path]
        left = [k for at, k in enumerate(left) if at not in path]


class _Search:
    """The search for the heaviest path among readers of which none contains another one; channels are bits."""

    def __init__(self, readers: Sequence[Channels]) -> None:
        self.readers = [sum(1 << channel for channel in a) for a in readers]
        self.meets = [[j for j, b in enumerate(readers) if j != k and a & b] for k, a in enumerate(readers)]
        self.best: tuple[int, ...] = ()
        self.weight = -1
        self.steps = _STEPS

    def heaviest(self) -> tuple[int, ...]:
        """The first of the heaviest paths."""
        everyone = frozenset(range(len(self.readers)))
        for k, channels in enumerate(self.readers):
            self.visit((k,), channels, everyone - {k})
        return self.best

    def visit(self, path: tuple[int, ...], covered: int, free: frozenset[int]) -> None:
        """A path, the channels that it covers, and the readers that share none with any node but its last."""
        self.steps -= 1
        if covered.bit_count() > self.weight:
            self.best, self.weight = path, covered.bit_count()
        if self.steps < 0 or self._reach(covered, free) <= self.weight:
            return
        still = free.difference(self.meets[path[-1]])
        for k in self.meets[path[-1]]:
            if k in free:
                self.visit((*path, k), covered | self.readers[k], still)

    def _reach(self, covered: int, free: frozenset[int]) -> int:
        """No path that goes on is heavier than this."""
        for k in free:
            covered |= self.readers[k]
        return covered.bit_count()
