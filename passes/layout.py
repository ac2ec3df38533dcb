"""Layout: how each layer gets the channels that it needs out of those that are made for several layers.

A layer that needs fewer channels than there are picks them, which is a copy at run time, or reads them all with zero
weights for the others; whole parts of a concatenation are read without the others.  Which is faster depends on the
layer and on the target; what reads everything may as well have its weights back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from ..ir.analysis import Analysis
from ..ir.errors import UsageError
from ..ir.opset import Alive
from ..ir.words import counted
from .base import Kind, Pass, State, register
from .fastest import fastest
from .groups import Groups, Units
from .plan.plan import Plan
from .reorder import slices
from .rewrite import eliminate
from .sizes import Size, sizes_everywhere, sizes_of_groups
from .soft_edges import SoftEdge, soft_edges
from .split import saved_ns
from .target import Target, suited


@register
@dataclass(frozen=True)
class Layout(Pass):
    """Choose how layers read channels that others need as well (``groups{mode=unconstrained}``).

    copies: forbid = every layer reads all channels that are made, so that nothing is copied (nor the layout
    changed where it was not: counts that fill no blocks stay such); naive = each layer picks what it needs;
    cheapest = what the target's cost model says is fastest, all layers that share channels together.
    align: round the counts that are made to this many channels; auto = the target's block; 1 = not at all.
    restore: which weights come back where a layer reads channels that it had dropped: all, those of channels that are
    there for the alignment alone, or none.
    then: weigh picks as they are after this pass, which must follow ``eliminate`` (with copies=cheapest).
    """

    copies: Literal["forbid", "cheapest", "naive"] = "cheapest"
    align: int | Literal["auto"] = "auto"
    restore: Literal["all", "alignment", "none"] = "alignment"
    then: Literal["nothing", "reorder", "split"] = "nothing"

    name: ClassVar[str] = "layout"
    kind: ClassVar[Kind] = "planner"
    requires: ClassVar[frozenset[str]] = frozenset({"groups", "scores", "plan"})
    ensures: ClassVar[frozenset[str]] = frozenset({"plan", "layout"})
    forbids: ClassVar[frozenset[str]] = frozenset({"compact"})

    def __post_init__(self) -> None:
        if self.align != "auto" and self.align < 1:
            raise UsageError(f"layout{{align}} cannot be {self.align}", hint="1 or more, or auto")
        if self.then != "nothing" and self.copies != "cheapest":
            raise UsageError(f"layout{{then}} weighs nothing with copies={self.copies}", hint="copies=cheapest does")

    def expects(self) -> str:
        """The pass that is weighed must follow."""
        return "" if self.then == "nothing" else self.then

    def run(self, state: State) -> Plan:
        groups: Groups = state.facts["groups"]
        plan: Plan = state.facts["plan"]
        edges = soft_edges(groups.analysis)
        if not edges:
            state.notes.append("layout: no layer chooses channels of its own: add groups{mode=unconstrained} before it")
            return plan
        dropped = _Dropped(groups, plan.units(groups))
        apart = _apart(edges, groups.analysis)
        whole = self._whole(apart, dropped.alive, groups, state)
        if self.copies == "forbid":
            dropped.restore_all([e for e in edges if e not in apart])
        block = state.target.channel_block if self.align == "auto" else self.align
        scores = np.asarray(state.facts["scores"], np.float64)
        forbids = self.copies == "forbid"
        sizes = sizes_everywhere(groups, block, state.target) if forbids else sizes_of_groups(groups, block)
        aligned = dropped.align(sizes, scores, whole)
        if self.restore != "none":
            dropped.restore(whole, None if self.restore == "all" else aligned)
        stays = groups.held(dropped.alive, {e.name for e in whole})
        picking = [e for e in edges if e.is_partial(groups.analysis, stays)]
        state.notes.append(f"layout: {counted(len(picking), 'layer')} of {len(edges)} that share channels pick theirs")
        return Plan.of(groups, dropped.units, plan.budget, tuple(sorted(e.name for e in whole)))

    def _whole(self, edges: list[SoftEdge], alive: Alive, groups: Groups, state: State) -> list[SoftEdge]:
        """The edges across which everything is read."""
        if self.copies == "cheapest":
            state.notes.append(_basis(state.target))
            target = suited(state.target, groups.analysis.graph)
            return fastest(edges, alive, groups, target, self._saved(alive, groups, target))
        return edges if self.copies == "forbid" else []

    def _saved(self, alive: Alive, groups: Groups, target: Target) -> dict[tuple[str, ...], float]:
        """Nanoseconds that the pass to come saves where everything is picked: by the edges that go together."""
        if self.then == "nothing":
            return {}
        compact = eliminate(groups.analysis, alive)
        if self.then == "split":
            return saved_ns(compact, target)
        return {(name,): target.pick_ns(n) - target.slice_ns(n) for name, n in slices(compact).items()}


def _basis(target: Target) -> str:
    if target.measured_on:
        return f"layout: the cost model goes by what was measured on {target.measured_on}"
    return f"layout: the cost model goes by rough constants; `prunec profile --target {target.name}` measures them here"


def _apart(edges: list[SoftEdge], analysis: Analysis) -> list[SoftEdge]:
    """The edges whose reader reads across no other one: one weight cannot have positions here that it lacks there."""
    component = analysis.solution.component
    readers = [np.unique(component[e.axes(analysis)[0]]) for e in edges]
    count = np.bincount(np.concatenate(readers), minlength=int(component.max()) + 1)
    return [e for e, found in zip(edges, readers, strict=True) if (count[found[found > 0]] == 1).all()]


class _Dropped:
    """The units that are dropped, while some come back."""

    def __init__(self, groups: Groups, units: Units) -> None:
        self.groups, self.units = groups, units
        self.alive: Alive = groups.alive(units)

    def take_back(self, units: Units) -> None:
        """``units`` are alive again, as far as they were dropped."""
        self.units = np.setdiff1d(self.units, units)
        self.alive = self.groups.alive(self.units)

    def align(self, sizes: list[Size], scores: NDArray[np.float64], whole: list[SoftEdge]) -> Units:
        """Bring the width of what is made or picked up to the next step; returns the units that live for that alone.

        How much a reader needs does not matter where it reads the ``whole``.  A reader that gets more may want more
        made, until nothing changes.
        """
        analysis = self.groups.analysis
        assert analysis.solution.soft is not None
        life, by = analysis.solution.soft.best_readers(scores)
        free = {int(u) for e in whole for u in analysis.solution.needs(e.axes(analysis)[0])[1]}
        bound = [size for size in sizes if free.isdisjoint(size.units.tolist())]
        found, left = [np.zeros(0, np.int64)], -1
        dead = self._dead()
        while left != self.units.size:
            left = self.units.size
            for size in bound:
                best = size.wanted(dead, life)
                if best.size:
                    found.append(best)
                    self.units = np.setdiff1d(self.units, analysis.solution.soft.keepers(best, by))
                    dead = self._dead()
        self.alive = self.groups.alive(self.units)
        return np.concatenate(found)

    def _dead(self) -> NDArray[np.bool_]:
        return self.groups.analysis.solution.dead(self.units) > 0

    def restore_all(self, edges: list[SoftEdge]) -> None:
        """Give layers all that is made for them, until nothing changes: what one of them gets others may share."""
        size = -1
        while size != self.units.size:
            size = self.units.size
            self.restore(edges, None)

    def restore(self, whole: list[SoftEdge], among: Units | None) -> None:
        """Give the layers that read everything their weights back, at positions that need a unit ``among`` these."""
        analysis = self.groups.analysis
        back: list[Units] = [np.zeros(0, np.int64)]
        stays = self.groups.held(self.alive, {e.name for e in whole})
        for edge in whole:
            reader, source = edge.axes(analysis)
            wanted = stays[source] & ~self.alive[reader]
            if among is not None:
                position, unit = analysis.solution.needs(source)
                wanted &= np.isin(np.arange(len(source)), position[np.isin(unit, among)])
            back.append(analysis.solution.needs(reader[wanted])[1])
        self.take_back(np.concatenate(back))
