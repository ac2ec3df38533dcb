"""The plan: which units go and which budget that meets.  It is data: it holds no tensors and serialises."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..groups import Groups, Units


@dataclass(frozen=True)
class Plan:
    """Dropped units by group (their numbers within the group), the budget asked for and what was reached."""

    dropped: dict[str, tuple[int, ...]]
    sizes: dict[str, int]
    budget: dict[str, float]
    reached: dict[str, float]

    def units(self, groups: Groups) -> Units:
        """The dropped units as numbers of the whole graph."""
        found = [g.units[list(self.dropped[g.name])] for g in groups.groups if self.dropped.get(g.name)]
        return np.sort(np.concatenate(found)) if found else np.zeros(0, np.int64)

    def to_json(self) -> dict[str, Any]:
        """The plan as JSON-serialisable data; :meth:`from_json` brings it back."""
        groups = {name: {"units": n, "dropped": list(self.dropped.get(name, ()))} for name, n in self.sizes.items()}
        return {"budget": self.budget, "reached": self.reached, "groups": groups}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Plan:
        """The plan that :meth:`to_json` described."""
        dropped = {name: tuple(g["dropped"]) for name, g in data["groups"].items()}
        sizes = {name: g["units"] for name, g in data["groups"].items()}
        return cls(dropped, sizes, dict(data["budget"]), dict(data["reached"]))
