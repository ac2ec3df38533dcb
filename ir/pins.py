"""Pins: which units cannot be removed, and why not.

The atoms are solved once more without any pin.  Each of the units that result is then held by the causes that pin one
of its atoms: the network's outputs, an op that is not understood, an axis that a declaration keeps.  What other atoms
a pin implies (the factors of a product) follows from the units themselves.  Start at :func:`pins`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .analysis import Analysis, touching
from .axes import Axis, Reason
from .graph import Value, reads
from .solve import Solution, solve

Mask = NDArray[np.bool_]
Place = tuple[str, int]
_OUTPUT = "output"


@dataclass(frozen=True)
class Pin:
    """Units that one cause holds.

    Attributes
    ----------
    cause, why, opaque
        As :class:`~prunec.ir.axes.Reason` has them: an op kind or ``output``, the detail, whether it is not understood.
    nodes
        Where: names of nodes, or of outputs.
    axes
        The axes at the first of the nodes that carry the units: names of values, each with an axis.
    units, alone
        How many units it holds, and how many of these nothing else holds.
    parameters
        The parameters, each with an axis, that carry the units.
    """

    cause: str
    why: str
    opaque: bool
    nodes: tuple[str, ...]
    axes: tuple[Place, ...]
    units: int
    alone: int
    parameters: tuple[Place, ...]


@dataclass
class _Cause:
    """The atoms that are pinned for one reason, at whatever nodes."""

    reason: Reason
    nodes: dict[str, None] = field(default_factory=dict)
    atoms: list[Axis] = field(default_factory=list)

    def held(self, free: Solution, carried: Mask) -> Mask:
        """Mask over the units of ``free``: those that some parameter carries and that this pins."""
        components = np.unique(free.component[np.concatenate(self.atoms)])
        return np.asarray(free.members[components].sum(0)).ravel().astype(bool) & carried


def pins(analysis: Analysis) -> list[Pin]:
    """Every cause that holds units of the analysed graph, the one that holds most first."""
    free = solve(analysis.atoms, lambda reason: True)
    carried = touching(analysis, free)
    causes = _causes(analysis)
    held = [cause.held(free, carried) for cause in causes]
    shared = np.sum(held, axis=0) if held else np.zeros(0)
    places, at = list(_places(analysis, free, analysis.graph.constants)), _Nodes(analysis, free)
    found = [_pin(cause, mask, mask & (shared == 1), places, at) for cause, mask in zip(causes, held) if mask.any()]
    return sorted(found, key=lambda pin: -pin.units)


def _causes(analysis: Analysis) -> list[_Cause]:
    """The reasons of all pins, those that differ only in the node taken together."""
    found: dict[tuple[str, str, bool], _Cause] = {}
    for atoms, reason in analysis.atoms.pins:
        cause = found.setdefault((reason.cause, reason.detail, reason.opaque), _Cause(reason))
        cause.nodes[reason.node] = None
        cause.atoms.append(atoms)
    return list(found.values())


Carried = tuple[Place, NDArray[np.int64]]


def _places(analysis: Analysis, free: Solution, values: Iterable[Value]) -> Iterator[Carried]:
    """For each axis of each of the values the units that it carries."""
    constants = analysis.graph.constants
    for value in values:
        name = constants[value].name if value in constants else value.name
        for d, axis in enumerate(analysis.axes.get(value) or ()):
            yield (name, d), free.needs(axis)[1]


class _Nodes:
    """What the nodes and outputs that reasons name read and compute."""

    def __init__(self, analysis: Analysis, free: Solution) -> None:
        self.analysis, self.free = analysis, free
        self.nodes = {n.name: tuple(dict.fromkeys((*reads(n), *n.outputs))) for n in analysis.graph.nodes}
        self.outputs = {v.name: (v,) for v in analysis.graph.outputs}

    def carrying(self, cause: _Cause, held: Mask) -> tuple[Place, ...]:
        """The axes at the first place of ``cause`` that carry some of the units ``held``."""
        known: Mapping[str, tuple[Value, ...]] = self.outputs if cause.reason.cause == _OUTPUT else self.nodes
        values = known.get(next(iter(cause.nodes)), ())
        return tuple(place for place, units in _places(self.analysis, self.free, values) if held[units].any())


def _pin(cause: _Cause, held: Mask, alone: Mask, places: list[Carried], at: _Nodes) -> Pin:
    reason = cause.reason
    return Pin(
        cause=reason.cause,
        why=reason.detail or ("its shape is kept" if reason.cause == _OUTPUT else "its declaration keeps the axis"),
        opaque=reason.opaque,
        nodes=tuple(cause.nodes),
        axes=at.carrying(cause, held),
        units=int(held.sum()),
        alone=int(alone.sum()),
        parameters=tuple(place for place, units in places if held[units].any()),
    )
