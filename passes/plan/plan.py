"""The plan: which units go and which budget that meets.  It is data: it holds no tensors and serialises."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np

from ..groups import Groups, Mode, Units


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

    def laid_out(self, groups: Groups, units: Units, whole: tuple[str, ...]) -> Plan:
        """The same plan, dropping ``units`` instead, with everything read across the edges ``whole``."""
        dropped = {g.name: tuple(np.flatnonzero(np.isin(g.units, units)).tolist()) for g in groups.groups}
        stays, full = groups.held(groups.alive(units), whole), groups.all_alive()
        reached = {
            "ratio": units.size / max(1, groups.prunable.size),
            "macs": groups.cost.macs(stays) / max(1.0, groups.cost.macs(full)),
            "params": groups.cost.params(stays) / max(1.0, groups.cost.params(full)),
        }
        return replace(self, dropped=dropped, reached=reached, whole=whole)

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
