"""What remains of a network once units are dropped, under the numbers that units, groups and atoms have in the whole.

A plan that is made in steps looks at the network that each step leaves.  It is the compact one, so that whatever looks
at it (weights, gradients, feature maps, statistics of norms, costs) sees what will be there; and since an axis is a
vector of atoms, the analysis of it is that of the whole with the dead atoms left out.  Nothing is solved again, and
scores are floats for the same units.  Start at :func:`remaining`.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np

from ..ir.analysis import Analysis
from ..ir.axes import Axes, Axis, pinned
from ..ir.graph import Graph, Node, Value
from ..ir.opset import Alive, Analysed
from .groups import Groups, Units
from .rewrite import eliminate


def remaining(groups: Groups, dropped: Units) -> Groups:
    """The groups of the compact graph without ``dropped``; units keep their numbers, those dropped are in no group."""
    if not dropped.size:
        return groups
    stays = np.ones(groups.group_of.size, bool)
    stays[dropped] = False
    left = [replace(g, units=g.units[stays[g.units]]) for g in groups.groups]
    analysis = _compact(groups.analysis, groups.alive(dropped))
    return Groups(analysis, left, np.where(stays, groups.group_of, -1), groups.mode)


def _compact(analysis: Analysis, alive: Alive) -> Analysis:
    """The analysis of the compact graph; its atoms and their solution are those of the whole."""
    graph, shorter = eliminate(analysis, alive), _Shorter(alive)
    by_name = {value.name: axes for value, axes in analysis.axes.items()}
    compact = copy.copy(analysis)
    compact.graph = graph
    compact.axes = {v: shorter.axes(by_name[v.name]) for v in graph.values() if v.name in by_name}
    compact.axes |= {v: _pinned(v) for v in graph.constants if not _fits(v, compact.axes.get(v))}
    compact.sites = _sites(analysis, graph, shorter)
    return compact


def _fits(value: Value, axes: Axes | None) -> bool:
    """Whether ``axes`` are those of a constant; not so of sizes and indices that were written anew."""
    return axes is not None and tuple(len(axis) for axis in axes) == value.shape


def _pinned(value: Value) -> Axes:
    return [pinned(size) for size in value.shape or ()]


def _sites(analysis: Analysis, graph: Graph, shorter: _Shorter) -> dict[str, Analysed]:
    """The analysed nodes, without those that soft edges left."""
    nodes = {node.name: node for node in graph.nodes}
    there = ((site, nodes.get(name)) for name, site in analysis.sites.items())
    return {node.name: shorter.site(site, node) for site, node in there if node and node.op == site.node.op}


class _Shorter:
    """Axes without dead positions; one that several places share is shared again."""

    def __init__(self, alive: Alive) -> None:
        self.alive = alive
        self.known: dict[int, Axis] = {}

    def axis(self, axis: Axis) -> Axis:
        if id(axis) not in self.known:
            self.known[id(axis)] = axis[self.alive[axis]]
        return self.known[id(axis)]

    def axes(self, axes: Axes | None) -> Axes | None:
        return None if axes is None else [self.axis(axis) for axis in axes]

    def site(self, site: Analysed, node: Node) -> Analysed:
        """``site`` as it is in the compact graph, where it is ``node``."""
        letters = {letter: self.axis(axis) for letter, axis in site.binding.letters.items()}
        binding = replace(site.binding, letters=letters, aligned=[self.axis(a) for a in site.binding.aligned])
        operands = [self.axes(axes) for axes in site.operands]
        return Analysed(node, operands, [[self.axis(a) for a in axes] for axes in site.results], binding)
