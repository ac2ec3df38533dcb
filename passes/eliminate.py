"""Eliminate: the planned units leave the graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..ir.graph import Graph
from .base import Kind, Pass, State, register
from .groups import Groups
from .plan.plan import Plan
from .rewrite import eliminate
from .soft_edges import soft_edges


@register
@dataclass(frozen=True)
class Eliminate(Pass):
    """Slice every constant to the units that the plan keeps and refit the attributes that follow."""

    name: ClassVar[str] = "eliminate"
    kind: ClassVar[Kind] = "rewrite"
    requires: ClassVar[frozenset[str]] = frozenset({"groups", "plan"})
    ensures: ClassVar[frozenset[str]] = frozenset({"compact"})
    forbids: ClassVar[frozenset[str]] = frozenset({"compact", "order"})
    requires_choice: ClassVar[bool] = True

    def run(self, state: State) -> Graph:
        groups: Groups = state.facts["groups"]
        plan: Plan = state.facts["plan"]
        if "layout" not in state.facts and soft_edges(groups.analysis):
            state.notes.append("eliminate: without layout before it each layer picks its channels, which copies them")
        state.facts["alive"] = alive = groups.alive(plan.units(groups))
        state.facts["held"] = stays = groups.held(alive, plan.whole)
        return eliminate(groups.analysis, alive, stays)
