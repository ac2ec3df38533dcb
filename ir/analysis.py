"""Propagation: every value's axes, from the declarations of the ops, in one walk over the graph.

What no declaration covers, or what a declaration declines, is pinned with all its tensor operands and listed, with the
reason.  Start at :func:`analyse`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType

import numpy as np

from . import ops as _ops  # noqa: F401  (fills the registry)
from .arrays import is_float
from .axes import Atoms, Axes, Axis, Reason, pinned
from .codes import beside, codes
from .errors import Declined
from .graph import Graph, Node, Value, reads
from .opset import OPS, Alive, Analysed, Fitting, Site
from .solve import Solution, solve
from .zeros import Zeros


@dataclass(frozen=True)
class Opaque:
    """A node whose operands are pinned because it is not understood."""

    node: Node
    why: str

    @property
    def kind(self) -> str:
        return self.node.kind or self.node.op


@dataclass(eq=False)
class Analysis:
    """The axes of every value of ``graph``, and the units that follow."""

    graph: Graph
    atoms: Atoms
    axes: dict[Value, Axes | None]
    sites: dict[str, Analysed]
    opaque: list[Opaque]
    solution: Solution = field(init=False)

    def __post_init__(self) -> None:
        self.solution = solve(self.atoms)

    def over(self, graph: Graph, axes: Mapping[Value, Axes] = MappingProxyType({})) -> Analysis:
        """This analysis for a ``graph`` that differs in its constants alone; ``axes`` are those of new ones."""
        changed = copy.copy(self)
        changed.graph, changed.axes = graph, {**self.axes, **axes}
        return changed

    def kept(self, value: Value, alive: Alive) -> tuple[np.ndarray | None, ...]:
        """For each axis of ``value`` the alive positions, None where all are."""
        found = []
        for axis in self.axes[value] or ():
            mask = alive[axis]
            found.append(None if mask.all() else np.flatnonzero(mask).astype(np.int64))
        return tuple(found)

    def fitting(self, node: Node, alive: Alive) -> Fitting | None:
        """The view that ``refit`` gets, None for a node without a declaration.  Nodes are known by their names."""
        site = self.sites.get(node.name)
        return None if site is None else Fitting(site, alive)

    def opaque_costs(self) -> dict[str, int]:
        """For each kind of op that is not understood, the units that pinning it costs; the dearest first."""
        costs = {kind: self._units_without(partial(_blames, kind)) for kind in sorted({o.kind for o in self.opaque})}
        return dict(sorted(costs.items(), key=lambda item: -item[1]))

    def pinned_units(self) -> int:
        """How many more units there would be if nothing were pinned."""
        return self._units_without(lambda reason: True)

    def _units_without(self, ignore: Callable[[Reason], bool]) -> int:
        """How many more units there would be without the pins that ``ignore`` names."""
        freed, found = (int(touching(self, s).sum()) for s in (solve(self.atoms, ignore), self.solution))
        return freed - found


def _blames(kind: str, reason: Reason) -> bool:
    """Whether a pin is there because ops of ``kind`` are not understood."""
    return reason.opaque and reason.cause == kind


def touching(analysis: Analysis, solution: Solution) -> np.ndarray:
    """Boolean mask over the units of ``solution``: those that some constant of the graph carries."""
    seen = np.zeros(solution.members.shape[0], bool)
    for value in analysis.graph.constants:
        for axis in analysis.axes[value] or ():
            seen[solution.component[axis]] = True
    return np.asarray(solution.members[np.flatnonzero(seen)].sum(0)).ravel() > 0


def analyse(graph: Graph) -> Analysis:
    """Propagate atoms through ``graph`` and solve them."""
    atoms = Atoms()
    used = {v for node in graph.nodes for v in reads(node)}
    numbers = {v for v, c in graph.constants.items() if is_float(c.data)} | codes(graph).keys() | beside(graph)
    free = used & numbers
    axes: dict[Value, Axes | None] = {v: _born(atoms, v, v in free) for v in graph.constants}
    for value in graph.inputs:
        axes[value] = None if value.shape is None else [pinned(d) for d in value.shape]
    sites: dict[str, Analysed] = {}
    opaque: list[Opaque] = []
    zeros = Zeros(graph, axes)
    for node in graph.nodes:
        try:
            sites[node.name] = found = _analyse_node(atoms, axes, node, zeros)
            results: list[Axes | None] = list(found.results)
        except Declined as declined:
            opaque.append(Opaque(node, str(declined)))
            results = _pin(atoms, axes, node, str(declined))
        axes.update(zip(node.outputs, results, strict=True))
    for value in graph.outputs:
        for axis in axes.get(value) or ():
            atoms.pin(axis, Reason("output", value.name))
    return Analysis(graph, atoms, axes, sites, opaque)


def _born(atoms: Atoms, value: Value, free: bool) -> Axes:
    """Axes of a constant: fresh where its elements are numbers to compute with; other integers index, and stay."""
    return [atoms.fresh(d) if free else pinned(d) for d in value.shape or ()]


def _analyse_node(atoms: Atoms, axes: dict[Value, Axes | None], node: Node, zeros: Zeros) -> Analysed:
    if not any(v.is_tensor for v in node.outputs):
        if node.op in OPS and all(v.dtype == "object" for v in node.outputs):
            raise Declined("its results are no tensors of numbers")
        return _size(atoms, axes, node)
    op = OPS.get(node.op)
    if op is None:
        raise Declined(str(node.attrs.get("why", "no declaration for this op")))
    operands: list[Axes | None] = []
    for value in node.inputs:
        operands.append(None if value is None else axes[value])
        if value is not None and operands[-1] is None:
            raise Declined(f"the shape of operand {value} is not known")
    for value in set(reads(node)) - set(node.inputs):
        for axis in axes.get(value) or ():
            atoms.pin(axis, Reason(node.kind, node.name, "an operand that the declaration does not name"))
    found = op.analyse(Site(node, atoms, operands))
    _check(node, found)
    for letter, carriers in op.contracts(node).items():
        factors = [v for k, v in enumerate(node.inputs) if k in carriers and v is not None]
        _keep_sums(atoms, node, found.binding.letters.get(letter), factors, zeros)
    for letter in op.keeps(node):
        atoms.pin(found.binding.letters.get(letter, pinned(0)), Reason(node.kind, node.name, "order matters here"))
    return found


def _keep_sums(atoms: Atoms, node: Node, axis: Axis | None, factors: Sequence[Value], zeros: Zeros) -> None:
    """Pin an axis that products of ``factors`` are summed over, unless one of them is zero where positions are dead."""
    if axis is not None and axis.any() and not any(map(zeros.follow().read_by(node), factors)):
        atoms.pin(axis, Reason(node.kind, node.name, "removed positions would not have added zero"))


def _size(atoms: Atoms, axes: dict[Value, Axes | None], node: Node) -> Analysed:
    """A node that computes sizes, or text: whatever tensor it reads keeps its positions."""
    for value in set(reads(node)):
        for d, axis in enumerate(axes.get(value) or ()):
            if d in node.attrs.get("dims", range(len(axes[value] or ()))):
                atoms.pin(axis, Reason(node.kind, node.name, "its size is read"))
    return Analysed(node, [], [[pinned(d) for d in v.shape or ()] for v in node.outputs])


def _check(node: Node, found: Analysed) -> None:
    shapes = [v.shape for v in node.outputs]
    sizes = [tuple(len(axis) for axis in axes) for axes in found.results]
    if sizes != shapes:
        raise Declined(f"the declaration of {node.op!r} gives {sizes} where the model has {shapes}")


def _pin(atoms: Atoms, axes: dict[Value, Axes | None], node: Node, why: str) -> list[Axes | None]:
    reason = Reason(node.kind or node.op, node.name, why, opaque=True)
    for value in dict.fromkeys(reads(node)):
        for axis in axes.get(value) or ():
            atoms.pin(axis, reason)
    return [None if v.shape is None else [pinned(d) for d in v.shape] for v in node.outputs]
