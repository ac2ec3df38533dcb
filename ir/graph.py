"""The graph: SSA nodes over values, with constants.  Both frontends build it, every pass reads it.

A *value* is a tensor that flows; a *node* computes values from values.  A node has a canonical ``op`` (a name in
``opset``: what it means) and a ``kind`` with a ``call`` (how its source dialect spells it: an ATen overload with its
arguments, an ONNX op type with its attributes).  Passes read ``op``, ``inputs`` and ``attrs``; only the emitters read
``kind`` and ``call``.  Start reading at :class:`Graph`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import networkx as nx

Shape = tuple[int, ...]


@dataclass(eq=False, slots=True)
class Value:
    """A tensor (or a symbolic integer) that flows between nodes.

    ``shape`` holds the sizes of the example run, or None when the rank is not known; ``dynamic`` are the axes whose
    size may differ from run to run.
    """

    name: str
    shape: Shape | None
    dtype: str = "float32"
    dynamic: frozenset[int] = frozenset()

    @property
    def is_tensor(self) -> bool:
        """False for symbolic integers and for inputs that are plain Python objects."""
        return self.dtype not in ("symint", "object")

    def __repr__(self) -> str:
        return f"%{self.name}"


@dataclass(eq=False, slots=True)
class Constant:
    """The data behind a value that is not computed.

    ``names`` are the source's names, more than one when weights are tied.  ``data`` is a numpy array or a torch
    tensor.  ``role`` is ``parameter`` (trained), ``buffer`` (state) or ``literal`` (no name in the source's state).
    """

    names: tuple[str, ...]
    data: Any
    role: str = "parameter"
    persistent: bool = True

    @property
    def name(self) -> str:
        return self.names[0]


@dataclass(eq=False, slots=True)
class Node:
    """One operation.  ``inputs`` are the operands that the op's declaration names, None for one that is absent."""

    name: str
    op: str
    inputs: tuple[Value | None, ...]
    outputs: tuple[Value, ...]
    attrs: dict[str, Any] = field(default_factory=dict)
    kind: str = ""
    call: Any = None

    @property
    def output(self) -> Value:
        return self.outputs[0]


@dataclass(eq=False)
class Graph:
    """A network: inputs, nodes in topological order, outputs, and the data of its constants.

    ``dialect`` names the frontend that made it and the emitter that can write it (``fx`` or ``onnx``); ``source`` is
    what only that emitter needs (calling convention, names of inputs, opset), and passes leave it alone.
    """

    dialect: str
    inputs: list[Value]
    outputs: list[Value]
    nodes: list[Node]
    constants: dict[Value, Constant]
    source: dict[str, Any] = field(default_factory=dict)

    def copy(self) -> Graph:
        """A graph whose nodes and constants can be changed without changing this one.  Values and data are shared."""
        nodes = [Node(n.name, n.op, n.inputs, n.outputs, dict(n.attrs), n.kind, n.call) for n in self.nodes]
        constants = {v: copy.copy(c) for v, c in self.constants.items()}
        return Graph(self.dialect, list(self.inputs), list(self.outputs), nodes, constants, dict(self.source))

    def values(self) -> Iterator[Value]:
        yield from self.inputs
        yield from self.constants
        for node in self.nodes:
            yield from node.outputs

    def producers(self) -> dict[Value, Node]:
        """The node behind each computed value."""
        return {v: n for n in self.nodes for v in n.outputs}

    def consumers(self) -> dict[Value, list[Node]]:
        """The nodes that read each value, in order."""
        found: dict[Value, list[Node]] = {}
        for node in self.nodes:
            for value in dict.fromkeys(reads(node)):
                found.setdefault(value, []).append(node)
        return found

    def as_networkx(self) -> nx.DiGraph[Any]:
        """Nodes and values as one bipartite directed graph, for graph algorithms."""
        g: nx.DiGraph[Any] = nx.DiGraph()
        for node in self.nodes:
            g.add_node(node)
            g.add_edges_from((v, node) for v in reads(node))
            g.add_edges_from((node, v) for v in node.outputs)
        return g

    def prune_unused(self) -> Graph:
        """This graph without nodes and constants that no output, be it a size, depends on (in place)."""
        g = self.as_networkx()
        returned = dict.fromkeys([*self.outputs, *values_in(self.source.get("outputs", ()))])
        needed: set[Any] = set(returned)
        for out in returned:
            if out in g and out not in needed - {out}:
                needed |= nx.ancestors(g, out)
        self.nodes = [n for n in self.nodes if n in needed]
        self.constants = {v: c for v, c in self.constants.items() if v in needed or c.role != "literal"}
        return self

    def without_idle_constants(self) -> Graph:
        """This graph without constants that no node reads (in place); its state is no longer the source's."""
        used = {v for node in self.nodes for v in reads(node)} | set(self.outputs)
        self.constants = {v: c for v, c in self.constants.items() if v in used}
        return self


def reads(node: Node) -> Iterator[Value]:
    """Every value that a node reads: its operands and whatever else stands in its call."""
    yield from (v for v in node.inputs if v is not None)
    yield from values_in(node.call)


def values_in(tree: Any) -> Iterator[Value]:
    """The values inside nested tuples, lists and dicts."""
    if isinstance(tree, Value):
        yield tree
    elif isinstance(tree, (tuple, list)):
        for item in tree:
            yield from values_in(item)
    elif isinstance(tree, dict):
        for item in tree.values():
            yield from values_in(item)


def map_values(tree: Any, change: Callable[[Value], Any]) -> Any:
    """The same nest of tuples, lists and dicts with every value replaced by ``change(value)``."""
    if isinstance(tree, Value):
        return change(tree)
    if isinstance(tree, (tuple, list)):
        return type(tree)(map_values(item, change) for item in tree)
    if isinstance(tree, dict):
        return {k: map_values(item, change) for k, item in tree.items()}
    return tree


def substitute(node: Node, table: dict[Value, Value]) -> None:
    """Make ``node`` read ``table[v]`` wherever it read ``v``."""
    node.inputs = tuple(None if v is None else table.get(v, v) for v in node.inputs)
    node.call = map_values(node.call, lambda v: table.get(v, v))
