"""Shrink: units of which every element is zero already leave the network, and it computes what it did.

Training that masks whole units (``pdp{channels=…}``), a mask of single elements, or another tool, leaves such units
behind.  A unit that a norm or a sum over channels sees is kept, for there being zero is not the same as being gone;
so is one that a buffer adds something to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...ir.words import counted
from ..base import Kind, Pass, State, register
from ..groups import Groups, Units
from ..parameter import untrained
from ..score.scoring import Scoring
from ..verify import norm_tied
from .patterns import chosen
from .plan import Plan


@register
@dataclass(frozen=True)
class Shrink(Pass):
    """Drop the units of which every element is zero, in all parameters that they stand in.

    targets, ignore: patterns of group or parameter names, as in plan.
    """

    targets: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()

    name: ClassVar[str] = "shrink"
    kind: ClassVar[Kind] = "planner"
    requires: ClassVar[frozenset[str]] = frozenset({"groups"})
    ensures: ClassVar[frozenset[str]] = frozenset({"plan"})
    forbids: ClassVar[frozenset[str]] = frozenset({"compact"})
    requires_choice: ClassVar[bool] = True

    def run(self, state: State) -> Plan:
        groups: Groups = state.facts["groups"]
        empty = _empty(groups, state)
        tied = np.intersect1d(empty, norm_tied(groups))
        if tied.size:
            state.notes.append(
                f"shrink: {counted(tied.size, 'unit')} of zeros stay, for a norm or a sum sees all channels there"
            )
        empty = np.setdiff1d(empty, tied)
        found = [np.intersect1d(g.units, empty) for g in chosen(groups, self)]
        dropped = np.concatenate([*(_all_but_one(g, groups) for g in found), np.zeros(0, np.int64)])
        if not dropped.size:
            state.notes.append("shrink: no unit is zero in all of its elements, and nothing goes")
        return Plan.of(groups, dropped, {})


def _empty(groups: Groups, state: State) -> Units:
    """The units of which no element is other than zero, in any constant but the statistics of batch norms."""
    scoring = Scoring(groups, state)
    filled = scoring.total_by_rows(lambda p: lambda rows: rows != 0)
    for constant in untrained(groups.analysis.graph):
        for dim in scoring.prunable_axes(constant):
            others = tuple(d for d in range(len(constant.shape)) if d != dim)
            scoring.add(filled, constant, dim, (constant.data != 0).sum(others))
    return np.intersect1d(np.flatnonzero(filled == 0), groups.prunable)


def _all_but_one(empty: Units, groups: Groups) -> Units:
    """The units ``empty`` of a group without the first, where it has no others: one unit of a group stays."""
    whole = empty.size and groups.groups[groups.group_of[empty[0]]].units.size == empty.size
    return empty[1:] if whole else empty
