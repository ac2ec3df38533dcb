"""The plan: which units go and which budget that meets.  It is data: it holds no tensors and serialises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from ..groups import Groups, Mode, Units

MEASURES = ("ratio", "macs", "params")


@dataclass(frozen=True)
class Plan:
    """Dropped units by group (their numbers within the group), the budget asked for and what was reached.

    ``mode`` is that of the groups; see :class:`~prunec.passes.groups.FindGroups`.  ``whole`` names soft edges across
    which everything is read, with zero weights for what is dropped; see :class:`~prunec.passes.layout.Layout`.
    """

    dropped: dict[str, tuple[int, ...]]
    sizes: dict[str, int]
    budget: dict[str, float]
    reached: dict[str, float]
    mode: Mode = "constrained"
    whole: tuple[str, ...] = ()

    def units(self, groups: Groups) -> Units:
        """The dropped units as numbers of the whole graph."""
        found = [g.units[list(self.dropped[g.name])] for g in groups.groups if self.dropped.get(g.name)]
        return np.sort(np.concatenate(found)) if found else np.zeros(0, np.int64)

    @classmethod
    def of(cls, groups: Groups, units: Units, budget: Mapping[str, float], whole: tuple[str, ...] = ()) -> Plan:
        """The plan that drops ``units``, with everything read across the edges ``whole``, and what it reaches."""
        dropped = {g.name: tuple(np.flatnonzero(np.isin(g.units, units)).tolist()) for g in groups.groups}
        sizes = {g.name: len(g) for g in groups.groups}
        return cls(dropped, sizes, dict(budget), reached(groups, units, whole=whole), groups.mode, whole)

    def to_json(self) -> dict[str, Any]:
        """The plan as JSON-serialisable data; :meth:`from_json` brings it back."""
        groups = {name: {"units": n, "dropped": list(self.dropped.get(name, ()))} for name, n in self.sizes.items()}
        chosen = {"mode": self.mode, "whole": list(self.whole)} if self.mode != "constrained" else {}
        return {**chosen, "budget": self.budget, "reached": self.reached, "groups": groups}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Plan:
        """The plan that :meth:`to_json` described."""
        dropped = {name: tuple(g["dropped"]) for name, g in data["groups"].items()}
        sizes = {name: g["units"] for name, g in data["groups"].items()}
        mode, whole = data.get("mode", "constrained"), tuple(map(str, data.get("whole", ())))
        if mode not in get_args(Mode):
            raise ValueError(f"{mode!r} is no mode of groups")
        return cls(dropped, sizes, dict(data["budget"]), dict(data["reached"]), mode, whole)


def reached(
    groups: Groups, units: Units, which: Sequence[str] = MEASURES, whole: tuple[str, ...] = ()
) -> dict[str, float]:
    """What dropping ``units`` reaches: ``ratio`` (of the prunable units), ``macs`` and ``params`` (compact/dense)."""
    found = {"ratio": units.size / max(1, groups.prunable.size)} if "ratio" in which else {}
    if totals := [name for name in MEASURES if name in which and name != "ratio"]:
        stays = groups.held(groups.alive(units), whole)
        found |= {name: groups.cost.total(name, stays) / max(1.0, groups.dense[name]) for name in totals}
    return found
