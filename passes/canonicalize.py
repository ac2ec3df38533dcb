"""Writing down what shapes imply, and recognising what is a single op spelled in several.

Attributes that follow from shapes (attention's scale, a bare squeeze) change when shapes change, so they are made
explicit before any rewrite.  A channel shuffle (reshape, permute, reshape) is one permutation of one axis: as such it
does not tie the halves together.  Layers, fills and parts that are tied by chance alone are taken apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..ir import dialects
from ..ir.graph import Graph, Node, Value
from .apart import fills_apart, picks_apart
from .base import Kind, Pass, State, register
from .layers import layers_apart
from .rewrite import literal, make, write

_LARGEST_SHUFFLE = 1 << 24


@register
@dataclass(frozen=True)
class Canonicalize(Pass):
    """Make implied attributes explicit and turn channel shuffles into permutations of one axis."""

    name: ClassVar[str] = "canonicalize"
    kind: ClassVar[Kind] = "rewrite"
    ensures: ClassVar[frozenset[str]] = frozenset({"canonical"})

    def run(self, state: State) -> Graph:
        return canonical(state.graph)


def canonical(graph: Graph) -> Graph:
    """A canonical copy of ``graph``; it computes the same."""
    graph = graph.copy()
    for node in graph.nodes:
        changed = dict(dialects.names(graph).explicit(graph, node))
        if changed:
            write(graph, node, changed)
    return shuffles_as_permutations(fills_apart(picks_apart(layers_apart(graph))))


def shuffles_as_permutations(graph: Graph) -> Graph:
    """Replace reshape–permute–reshape chains that permute one axis by a single ``take`` (in place)."""
    readers = graph.consumers()
    producers = graph.producers()
    outputs = set(graph.outputs)
    for last in list(graph.nodes):
        chain = _chain(last, producers)
        if chain is None or any(len(readers.get(n.output, [])) != 1 or n.output in outputs for n in chain[:-1]):
            continue
        found = _permutation(chain)
        if found is None:
            continue
        dim, order = found
        x = chain[0].inputs[0]
        assert x is not None
        index = literal(graph, f"{last.name}_shuffle", order)
        attrs = {"dim": dim, "indices": tuple(int(i) for i in order)}
        graph.nodes[graph.nodes.index(last)] = make(graph, "take", (x, index), attrs, last.output)
        gone = {id(n) for n in chain[:-1]}
        graph.nodes = [n for n in graph.nodes if id(n) not in gone]
    return graph


def _chain(last: Node, producers: dict[Value, Node]) -> list[Node] | None:
    """The nodes reshape, permute, (copies), reshape that end in ``last``; None where it is no such chain."""
    if last.op != "reshape" or last.inputs[0] is None:
        return None
    chain, seen_permute = [last], False
    value: Value | None = last.inputs[0]
    while value is not None and (node := producers.get(value)) is not None:
        copies = any(word in node.kind for word in ("contiguous", "clone", "Identity"))
        if not copies and node.op not in ("permute", "reshape"):
            return None
        chain.insert(0, node)
        seen_permute |= node.op == "permute"
        if node.op == "reshape":
            return chain if seen_permute else None
        value = node.inputs[0]
    return None


def _permutation(chain: list[Node]) -> tuple[int, np.ndarray] | None:
    """The axis and the order, when the chain permutes the positions of one axis and does nothing else."""
    x = chain[0].inputs[0]
    if x is None or x.shape is None or x.shape != chain[-1].output.shape or x.dynamic != chain[-1].output.dynamic:
        return None
    if int(np.prod(x.shape)) > _LARGEST_SHUFFLE:
        return None
    before = np.arange(int(np.prod(x.shape))).reshape(x.shape)
    after = before
    for node in chain:
        if node.op == "permute":
            after = after.transpose(node.attrs["dims"])
        elif node.op == "reshape":
            after = after.reshape(node.output.shape or ())
    for d, size in enumerate(x.shape):
        order = _order(after, before, d, size)
        if order is not None and d not in x.dynamic:
            return d, order
    return None


def _order(after: np.ndarray, before: np.ndarray, d: int, size: int) -> np.ndarray | None:
    """The permutation of axis ``d`` that turns ``before`` into ``after``; None for none, or for the identity."""
    stride = int(np.prod(before.shape[d + 1 :]))
    first = np.moveaxis(after, d, 0).reshape(size, -1)[:, 0]
    order = (first // stride) % size
    if (order == np.arange(size)).all() or not np.array_equal(np.take(before, order, axis=d), after):
        return None
    return order.astype(np.int64)
