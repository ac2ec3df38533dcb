"""Standing: what a planner ranks units by while it drops them in several steps.

A criterion ranks units by the network that it sees, and that network changes as units go.  So each step drops some, by
the schedule, and those that stay are scored anew on the network that remains.  What is out stays out: it ranks behind
all that is in, what left last first, for the last step may need it to fill a block of channels.  Start at
:func:`before_last`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..base import State
from ..groups import Groups, Units
from ..remaining import remaining
from ..score.again import scored_again
from ..score.scoring import Scores


@dataclass(frozen=True)
class Standing:
    """For each unit its score, when it had one last, and how many steps before the last one it left (0: it is in)."""

    scores: Scores
    out: NDArray[np.int64]

    @classmethod
    def of(cls, scores: Scores) -> Standing:
        """All units are in."""
        scores = np.array(scores, np.float64)
        return cls(scores, np.zeros(scores.size, np.int64))

    @property
    def dropped(self) -> Units:
        """The units that are out."""
        return np.flatnonzero(self.out)

    def levels(self) -> Scores:
        """The scores of the units that are in, -inf for those that are out."""
        return np.where(self.out > 0, -np.inf, self.scores)

    def order(self, units: Units, levels: Scores) -> Units:
        """``units`` from best to worst of their ``levels``, those that are out by when they left."""
        behind = np.where(self.out > 0, -self.scores, 0)[units]
        return units[np.lexsort((behind, self.out[units], -levels[units]))]

    def without(self, dropped: Units, before: int) -> Standing:
        """``dropped`` are out as well, since ``before`` steps before the last."""
        out = self.out.copy()
        out[dropped[out[dropped] == 0]] = before
        return replace(self, out=out)

    def scored(self, scores: Scores) -> Standing:
        """The units that are in have other ``scores``."""
        return replace(self, scores=np.where(self.out > 0, self.scores, scores))


def before_last(state: State, steps: int, drops: Callable[[Standing, int], Units]) -> Standing:
    """The standing before the last of ``steps``: ``drops`` says for each step before it which units are out then.

    Raises
    ------
    UsageError
        There are several steps, and nothing computes scores anew.
    """
    groups: Groups = state.facts["groups"]
    standing = Standing.of(state.facts["scores"])
    for step in range(1, steps):
        state.tell("plan", f"step {step} of {steps}")
        standing = standing.without(drops(standing, step), steps - step)
        standing = standing.scored(scored_again(state, remaining(groups, standing.dropped), "plan{steps}"))
    return standing
