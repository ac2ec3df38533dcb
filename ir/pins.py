"""Pins: which units cannot be removed, and why not.

The atoms are solved once more without any pin.  Each of the units that result is then held by the causes that pin one
of its atoms: the network's outputs, an op that is not understood, an axis that a declaration keeps.  What other atoms
a pin implies (the factors of a product) follows from the units themselves.  Start at :func:`pins`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .analysis import Analysis, touching
from .axes import Axis, Reason
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
    units, alone
        How many units it holds, and how many of these nothing else holds.
    parameters
        The parameters, each with an axis, that carry the units.
    """

    cause: str
    why: str
    opaque: bool
    nodes: tuple[str, ...]
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
    places = list(_places(analysis, free))
    found = [_pin(cause, mask, mask & (shared == 1), places) for cause, mask in zip(causes, held) if mask.any()]
    return sorted(found, key=lambda pin: -pin.units)


def _causes(analysis: Analysis) -> list[_Cause]:
    """The reasons of all pins, those that differ only in the node taken together."""
    found: dict[tuple[str, str, bool], _Cause] = {}
    for atoms, reason in analysis.atoms.pins:
        cause = found.setdefault((reason.cause, reason.detail, reason.opaque), _Cause(reason))
        cause.nodes[reason.node] = None
        cause.atoms.append(atoms)
    return list(found.values())


def _places(analysis: Analysis, free: Solution) -> Iterator[tuple[Place, NDArray[np.int32]]]:
    """For each axis of each parameter the units that it carries."""
    for value, constant in analysis.graph.constants.items():
        for d, axis in enumerate(analysis.axes[value] or ()):
            yield (constant.name, d), free.unit_rows(axis).indices


def _pin(cause: _Cause, held: Mask, alone: Mask, places: list[tuple[Place, NDArray[np.int32]]]) -> Pin:
    reason = cause.reason
    return Pin(
        cause=reason.cause,
        why=reason.detail or ("its shape is kept" if reason.cause == _OUTPUT else "its declaration keeps the axis"),
        opaque=reason.opaque,
        nodes=tuple(cause.nodes),
        units=int(held.sum()),
        alone=int(alone.sum()),
        parameters=tuple(place for place, units in places if held[units].any()),
    )
