"""The heaviest demands that one order can meet: branch and bound over which of them it meets.

Each demand, heaviest first, is met or given up.  A branch ends where no order is left, and where all that it could
still gain does not reach the best found so far.  The first way down is the greedy one; where all demands can be met,
it is also the last.

References
----------
Land, Doig: An automatic method of solving discrete programming problems, Econometrica 28 (1960).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from .fit import Demand, Fit


def exact(fit: Fit, demands: Sequence[Demand]) -> Fit:
    """``fit`` with those of the ``demands`` whose worth together is greatest; the time doubles with each demand."""
    heaviest_first = sorted(demands, key=lambda d: -d.weight)
    search = _Search(heaviest_first, fit)
    search.visit(0, fit)
    return search.best


class _Search:
    def __init__(self, demands: Sequence[Demand], fit: Fit) -> None:
        self.demands = demands
        self.best = fit
        self.left = [*accumulate((d.weight for d in reversed(demands)), initial=0.0)][::-1]

    def visit(self, k: int, fit: Fit) -> None:
        """Decide about demand ``k`` and those after it."""
        if fit.worth > self.best.worth:
            self.best = fit
        if k == len(self.demands) or fit.worth + self.left[k] <= self.best.worth:
            return
        met = fit.plus(self.demands[k])
        if met is not None:
            self.visit(k + 1, met)
        self.visit(k + 1, fit)
