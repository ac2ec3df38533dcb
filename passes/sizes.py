"""Sizes: how many channels of what is made and read a layout wants, so that the runtime computes them well."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..ir.analysis import Analysis
from ..ir.axes import Axis
from .groups import Groups, Units, step_of, step_within
from .target import Target


@dataclass(frozen=True, eq=False)
class Size:
    """``units`` of which a multiple of ``step``, and ``rest``, are wanted alive, or all; each counts ``span``.

    At least ``least`` are.
    """

    units: Units
    span: NDArray[np.int64]
    step: int
    least: int = 0
    rest: int = 0

    def wanted(self, dead: NDArray[np.bool_], life: NDArray[np.float64]) -> Units:
        """The best of those dead that bring the count up to the next count that is wanted."""
        gone = dead[self.units]
        alive = int(self.span[~gone].sum())
        missing = max((self.rest - alive) % self.step, self.least - alive)
        at = np.flatnonzero(gone)
        best = at[np.argsort(-life[self.units[at]], kind="stable")]
        return self.units[best[: int(np.searchsorted(np.cumsum(self.span[best]), missing)) + 1] if missing > 0 else []]


def sizes_of_groups(groups: Groups, block: int) -> list[Size]:
    """The groups in whole blocks."""
    return [Size(g.units, np.ones(len(g), np.int64), step_of(g, block)) for g in (*groups.groups, *groups.derived)]


def sizes_everywhere(groups: Groups, block: int, target: Target) -> list[Size]:
    """The groups, and each axis that is computed: the runtime changes the layout of no more than it did.

    What does not fill blocks would be moved at run time; a convolution that the runtime leaves in plain order stays so,
    with all that shares its input channels.
    """
    graph, axes = groups.analysis.graph, groups.analysis.axes
    computed = [axis for n in graph.nodes for v in n.outputs for axis in axes[v] or ()]
    read = _channels_read(groups.analysis) if block > 1 else ()
    odd = [axis for axis in read if axis.size > block and axis.size % target.blocked_from]
    plain = [_size_of(u, target.blocked_from, block, a.size % target.blocked_from) for a, u in _own_units(odd, groups)]
    kept = {int(u) for size in plain for u in size.units}
    blocked = [_size_of(u, step_within(a.size, block), block) for a, u in _own_units(computed, groups)]
    return [*plain, *(s for s in (*sizes_of_groups(groups, block), *blocked) if kept.isdisjoint(s.units.tolist()))]


def _channels_read(analysis: Analysis) -> Iterator[Axis]:
    """The axis of the channels that each convolution reads."""
    for value in (n.inputs[0] for n in analysis.graph.nodes if n.op == "conv"):
        axes = analysis.axes[value] if value is not None else None
        if axes is not None:
            yield axes[1]


def _own_units(axes: Iterable[Axis], groups: Groups) -> Iterator[tuple[Axis, Units]]:
    """The axes whose positions need a unit each, with these; axes that need the same ones once."""
    seen = set()
    for axis in axes:
        _, unit = groups.analysis.solution.needs(axis)
        key = unit.tobytes()
        if unit.size == axis.size > 1 and key not in seen:
            seen.add(key)
            yield axis, unit


def _size_of(unit: Units, step: int, block: int, rest: int = 0) -> Size:
    """What is wanted of an axis whose positions need these units: a block at least."""
    units, span = np.unique(unit, return_counts=True)
    return Size(units, span, step, min(block, unit.size), rest)
