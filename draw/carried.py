"""Which groups lie on an axis, and what keeps one that carries none.  Start at :class:`Carried`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..ir.graph import Value
from ..passes.groups import Groups
from ..wording import pin_text

Numbers = tuple[int, ...]


class Carried:
    """Answers for one analysed graph; groups are numbers, as the findings list them."""

    def __init__(self, groups: Groups, found: Mapping[str, Any]) -> None:
        self.analysis, self.group_of = groups.analysis, groups.group_of
        self.names = [g["name"] for g in found["groups"]]
        self.texts = [pin_text(pin) for pin in found["pins"]]
        self.held: dict[tuple[str, int], list[int]] = {}
        self.seen: dict[bytes, Counter[int]] = {}
        for k, pin in enumerate(found["pins"]):
            for name, axis in pin["parameters"]:
                self.held.setdefault((name, axis), []).append(k)

    def on_axis(self, value: Value, d: int) -> Counter[int]:
        """The groups on one axis, with how many positions need each."""
        axis = (self.analysis.axes.get(value) or [])[d]
        key = axis.tobytes()
        if key not in self.seen:
            groups = self.group_of[self.analysis.solution.needs(axis)[1]]
            number, count = np.unique(groups[groups >= 0], return_counts=True)
            self.seen[key] = Counter(dict(zip(number.tolist(), count.tolist())))
        return self.seen[key]

    def on(self, value: Value) -> Numbers:
        """The groups on all axes of a value, the one that most positions need first."""
        total: Counter[int] = Counter()
        for d in range(len(self.analysis.axes.get(value) or ())):
            total.update(self.on_axis(value, d))
        return ranked(total)

    def about(self, name: str, value: Value, d: int) -> str:
        """Words on one axis of the parameter ``name``: its groups, or what keeps it."""
        groups = [f"group {k + 1} {self.names[k]}" for k in ranked(self.on_axis(value, d))]
        pinned = [f"pinned by reason {k + 1}: {self.texts[k]}" for k in self.held.get((name, d), ())]
        kept = "one position" if (value.shape or ())[d] == 1 else "kept with what it meets: an input, or a kept axis"
        return f"axis {d}: " + "; ".join([*groups, *pinned] or [kept])


def ranked(count: Counter[int]) -> Numbers:
    """Groups by how many positions need them, those of a tie in their order."""
    return tuple(sorted(count, key=lambda k: (-count[k], k)))
