"""Split: layers that pick channels read parts of them instead, and nothing is copied.

Where layers chose channels of their own (``groups{mode=unconstrained}``), each picks its channels out of those that are
made for all: a copy at run time, whatever their order.  So the channels are made in parts, one tensor each: what makes
or carries them is cloned for each part, and a layer that sums over them becomes a sum over the parts that it reads.  A
part may hold more than a layer needs, with zero weights for it: fewer parts are fewer summands.  Which parts are
cheapest is asked of the target's cost model (``partition.py``); a concatenation of channels in parts is gone as well.

Values that share channels are split together, as one *family*.  A family stays as it is where some node needs its
channels side by side (``splittable.py``, ``movable.py``), or where picking is cheaper.  Left out on purpose: parts
concatenated for a node that needs them together.  Start at :class:`Split`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import ClassVar

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components

from ..ir.analysis import Analysis, analyse
from ..ir.axes import Axis
from ..ir.graph import Graph, Value
from ..ir.opset import OPS, Analysed, Cost
from ..ir.words import by_reason, counted
from .base import Kind, Pass, State, register
from .cost import computed, elements, is_summing_conv
from .movable import Components, Obstacle, obstacles, picked
from .order.classes import Classes
from .partition import Choice, Work, cheapest, unsplit_ns
from .splittable import KEPT, Refused, Roles, is_calm, roles
from .splitting import Splitting
from .target import Target, suited

Bools = NDArray[np.bool_]


@register
@dataclass(frozen=True)
class Split(Pass):
    """Split channels into parts where layers pick theirs (``layout{copies=naive}``): sums of layers, no copies.

    force: split wherever that is exact; else only where the target's cost model says that it is faster.
    """

    force: bool = False

    name: ClassVar[str] = "split"
    kind: ClassVar[Kind] = "rewrite"
    requires: ClassVar[frozenset[str]] = frozenset({"compact"})
    ensures: ClassVar[frozenset[str]] = frozenset({"split"})
    forbids: ClassVar[frozenset[str]] = frozenset({"split", "order"})
    requires_choice: ClassVar[bool] = True

    def run(self, state: State) -> Graph:
        search = _Search(analyse(state.graph), suited(state.target, state.graph), self.force)
        graph, splitting = search.splitting().made(state.graph)
        state.rewritings.append(splitting)
        state.notes.append(search.note())
        return graph


def saved_ns(graph: Graph, target: Target) -> dict[tuple[str, ...], float]:
    """Nanoseconds that splitting saves where it is faster than picking: by the picks that go together."""
    return _Search(analyse(graph), target, force=False).saved


# ---------------------------------------------------------------------- the search


@dataclass(frozen=True, eq=False)
class _Family:
    """Channels that stand on axes together, ascending; the nodes that pick some of them, and those that have any."""

    channels: Components
    picks: list[Analysed]
    sites: list[Analysed]


class _Search:
    """The search for families to split, and for their parts."""

    def __init__(self, analysis: Analysis, target: Target, force: bool) -> None:
        self.analysis, self.target, self.force = analysis, target, force
        self.component = analysis.solution.component
        self.inside = np.zeros(analysis.solution.members.shape[0], bool)
        self.parts: list[Components] = []
        self.roles: dict[str, Roles] = {}
        self.left: dict[str, str] = {}
        self.saved: dict[tuple[str, ...], float] = {}
        self.picks = list(_picks(analysis))
        self._settle()

    def splitting(self) -> Splitting:
        """What is split."""
        sites = {name: (self.analysis.sites[name], found) for name, found in self.roles.items()}
        values = {v for site, _ in sites.values() for v in (*site.node.inputs, *site.node.outputs) if v is not None}
        axes = {v.name: tuple(self._split(axis) for axis in self.analysis.axes[v] or ()) for v in values}
        return Splitting(tuple(self.parts), axes, sites)

    def note(self) -> str:
        """What came of it, in a line for the report."""
        if not self.picks:
            return "split: no layer picks channels, so nothing changed"
        text = f"split: {len(self.picks) - len(self.left)} of {counted(len(self.picks), 'pick')} without a copy now"
        if self.parts:
            text += f", channels in {counted(len(self.parts), 'part')}"
        if not self.left:
            return text
        return f"{text}; {counted(len(self.left), 'pick')} left as they were ({by_reason(self.left)})"

    def _split(self, axis: Axis) -> Components | None:
        found = self.component[axis]
        return found if found.size and self.inside[found].all() else None

    def _settle(self) -> None:
        held = list(obstacles(self.analysis))
        for family in self._families():
            try:
                self._split_family(family, held)
            except Refused as refused:
                self.left |= {site.node.name: refused.why for site in family.picks}

    def _split_family(self, family: _Family, held: Sequence[Obstacle]) -> None:
        """Choose the parts of ``family``; raises :class:`Refused` where it stays as it is."""
        if not family.channels.size:
            raise Refused(KEPT)
        if (why := next((o.why for o in held if np.isin(o.components, family.channels).any()), None)) is not None:
            raise Refused(why)
        inside = self.inside.copy()
        inside[family.channels] = True
        asked = ((site.node.name, roles(self.analysis, site, inside)) for site in family.sites)
        found = {name: role for name, role in asked if role is not None}
        model = _Costs(self.analysis, family, found, self.target)
        choice = model.choice()
        saved = model.now_ns() - choice.time_ns
        if not self.force and saved <= 0:
            raise Refused("picking is faster")
        self.saved[tuple(site.node.name for site in family.picks)] = saved
        self.inside = inside
        self.roles |= found
        self.parts += [np.sort(np.concatenate([model.classes[k] for k in part])) for part in choice.parts]

    def _families(self) -> list[_Family]:
        """The channels that stand on some axis together, where some of them are picked."""
        axes = [axis for held in self.analysis.axes.values() for axis in held or () if axis.any()]
        label = _together([self.component[axis] for axis in axes], self.inside.size)
        picks: dict[int, list[Analysed]] = {}
        for site in self.picks:
            channels = self._channels(site)
            picks.setdefault(int(label[channels[0]]) if channels.size else -1, []).append(site)
        sites: dict[int, list[Analysed]] = {}
        for site in self.analysis.sites.values():
            for family in np.unique(label[self._channels(site)]).tolist():
                sites.setdefault(family, []).append(site)
        return [
            _Family(np.flatnonzero(label == k) if k >= 0 else np.zeros(0, np.int64), found, sites.get(k, []))
            for k, found in picks.items()
        ]

    def _channels(self, site: Analysed) -> Components:
        """The components that may go, on any axis of a node."""
        axes = [axis for held in (*site.operands, *site.results) for axis in held or ()]
        found = np.unique(self.component[np.concatenate([np.zeros(0, np.int64), *axes])])
        return found[found > 0]


def _picks(analysis: Analysis) -> Iterator[Analysed]:
    """Every node that picks some of the channels that may go, or takes others."""
    component = analysis.solution.component
    for node in analysis.graph.nodes:
        pick = picked(node) if node.name in analysis.sites else None
        if pick is not None:
            site = analysis.sites[node.name]
            if node.op == "take" or component[(site.operands[0] or [])[pick[0]]].any():
                yield site


def _together(axes: Iterable[Components], count: int) -> NDArray[np.int64]:
    """A label for each component: the same for those that share an axis.  What must stay has one of its own."""
    runs = [axis[axis > 0] for axis in axes]
    pairs = [np.stack([run[:-1], run[1:]]) for run in runs if run.size > 1]
    rows, columns = np.concatenate([np.zeros((2, 0), np.int64), *pairs], 1)
    _, label = connected_components(sp.coo_matrix((np.ones(rows.size, bool), (rows, columns)), (count, count)))
    return np.asarray(label, np.int64)


# ---------------------------------------------------------------------- what it costs


class _Costs:
    """A family as the cost model sees it."""

    def __init__(self, analysis: Analysis, family: _Family, found: dict[str, Roles], target: Target) -> None:
        self.analysis, self.family, self.target = analysis, family, target
        self.component, self.roles = analysis.solution.component, found
        self.inside = np.zeros(analysis.solution.members.shape[0], bool)
        self.inside[family.channels] = True

    @cached_property
    def classes(self) -> list[Components]:
        """The channels that stand on the same axes, class by class."""
        rows = np.unique(np.array([self._row(axis) for axis in self._axes()]), axis=0)
        return [self.family.channels[held] for held in Classes.of(rows).channels]

    @cached_property
    def works(self) -> list[Work]:
        return [self._work(site, self.roles[site.node.name]) for site in self._computing()]

    def choice(self) -> Choice:
        """The cheapest parts."""
        return cheapest(self.works, [held.size for held in self.classes], self._cells(), self.target)

    def now_ns(self) -> float:
        """Nanoseconds of the family as it is: products, and what is copied."""
        sizes = [held.size for held in self.classes]
        return unsplit_ns(self.works, sizes, self.target) + sum(self._copies())

    def _copies(self) -> Iterator[float]:
        """Nanoseconds of each pick, of each concatenation, and of bringing what is picked from into plain order."""
        sources: dict[Value, None] = {}
        for site in self.family.sites:
            if self.roles[site.node.name].moved:
                moved = math.prod(site.node.output.shape or ())
                if site.node.op == "cat":
                    yield self.target.copy_ns(moved)
                elif site.node.op == "slice" and not self.target.slices_copy:
                    yield self.target.slice_ns(moved)
                else:
                    yield self.target.pick_ns(moved)
                    sources |= {v: None for v in site.node.inputs[:1] if v is not None}
        for value in sources:
            yield self.target.plain_ns(math.prod(value.shape or ()))

    def _computing(self) -> list[Analysed]:
        return [s for s in self.family.sites if not self.roles[s.node.name].moved]

    def _axes(self) -> Iterator[Axis]:
        for site in self.family.sites:
            yield from (a for axes in (*site.operands, *site.results) for a in axes or () if self._mine(a))

    def _mine(self, axis: Axis) -> bool:
        return bool(self.inside[self.component[axis]].any())

    def _row(self, axis: Axis) -> Bools:
        return np.isin(self.family.channels, self.component[axis])

    def _cells(self) -> list[int]:
        """Which classes may share a part: none of different operands of a concatenation, none if zeros are no use."""
        if not all(is_calm(self.analysis.graph, site.node) for site in self._computing()):
            return list(range(len(self.classes)))
        rows = [self._row(axis) for axis in self._joined()]
        first = [int(np.searchsorted(self.family.channels, held[0])) for held in self.classes]
        columns = np.array([*rows, np.zeros(self.family.channels.size, bool)])[:, first]
        return [int(k) for k in np.unique(columns, axis=1, return_inverse=True)[1].ravel()]

    def _joined(self) -> Iterator[Axis]:
        for site in self.family.sites:
            role = self.roles[site.node.name]
            if role.moved and site.node.op == "cat":
                yield from ((site.operands[k] or [])[d] for k, d in role.passed.items())

    def _work(self, site: Analysed, role: Roles) -> Work:
        op, one = OPS[site.node.op], partial(self._count, computed(site, self.analysis.solution, self.target))
        made = None if role.made is None else site.results[0][role.made]
        read = next(((site.operands[k] or [])[d] for k, d in role.summed.items()), None)
        macs = 0.0 if op.macs is None else op.macs(Cost(site, one))
        added = 2 * self.target.written_ns(elements(site.results[0], one))
        return Work(self._of(made), self._of(read), macs * self.target.ns_per_mac, added, is_summing_conv(site))

    def _of(self, axis: Axis | None) -> Bools | None:
        """Which classes an axis has; None for an axis of other channels."""
        if axis is None or not self._mine(axis):
            return None
        held = set(self.component[axis].tolist())
        return np.array([int(each[0]) in held for each in self.classes])

    def _count(self, channels: Callable[[Axis, int], int], axis: Axis) -> int:
        """One for an axis of the family; of others ``channels`` as they are computed."""
        return 1 if self._mine(axis) else channels(axis, len(axis))
