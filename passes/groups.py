"""Dependency groups: the units that share the same parameters and axes, which is what one layer's width is."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, Literal

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components

from ..ir.analysis import Analysis, analyse, touching
from ..ir.graph import Graph, Value
from ..ir.opset import Alive
from .base import Kind, Pass, State, register
from .cost import CostModel
from .soft_edges import soft_edges, softened

Units = NDArray[np.int64]
Mode = Literal["constrained", "unconstrained"]


@dataclass(frozen=True)
class Group:
    """Units that live on the same axes of the same parameters.

    ``places`` are (parameter name, axis); ``span`` is how many positions one unit takes on its narrowest axis; ``ops``
    are those that read the parameters.
    """

    name: str
    units: Units
    places: tuple[tuple[str, int], ...]
    span: int
    ops: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.units)


@dataclass(frozen=True, eq=False)
class Width:
    """An axis of ``size`` positions as pairs: ``position[k]`` needs ``unit[k]``, in the order of the positions."""

    position: Units
    unit: Units
    size: int


@dataclass(eq=False)
class Groups:
    """All groups of an analysed graph, and what planners ask about units."""

    analysis: Analysis
    groups: list[Group]
    group_of: Units
    mode: Mode = "constrained"
    cost: CostModel = field(init=False)

    def __post_init__(self) -> None:
        self.cost = CostModel(self.analysis)

    @property
    def prunable(self) -> Units:
        """All units that some parameter carries."""
        return np.flatnonzero(self.group_of >= 0)

    def alive(self, dropped: Units) -> Alive:
        """For each atom whether it is alive once ``dropped`` are removed."""
        return self.analysis.solution.alive(dropped)

    def all_alive(self) -> Alive:
        """For each atom that it is alive: nothing is dropped."""
        return self.analysis.solution.alive(())

    @cached_property
    def dense(self) -> dict[str, float]:
        """The ``macs`` and ``params`` of the graph while nothing is dropped."""
        return {name: self.cost.total(name, self.all_alive()) for name in ("macs", "params")}

    @cached_property
    def derived(self) -> list[Group]:
        """The groups of units that nobody chooses: what is made for several readers."""
        soft, carried = self.analysis.solution.soft, touching(self.analysis, self.analysis.solution)
        return [] if soft is None else _grouped(self.analysis, carried & soft.derived)

    def held(self, alive: Alive, whole: Collection[str]) -> Alive:
        """For each atom whether its position stays: those alive, and all that is read across the edges ``whole``.

        What one edge holds, a later one may read.
        """
        component = self.analysis.solution.component
        living = np.zeros(int(component.max()) + 1, bool)
        living[component] = alive
        for edge in soft_edges(self.analysis) if whole else ():
            if edge.name in whole:
                reader, source = edge.axes(self.analysis)
                living[component[reader]] = living[component[source]]
        living[0] = True
        stays: Alive = living[component]
        return stays

    def widths(self) -> list[Width]:
        """Each distinct axis without a kept position: a plan leaves at least one position of each alive."""
        solution = self.analysis.solution
        distinct = {id(axis): axis for axes in self.analysis.axes.values() for axis in axes or ()}
        seen: dict[bytes, Width] = {}
        for axis in distinct.values():
            components = solution.component[axis]
            if components.size and components.all():
                key = components.tobytes()
                if key not in seen:
                    seen[key] = Width(*solution.needs(axis), axis.size)
        return list(seen.values())


@register
@dataclass(frozen=True)
class FindGroups(Pass):
    """Find the units that live and die together, and the groups that they form.

    mode: constrained = all layers that read the same channels keep the same ones; unconstrained = each its own, and
    what makes the channels makes those that any of them reads.
    """

    mode: Mode = "constrained"

    name: ClassVar[str] = "groups"
    kind: ClassVar[Kind] = "analysis"
    requires: ClassVar[frozenset[str]] = frozenset({"canonical"})
    ensures: ClassVar[frozenset[str]] = frozenset({"groups"})
    forbids: ClassVar[frozenset[str]] = frozenset({"compact", "order", "scores", "plan"})

    def run(self, state: State) -> Groups:
        groups = groups_of(state.graph, self.mode)
        state.notes += [note for note in _uncounted(groups) if note not in state.notes]
        return groups


def _uncounted(groups: Groups) -> list[str]:
    """A line on ops whose cost is not known, if there are any."""
    found = groups.cost.uncounted()
    many, kinds = sum(u.ops for u in found), ", ".join(map(str, found))
    ops = f"{many} op{'s are' if many > 1 else ' is'}"
    return [f"MACs of {ops} not counted: {kinds}; the budget of MACs does not see them"] if found else []


def groups_of(graph: Graph, mode: Mode = "constrained") -> Groups:
    """The groups of a canonical graph; see :class:`FindGroups` for the modes."""
    return find_groups(softened(graph) if mode == "unconstrained" else analyse(graph), mode)


def find_groups(analysis: Analysis, mode: Mode = "constrained") -> Groups:
    """Group the units of an analysed graph.  Those that no constant carries, or nobody chooses, belong to none."""
    solution = analysis.solution
    carried = touching(analysis, solution)
    groups = _grouped(analysis, carried if solution.soft is None else carried & ~solution.soft.derived)
    group_of = np.full(solution.units, -1, np.int64)
    for k, group in enumerate(groups):
        group_of[group.units] = k
    return Groups(analysis, groups, group_of, mode)


def _grouped(analysis: Analysis, among: NDArray[np.bool_]) -> list[Group]:
    """The groups of the units ``among`` which are asked for."""
    places, matrix = _incidence(analysis)
    rows: dict[bytes, list[int]] = {}
    for unit in np.flatnonzero(among):
        start, stop = matrix.indptr[unit], matrix.indptr[unit + 1]
        rows.setdefault(matrix.indices[start:stop].tobytes(), []).append(int(unit))
    readers = reading_ops(analysis.graph)
    products = _products(analysis, places)
    groups: list[Group] = []
    for units in (kind for same in rows.values() for kind in _kinds(same, matrix, products)):
        first = units[0]
        span = matrix.data[matrix.indptr[first] : matrix.indptr[first + 1]]
        at = [places[k] for k in matrix.indices[matrix.indptr[first] : matrix.indptr[first + 1]]]
        named = tuple((analysis.graph.constants[v].name, d) for v, d in at)
        ops = tuple(dict.fromkeys(op for v, _ in at for op in readers.get(v, ())))
        groups.append(Group(_name(named), np.asarray(units, np.int64), named, int(span.min()), ops))
    return _distinct(groups)


@dataclass(frozen=True, eq=False)
class _Product:
    """An axis whose positions need several units: a boolean sparse matrix (positions, its own ``units``, ascending)."""

    units: Units
    needs: sp.csc_matrix

    @classmethod
    def of(cls, position: Units, unit: Units, size: int) -> _Product:
        units, column = np.unique(unit, return_inverse=True)
        return cls(units, sp.csc_matrix((np.ones(unit.size, np.int32), (position, column)), (size, units.size)))

    def together(self, units: list[int]) -> NDArray[np.bool_]:
        """Which of ``units``, pairwise, some position needs both of."""
        part = self.needs[:, np.searchsorted(self.units, units)]
        return np.asarray((part.T @ part).toarray() > 0)


def _products(analysis: Analysis, places: list[tuple[Value, int]]) -> dict[int, _Product]:
    """The places whose positions need more than one unit."""
    found = {}
    for k, (value, d) in enumerate(places):
        axis = (analysis.axes[value] or [])[d]
        position, unit = analysis.solution.needs(axis)
        if position.size and np.bincount(position).max() > 1:
            found[k] = _Product.of(position, unit, axis.size)
    return found


def _kinds(units: list[int], matrix: sp.csr_matrix, products: dict[int, _Product]) -> list[list[int]]:
    """Units of the same places taken apart where they are factors of one product: heads, and head dimensions."""
    at = [k for k in matrix.indices[matrix.indptr[units[0]] : matrix.indptr[units[0] + 1]] if k in products]
    if len(units) == 1 or not at:
        return [units]
    together = np.zeros((len(units), len(units)), bool)
    for k in at:
        together |= products[k].together(units)
    count, label = connected_components(~together | np.eye(len(units), dtype=bool), directed=False)
    return [[u for u, kind in zip(units, label, strict=True) if kind == n] for n in range(count)]


def _incidence(analysis: Analysis) -> tuple[list[tuple[Value, int]], sp.csr_matrix]:
    """Places and a sparse matrix (units, places): how many positions of each place a unit takes."""
    solution = analysis.solution
    places: list[tuple[Value, int]] = []
    units, columns, counts = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for value in analysis.graph.constants:
        for d, axis in enumerate(analysis.axes[value] or ()):
            if solution.may_shrink(axis):
                unit, count = np.unique(solution.needs(axis)[1], return_counts=True)
                units.append(unit)
                columns.append(np.full(unit.size, len(places)))
                counts.append(count)
                places.append((value, d))
    data, row, column = np.concatenate(counts), np.concatenate(units), np.concatenate(columns)
    matrix = sp.csr_matrix((data, (row, column)), (solution.units, len(places)), dtype=np.int64)
    matrix.sort_indices()
    return places, matrix


def step_of(group: Group, block: int) -> int:
    """How many units go at a time: the block in positions, less for a group too small for two blocks."""
    return step_within(len(group), max(1, block // math.gcd(block, group.span)))


def step_within(count: int, step: int) -> int:
    """``step``, halved until ``count`` has two of it."""
    while step > 1 and step * 2 > count:
        step //= 2
    return step


def reading_ops(graph: Graph) -> dict[Value, list[str]]:
    """For each value the ops that have it as an operand, in order."""
    found: dict[Value, list[str]] = {}
    for node in graph.nodes:
        for value in node.inputs:
            if value is not None:
                found.setdefault(value, []).append(node.op)
    return found


def _name(places: tuple[tuple[str, int], ...]) -> str:
    name, axis = min(places, key=lambda p: (p[1], not p[0].endswith("weight")))
    return f"{name}:{axis}"


def _distinct(groups: list[Group]) -> list[Group]:
    """Groups with names made unique: heads and head dimensions sit on the same axis of the same parameter."""
    seen: dict[str, int] = {}
    result = []
    for group in groups:
        n = seen[group.name] = seen.get(group.name, 0) + 1
        name = group.name if n == 1 else f"{group.name}#{n}"
        result.append(Group(name, group.units, group.places, group.span, group.ops))
    return result
