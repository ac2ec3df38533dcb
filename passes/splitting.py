"""Channels in parts: each value that has them becomes several, each node that makes or carries them is cloned.

A clone is the node without all channels but those of one part; its constants are cut and its attributes follow as they
do where channels are eliminated.  What sums over the channels becomes a sum of clones.  Every value of a part has all
its channels, in one order, so that nothing is picked: where the source had fewer, a layer has zeros, and any other node
computes what nobody counts.  Start at :meth:`Splitting.made`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..ir import arrays, dialects
from ..ir.axes import Axis
from ..ir.graph import Constant, Graph, Node, Value, reads, substitute, values_in
from ..ir.opset import OPS, Analysed, Fitting
from .movable import Components
from .rewrite import NOTHING, Indices, Kept, composed, make, without_idle_literals, without_unread, write
from .splittable import Roles

Cut = Indices
"""For each axis of a constant the positions that a clone has, NOTHING for zeros; None for all."""


@dataclass(frozen=True, eq=False)
class Splitting:
    """Which channels are split into which parts.  Values and nodes are known by their names.

    Attributes
    ----------
    parts
        The components of each part, in their order.
    axes
        For each value with split channels the components of each axis; None for an axis without.
    sites
        Each node with split channels, as it was analysed, and what it does with them.
    clones
        For each parameter that was cloned its clones by name, and how they are cut; :meth:`made` gives them.
    """

    parts: tuple[Components, ...]
    axes: Mapping[str, tuple[Components | None, ...]]
    sites: Mapping[str, tuple[Analysed, Roles]]
    clones: Mapping[str, Mapping[str, Cut]] = field(default_factory=dict)

    removed: ClassVar[int] = 0

    def applied(self, graph: Graph) -> Graph:
        """A copy of ``graph`` with its channels in parts."""
        return self.made(graph)[0]

    def made(self, graph: Graph) -> tuple[Graph, Splitting]:
        """A copy of ``graph`` with its channels in parts, and this with the clones that it has."""
        rebuilt = _Rebuilt(graph.copy(), self)
        return rebuilt.graph, replace(self, clones=rebuilt.parameters)

    def of(self, kept: Kept) -> Kept:
        """The ``kept`` indices of parameters as they are in parts; NOTHING where there are zeros."""
        found: Kept = {}
        for name, axes in kept.items():
            found |= {clone: composed(axes, cut) for clone, cut in self.clones.get(name, {name: ()}).items()}
        return found

    def parts_on(self, value: Value, d: int) -> list[int]:
        """The parts of which ``value`` has channels along axis ``d``."""
        held = self.axes[value.name][d]
        return [] if held is None else sorted({self._part[c] for c in held.tolist()})

    def positions(self, value: Value, d: int, part: int) -> NDArray[np.int64]:
        """Where ``value`` has each channel of ``part`` along axis ``d``; NOTHING where it lacks one."""
        held = self.axes[value.name][d]
        assert held is not None
        order = np.argsort(held)
        at = order[np.searchsorted(held, self.parts[part], sorter=order).clip(max=held.size - 1)]
        return np.where(held[at] == self.parts[part], at, NOTHING)

    @cached_property
    def _part(self) -> dict[int, int]:
        """The part of each component."""
        return {c: k for k, part in enumerate(self.parts) for c in part.tolist()}


def _prefixes(name: str) -> list[str]:
    """A name and the modules that it goes through: ``a.b.weight``, ``a``, ``a.b``."""
    path = name.split(".")
    return [name, *(".".join(path[:k]) for k in range(1, len(path)))]


class _Rebuilt:
    """``graph`` while its nodes are replaced, one after another (in place)."""

    def __init__(self, graph: Graph, splitting: Splitting) -> None:
        self.graph, self.splitting = graph, splitting
        self.taken = {
            "value": {v.name for v in graph.values()},
            "node": {n.name for n in graph.nodes},
            "constant": {part for c in graph.constants.values() for name in c.names for part in _prefixes(name)},
        }
        self.free: set[tuple[str, str]] = set()
        self.clones: dict[tuple[Value, int], Value] = {}
        self.constants: dict[tuple[Value, bytes], Value] = {}
        self.parameters: dict[str, dict[str, Cut]] = {}
        self.gone: set[Value] = set()
        self.nodes: list[Node] = []
        self.made: set[str] = set()
        replaced = [n for n in graph.nodes if n.name in splitting.sites]
        read = [v for n in replaced for v in reads(n)]
        for node in graph.nodes:
            if node.name in splitting.sites:
                self._node(node, *splitting.sites[node.name])
            else:
                self.nodes.append(node)
        graph.nodes = self.nodes
        self._drop_unread()
        for value in self.gone:
            del graph.constants[value]
        without_idle_literals(graph, read)

    def _node(self, node: Node, site: Analysed, roles: Roles) -> None:
        """Put the clones of ``node`` in."""
        self.free = {("node", node.name), *(("value", v.name) for v in node.outputs)}
        made = [None] if roles.made is None else self.splitting.parts_on(node.output, roles.made)
        for part in made:
            if roles.moved:
                assert part is not None
                self.clones[node.output, part] = self._moved(node, roles, part)
            else:
                self._summed(_Clone(self, node, site, roles, part))

    def _moved(self, node: Node, roles: Roles, part: int) -> Value:
        """The operand that has a part, which stands for the result as well."""
        operands = ((node.inputs[k], d) for k, d in roles.passed.items())
        return next(
            self.clones[v, part] for v, d in operands if v is not None and part in self.splitting.parts_on(v, d)
        )

    def _summed(self, clone: _Clone) -> None:
        """Put in what gives one part of a result: a node, or several and their sum."""
        outputs = clone.outputs()
        parts = clone.summands()
        total: Value | None = None
        for k, part in enumerate(parts):
            last = k == len(parts) - 1
            here = outputs if len(parts) == 1 else (self._like(outputs[0]),)
            self._put(clone.node(part, here, first=k == 0))
            if total is not None:
                result = outputs[0] if last else self._like(outputs[0])
                added = make(self.graph, "elementwise", (total, here[0]), {"sum": True}, result)
                self._put(replace(added, name=self.fresh("node", clone.source.name)))
                total = result
            else:
                total = here[0]

    def _put(self, node: Node) -> None:
        self.nodes.append(node)
        self.made.add(node.name)

    def _drop_unread(self) -> None:
        """Take clones out again that nothing reads (a part that ends on the way), with what they alone have."""
        without_unread(self.graph, self.made)
        returned = {*self.graph.outputs, *values_in(self.graph.source.get("outputs", ()))}
        for value in set(self.constants.values()) - returned - {v for n in self.graph.nodes for v in reads(n)}:
            for name in self.graph.constants.pop(value).names:
                for clones in self.parameters.values():
                    clones.pop(name, None)

    def _like(self, value: Value) -> Value:
        return replace(value, name=self.fresh("value", value.name))

    def fresh(self, what: str, name: str, mark: str = "_") -> str:
        """``name`` where it has become free, else one like it."""
        if (what, name) in self.free:
            self.free.discard((what, name))
            return name
        found, k = name, 2
        while found in self.taken[what]:
            found, k = f"{name}{mark}{k}", k + 1
        self.taken[what].add(found)
        return found

    def cut(self, value: Value, cut: Cut) -> Value:
        """The constant ``value`` cut to what a clone has."""
        key = (value, b"|".join(b"" if c is None else c.tobytes() for c in cut))
        if key not in self.constants:
            self.constants[key] = self._new_constant(value, cut, first=value not in self.gone)
        return self.constants[key]

    def _new_constant(self, value: Value, cut: Cut, *, first: bool) -> Value:
        self.gone.add(value)
        held = self.graph.constants[value]
        data = _cut(held.data, cut)
        name, names, mark = value.name, held.names, dialects.names(self.graph).SHARED
        if not first:
            name = self.fresh("value", name, mark)
            names = tuple(self.fresh("constant", n, mark) for n in names)
        if held.role != "literal":
            for old, new in zip(held.names, names, strict=True):
                self.parameters.setdefault(old, {})[new] = cut
        clone = Value(name, tuple(data.shape), value.dtype)
        self.graph.constants[clone] = Constant(names, data, held.role, held.persistent)
        return clone


def _cut(data: Any, cut: Cut) -> Any:
    """``data`` at the positions of ``cut``, zeros where that says NOTHING."""
    kept = arrays.keep(data, tuple(None if c is None else np.maximum(c, 0) for c in cut))
    there = tuple(None if c is None or (c >= 0).all() else np.flatnonzero(c >= 0) for c in cut)
    return arrays.masked(kept, there)


@dataclass(eq=False)
class _Clone:
    """A node for one part of what it makes (None where it makes no split channels)."""

    rebuilt: _Rebuilt
    source: Node
    site: Analysed
    roles: Roles
    made: int | None

    def outputs(self) -> tuple[Value, ...]:
        """The results for this part."""
        d, part = self.roles.made, self.made
        if d is None or part is None:
            for value in self.source.outputs:
                self.rebuilt.free.discard(("value", value.name))
            return self.source.outputs
        found = tuple(
            replace(v, name=self.rebuilt.fresh("value", v.name), shape=self._shape(v, d)) for v in self.source.outputs
        )
        self.rebuilt.clones |= {(v, part): new for v, new in zip(self.source.outputs, found, strict=True)}
        return found

    def _shape(self, value: Value, d: int) -> tuple[int, ...]:
        assert self.made is not None and value.shape is not None
        return (*value.shape[:d], self._size(self.made), *value.shape[d + 1 :])

    def _size(self, part: int) -> int:
        return int(self.rebuilt.splitting.parts[part].size)

    def summands(self) -> Sequence[int | None]:
        """The parts that are summed over, None alone where there is no sum."""
        splitting = self.rebuilt.splitting
        for k, d in self.roles.summed.items():
            value = self.source.inputs[k]
            assert value is not None
            return splitting.parts_on(value, d)
        return [None]

    def node(self, summed: int | None, outputs: tuple[Value, ...], *, first: bool) -> Node:
        """The clone that sums over the part ``summed``; what is added to all of the sum is in the ``first``."""
        source, graph = self.source, self.rebuilt.graph
        name = self.rebuilt.fresh("node", source.name)
        new = Node(name, source.op, source.inputs, outputs, dict(source.attrs), source.kind, source.call)
        substitute(new, dict(self._operands(summed)))
        if self.roles.summed and not first:
            self._without_added(new)
        op, fitting = OPS[new.op], self._fitting(summed)
        if changed := op.refitted(fitting):
            write(graph, new, changed)
        return new

    def _operands(self, summed: int | None) -> Iterator[tuple[Value, Value]]:
        """Each operand with split channels, and what the clone reads."""
        roles, rebuilt = self.roles, self.rebuilt
        for k in {**roles.passed, **roles.summed}:
            value = self.source.inputs[k]
            assert value is not None
            if value in rebuilt.graph.constants:
                yield value, rebuilt.cut(value, self._cut_of(k, value, summed))
            else:
                part = summed if k in roles.summed else self.made
                assert part is not None
                yield value, rebuilt.clones[value, part]

    def _cut_of(self, k: int, value: Value, summed: int | None) -> Cut:
        cut: list[NDArray[np.int64] | None] = [None] * len(value.shape or ())
        for of, part in ((self.roles.passed, self.made), (self.roles.summed, summed)):
            if k in of and part is not None:
                cut[of[k]] = self._positions(value, of[k], part)
        return tuple(cut)

    def _positions(self, value: Value, d: int, part: int) -> NDArray[np.int64]:
        """Where ``value`` has the channels of a part; where it lacks one a layer has nothing."""
        found = self.rebuilt.splitting.positions(value, d, part)
        layer = bool(OPS[self.source.op].contracts(self.source))
        return found if layer else np.where(found == NOTHING, found.max(), found)

    def _without_added(self, node: Node) -> None:
        """Zeros in place of the bias, which the first clone adds."""
        graph, bias = self.rebuilt.graph, node.inputs[2] if len(node.inputs) > 2 else None
        if bias is None:
            return
        held, name = graph.constants[bias], self.rebuilt.fresh("value", f"{node.name}_bias")
        zeros = Value(name, bias.shape, bias.dtype)
        data = arrays.like(np.zeros(held.data.shape), held.data)
        graph.constants[zeros] = Constant((f"_literal.{name}",), data, "literal")
        node.inputs = (*node.inputs[:2], zeros, *node.inputs[3:])
        node.call = dialects.names(graph).set_operand(node, 2, zeros)

    def _fitting(self, summed: int | None) -> Fitting:
        """The node as refitting sees it: of each axis as many positions alive as the clone has."""
        site, roles = self.site, self.roles
        operands = [
            None if axes is None else [self._axis(a, self._part(k, d, summed)) for d, a in enumerate(axes)]
            for k, axes in enumerate(site.operands)
        ]
        results = [
            [self._axis(a, self.made if d == roles.made else None) for d, a in enumerate(axes)] for axes in site.results
        ]
        contracted = OPS[site.node.op].contracts(site.node)
        letters = {x: self._letter(x, axis, x in contracted, summed) for x, axis in site.binding.letters.items()}
        binding = replace(site.binding, letters=letters)
        return Fitting(replace(site, operands=operands, results=results, binding=binding), np.array([True, False]))

    def _part(self, k: int, d: int, summed: int | None) -> int | None:
        if self.roles.summed.get(k) == d:
            return summed
        return self.made if self.roles.passed.get(k) == d else None

    def _letter(self, letter: str, axis: Axis, contracted: bool, summed: int | None) -> Axis:
        made = self.roles.made is not None and self._is(axis, self.site.results[0][self.roles.made])
        if contracted:
            value = next(((k, d) for k, d in self.roles.summed.items()), None)
            held = None if value is None else (self.site.operands[value[0]] or [])[value[1]]
            return self._axis(axis, summed if held is not None and self._is(axis, held) else None)
        return self._axis(axis, self.made if made else None)

    def _is(self, axis: Axis, other: Axis) -> bool:
        return axis.shape == other.shape and bool((axis == other).all())

    def _axis(self, axis: Axis, part: int | None) -> Axis:
        """An axis of atoms that are alive (0) or dead (1): as many alive as there are in ``part``."""
        alive = len(axis) if part is None else self._size(part)
        return np.repeat(np.array([0, 1], np.int64), [alive, max(0, len(axis) - alive)])
