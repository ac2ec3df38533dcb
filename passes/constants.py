"""Leaving out what is idle, until nothing more is: constants go into biases, or into the weights of their stand-in.

What goes makes other channels idle: a layer that is not read any more reads nothing itself, and a sum of constants is
one.  Start at :func:`without_idle`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ..ir import arrays
from ..ir.analysis import Analysis, analyse
from ..ir.axes import Axes
from ..ir.graph import Graph, Node, Value
from ..ir.opset import Alive
from .affine import Vector
from .groups import Groups, Units, find_groups
from .idle import Idle, idle
from .levels import INPUT_FIRST, Known, channel_axis, levels, spread
from .rewrite import Kept, composed, eliminate, kept_indices, named, set_bias, set_data

Choice = Callable[[Groups, Units], Units]
"""Which of the units that could go do."""


@dataclass(frozen=True, eq=False)
class Without:
    """A graph without idle channels: how many units went, and which indices of each parameter are left.

    ``constant``: how many of the units that stay hold a constant.
    """

    graph: Graph
    removed: int = 0
    constant: int = 0
    kept: Kept = field(default_factory=dict)


def without_idle(
    graph: Graph, among: Callable[[Groups], Units], choice: Choice = lambda groups, units: units
) -> Without:
    """``graph`` without the channels that it can do without, to a fixpoint; it computes what it did.

    ``among``: the units that may go; ``choice``: which of those that could, do.
    """
    found = Without(graph)
    while True:
        analysis = analyse(found.graph)
        opaque = frozenset(o.node.name for o in analysis.opaque)
        groups = find_groups(analysis)
        known = levels(found.graph, opaque)
        idlers = idle(groups, known, among(groups))
        units = choice(groups, idlers.units)
        if not units.size:
            return replace(found, constant=_constant(groups, known))
        alive = groups.alive(units)
        smaller = eliminate(_taken_in(analysis, idlers, alive), alive)
        chosen = named(analysis.graph, kept_indices(analysis, alive))
        kept = {name: composed(found.kept.get(name, (None,) * len(axes)), axes) for name, axes in chosen.items()}
        found = Without(smaller, found.removed + int(units.size), kept=kept)


def _constant(groups: Groups, known: Mapping[Value, Known]) -> int:
    """How many units hold a constant wherever something is known of them."""
    analysis, solution = groups.analysis, groups.analysis.solution
    fixed, moves = (np.zeros(groups.group_of.size, bool) for _ in range(2))
    for node in analysis.graph.nodes:
        for value in node.outputs:
            fact = known.get(value)
            for d, axis in enumerate(analysis.axes[value] or ()):
                if fact is not None and fact.axis == d:
                    fixed[solution.needs(axis[np.isfinite(fact.level)])[1]] = True
                    moves[solution.needs(axis[np.isnan(fact.level)])[1]] = True
    return int(np.count_nonzero(fixed & ~moves & (groups.group_of >= 0)))


def fold_constants(graph: Graph) -> tuple[Graph, int]:
    """``graph`` without the channels that it can do without; how many went."""
    found = without_idle(graph, lambda groups: groups.prunable)
    return found.graph, found.removed


def _taken_in(analysis: Analysis, idlers: Idle, alive: Alive) -> Analysis:
    """The analysed graph, each layer having taken in the constants of the dead channels that it reads."""
    graph = analysis.graph.copy()
    before = set(graph.constants)
    table = {node.name: node for node in graph.nodes}
    for reader in idlers.readers:
        dead = ~alive[reader.axis] & reader.needed & (np.nan_to_num(reader.level) != 0)
        node, into_bias = table[reader.node.name], dead & reader.takes
        if (dead & ~into_bias).any():
            _merge(graph, node, reader.level, dead & ~into_bias, idlers.stand_ins[node.name])
        if into_bias.any():
            _shift(graph, node, np.where(into_bias, reader.level, 0.0))
    fresh: dict[Value, Axes] = {}
    for node in graph.nodes:
        for value in node.inputs[2:3]:
            if value is not None and value in graph.constants and value not in before:
                fresh[value] = [(analysis.axes[node.output] or [])[channel_axis(node)]]
    return analysis.over(graph, fresh)


def _shift(graph: Graph, node: Node, level: Vector) -> None:
    """Add to the bias of a layer what it makes of constants ``level`` of the channels that it reads."""
    weight = _rows(graph, node)
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    old = 0.0 if bias is None else arrays.to_numpy(graph.constants[bias].data).astype(np.float64)
    summed = weight.reshape(*weight.shape[:2], -1).sum(2)
    set_bias(graph, node, old + (summed * spread(level, weight.shape, node)).sum(1))


def _merge(graph: Graph, node: Node, level: Vector, gone: NDArray[np.bool_], place: int) -> None:
    """Add to the weights of the constant channel at ``place`` those of the ones that are ``gone``, in proportion."""
    weight = _rows(graph, node)
    share = level[gone] / level[place]
    weight[:, place] += np.tensordot(weight[:, gone], share, axes=(1, 0))
    held = node.inputs[1]
    assert held is not None
    set_data(graph, held, weight.swapaxes(0, 1) if node.op in INPUT_FIRST else weight)


def _rows(graph: Graph, node: Node) -> Vector:
    """The weight of a layer in float64, (o, i, *)."""
    held = node.inputs[1]
    assert held is not None
    weight = arrays.to_numpy(graph.constants[held].data).astype(np.float64)
    return weight.swapaxes(0, 1) if node.op in INPUT_FIRST else weight
