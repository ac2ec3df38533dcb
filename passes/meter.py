"""Costs of a choice of units that changes by a few units at a time: see :mod:`prunec.passes.tally`.

A unit that goes kills the components that need it, and what nobody reads then.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..ir.rows import Rows
from ..ir.soft import Reads
from .groups import Groups, Units
from .tally import Tally


class Meter:
    """The costs named in ``which`` (``macs``, ``params``) while units are dropped and taken back."""

    def __init__(self, groups: Groups, which: tuple[str, ...], dropped: Units) -> None:
        solution = groups.analysis.solution
        self.needed_by = Rows.of(solution.members.T.tocsr())
        self.dead_needs: NDArray[np.int64] = solution.members @ solution.dead(dropped).astype(np.int64)
        self.reads = None if solution.soft is None else Reads(solution.soft, self.dead_needs == 0)
        terms = {name: groups.cost.terms(name) for name in which}
        self.tally = Tally(solution.component, terms, self.dead_needs == 0)
        self.totals = self.tally.totals

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
        self.tally.turn(turned, alive=by < 0)
        if self.reads is not None and (follow := self.reads.change(turned, by)).size:
            self._change(follow, by)
