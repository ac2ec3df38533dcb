"""Rank: the channels of each group stand in the order of their scores, the highest first.

The network computes what it did, and is as large as it was.  But a plan that drops the lowest of each group leaves its
beginning, so that variants of several sizes are prefixes of one another: a bias, and a weight along its first axis, is
then the same bytes at the start of the larger one's, and a portfolio stores it once.

Channels move in families (``families.py``); those that may not change places stay, and so do all of a family that has
one of them on an axis of its own.  Start at :class:`Rank`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ..ir.graph import Graph
from ..ir.words import counted
from .base import Kind, Pass, State, register
from .families import Held, families
from .groups import Groups
from .reordering import Places


@register
@dataclass(frozen=True)
class Rank(Pass):
    """Order the channels of each group by score, the highest first: what a later plan keeps is then their beginning."""

    name: ClassVar[str] = "rank"
    kind: ClassVar[Kind] = "rewrite"
    requires: ClassVar[frozenset[str]] = frozenset({"groups", "scores"})
    ensures: ClassVar[frozenset[str]] = frozenset({"order"})
    forbids: ClassVar[frozenset[str]] = frozenset({"masked", "packing", "split", "order", "plan", "compact"})
    requires_choice: ClassVar[bool] = True

    def run(self, state: State) -> Graph:
        groups: Groups = state.facts["groups"]
        analysis, worth = groups.analysis, _worth(groups, np.asarray(state.facts["scores"]))
        places = Places.of(analysis)
        found = families(analysis, Held(analysis))
        for k, channels in enumerate(found):
            order = np.argsort(-worth[channels], kind="stable")
            places.family[channels], places.rank[channels[order]] = k, np.arange(channels.size)
        moved = counted(sum(channels.size for channels in found), "channel")
        state.notes.append(f"rank: {moved} stand by score" if found else "rank: nothing changed: no channel may move")
        reordering = places.reordering(analysis, {})
        state.rewritings.append(reordering)
        return reordering.applied(state.graph)


def _worth(groups: Groups, scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """The score of each component, which is that of its unit; infinite for what no plan drops."""
    members = groups.analysis.solution.members
    found = np.full(members.shape[0], np.inf)
    alone = np.flatnonzero(np.diff(members.indptr) == 1)
    units = members.indices[members.indptr[alone]]
    drops = np.isin(units, groups.prunable)
    found[alone[drops]] = scores[units[drops]]
    return found
