"""Sums of terms that follow a choice which changes little at a time: only what a change touches is counted again.

A term (an op's multiply-accumulates, a parameter's elements, the time of a copy) is a function of how many positions of
a few axes are alive.  Components that die or live again are positions of axes, and the terms that read those axes are
computed anew.  Terms are whole numbers, or their sum hardly depends on the order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ..ir.axes import Axis
from ..ir.rows import Rows
from .cost import Term


class Tally:
    """Totals of the terms under each name while components turn; ``living`` says of each whether it is alive."""

    def __init__(
        self, component: NDArray[np.int64], terms: Mapping[str, Sequence[Term]], living: NDArray[np.bool_]
    ) -> None:
        self.component, self.living = component, living
        self.terms = [(name, term) for name, each in terms.items() for term in each]
        self.totals = dict.fromkeys(terms, 0.0)
        self.values = [0.0] * len(self.terms)
        self._axes: dict[int, int] = {}
        self._held: list[Axis] = []
        self._counts: list[int] = []
        self._readers: list[dict[int, None]] = []
        self._places: Rows | None = None
        for k in range(len(self.terms)):
            self._evaluate(k)

    def turn(self, turned: NDArray[np.int64], *, alive: bool) -> None:
        """The components ``turned``, each of which was otherwise, are ``alive`` now, or dead."""
        self.living[turned] = alive
        affected: dict[int, None] = {}
        for axis, positions in zip(*np.unique(self._positions().pairs(turned)[1], return_counts=True), strict=True):
            self._counts[axis] += int(positions) if alive else -int(positions)
            affected |= self._readers[axis]
        for k in affected:
            self._evaluate(k)

    def _evaluate(self, k: int) -> None:
        name, term = self.terms[k]
        new = term(lambda axis: self._count(axis, k))
        self.totals[name] += new - self.values[k]
        self.values[k] = new

    def _count(self, axis: Axis, reader: int) -> int:
        at = self._axes.get(id(axis))
        if at is None:
            at = self._axes[id(axis)] = len(self._held)
            self._held.append(axis)
            self._counts.append(int(np.count_nonzero(self.living[self.component[axis]])))
            self._readers.append({})
            self._places = None
        self._readers[at][reader] = None
        return self._counts[at]

    def _positions(self) -> Rows:
        """For each component the axes that it has positions on, one entry a position."""
        if self._places is None:
            components = [self.component[axis] for axis in self._held]
            axes = np.repeat(np.arange(len(components)), [c.size for c in components])
            self._places = Rows.grouped(np.concatenate([*components, axes[:0]]), axes, self.living.size)
        return self._places
