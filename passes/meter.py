"""Costs of a choice of units that changes by a few units at a time: only what a change touches is counted again.

A cost is a sum of terms (an op's multiply-accumulates, a parameter's elements), each a function of how many positions
of a few axes are alive.  A unit that goes kills the components that need it, these are positions of axes, and the terms
that read those axes are computed anew.  Terms are whole numbers, so that their sum does not depend on the order.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..ir.axes import Axis
from ..ir.rows import Rows
from ..ir.soft import Reads
from .groups import Groups, Units


class Meter:
    """The costs named in ``which`` (``macs``, ``params``) while units are dropped and taken back."""

    def __init__(self, groups: Groups, which: tuple[str, ...], dropped: Units) -> None:
        solution = groups.analysis.solution
        self.component = solution.component
        self.needed_by = Rows.of(solution.members.T.tocsr())
        self.dead_needs: NDArray[np.int64] = solution.members @ solution.dead(dropped).astype(np.int64)
        self.reads = None if solution.soft is None else Reads(solution.soft, self.dead_needs == 0)
        self.terms = [(name, term) for name in which for term in groups.cost.terms(name)]
        self.totals = dict.fromkeys(which, 0.0)
        self.values = [0.0] * len(self.terms)
        self.evaluations = 0
        self._axes: dict[int, int] = {}
        self._held: list[Axis] = []
        self._counts: list[int] = []
        self._readers: list[dict[int, None]] = []
        self._places: Rows | None = None
        for k in range(len(self.terms)):
            self._evaluate(k)

    def drop(self, units: Units) -> None:
        """``units``, which were alive, go."""
        self._change(units, 1)

    def take_back(self, units: Units) -> None:
        """``units``, which were dropped, are alive again."""
        self._change(units, -1)

    def saved(self, units: Units) -> dict[str, float]:
        """What dropping ``units``, which are alive, would save of each total; they stay."""
        before = dict(self.totals)
        self.drop(units)
        saved = {name: before[name] - total for name, total in self.totals.items()}
        self.take_back(units)
        return saved

    def _change(self, units: Units, by: int) -> None:
        touched, times = np.unique(self.needed_by.pairs(units)[1], return_counts=True)
        before = self.dead_needs[touched]
        after = self.dead_needs[touched] = before + by * times
        turned = touched[(before == 0) != (after == 0)]
        affected: dict[int, None] = {}
        for axis, positions in zip(*np.unique(self._positions().pairs(turned)[1], return_counts=True), strict=True):
            self._counts[axis] -= by * int(positions)
            affected |= self._readers[axis]
        for k in affected:
            self._evaluate(k)
        if self.reads is not None and (follow := self.reads.change(turned, by)).size:
            self._change(follow, by)

    def _evaluate(self, k: int) -> None:
        self.evaluations += 1
        name, term = self.terms[k]
        new = term(lambda axis: self._count(axis, k))
        self.totals[name] += new - self.values[k]
        self.values[k] = new

    def _count(self, axis: Axis, reader: int) -> int:
        at = self._axes.get(id(axis))
        if at is None:
            at = self._axes[id(axis)] = len(self._held)
            self._held.append(axis)
            self._counts.append(int(np.count_nonzero(self.dead_needs[self.component[axis]] == 0)))
            self._readers.append({})
            self._places = None
        self._readers[at][reader] = None
        return self._counts[at]

    def _positions(self) -> Rows:
        """For each component the axes that it has positions on, one entry a position."""
        if self._places is None:
            components = [self.component[axis] for axis in self._held]
            axes = np.repeat(np.arange(len(components)), [c.size for c in components])
            self._places = Rows.grouped(np.concatenate([*components, axes[:0]]), axes, self.dead_needs.size)
        return self._places
