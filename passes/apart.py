"""What is tied by chance alone, taken apart, so that each of two widths is free.

A *fill* holds one number everywhere (an initial state of zeros); its readers share no more than that number, so each
gets a fill of its own.  A part that is picked from a concatenation has nothing to do with the other parts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from ..ir import arrays
from ..ir.graph import Graph, Node, Value, reads, substitute
from .rewrite import write

_LARGEST_FILL = 1 << 16
_MOVES = frozenset({"expand", "permute", "reshape", "select", "slice"})


def fills_apart(graph: Graph) -> Graph:
    """Give each reader of a fill one of its own (in place)."""
    names = {v.name for v in graph.values()} | {n.name for n in graph.nodes}
    readers, makers = graph.consumers(), graph.producers()
    copies: dict[Node, list[Node]] = {}
    for value in reversed(_fills(graph)):
        for k, reader in enumerate(readers.get(value, [])[1:], 2):
            own = replace(value, name=_fresh(f"{value.name}_{k}", names))
            substitute(reader, {value: own})
            if value in graph.constants:
                graph.constants[own] = replace(graph.constants[value], names=(f"_literal.{own.name}",))
                continue
            maker = makers[value]
            made = replace(maker, name=own.name, outputs=(own,), attrs=dict(maker.attrs))
            copies.setdefault(maker, []).append(made)
            for v in dict.fromkeys(reads(made)):
                readers[v].append(made)
    graph.nodes = [each for node in graph.nodes for each in (node, *copies.get(node, ()))]
    return graph


def _fills(graph: Graph) -> list[Value]:
    """Floats that hold one number everywhere, in order."""
    single = {v for v in graph.constants if int(np.prod(v.shape or ())) == 1}
    found = {v: None for v in graph.constants if _is_even(graph, v)}
    for node in graph.nodes:
        x = node.inputs[0] if node.inputs else None
        if node.op == "zeros" or (node.op == "expand" and x in single) or (node.op in _MOVES and x in found):
            found[node.output] = None
    return [v for v in found if "float" in v.dtype and _is_wide(v)]


def _is_wide(value: Value) -> bool:
    return any(n > 1 and d not in value.dynamic for d, n in enumerate(value.shape or ()))


def _is_even(graph: Graph, value: Value) -> bool:
    constant = graph.constants[value]
    if constant.role != "literal" or not 1 < int(np.prod(value.shape or ())) <= _LARGEST_FILL:
        return False
    if arrays.is_meta(constant.data) or not arrays.is_float(constant.data):
        return False
    data = arrays.to_numpy(constant.data)
    return bool((data == data.flat[0]).all())


def _fresh(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def picks_apart(graph: Graph) -> Graph:
    """Make a node that picks positions out of one part of a concatenation read that part (in place)."""
    producers = graph.producers()
    for node in graph.nodes:
        x = node.inputs[0] if node.op in ("select", "slice") else None
        joined = _maker(x, producers)
        if x is not None and joined is not None and joined.op == "cat" and (pick := _pick(node, joined)) is not None:
            part, changed = pick
            write(graph, node, changed)
            substitute(node, {x: part})
    return graph.prune_unused()


def _maker(value: Value | None, producers: dict[Value, Node]) -> Node | None:
    """The node behind a value, slices that cut nothing off left out."""
    node = None if value is None else producers.get(value)
    while node is not None and node.op == "slice" and node.inputs[0] is not None:
        x, bounds = node.inputs[0], node.attrs["slices"]
        if x.shape != node.output.shape or any(start is None for _, start, _, _ in bounds):
            return node
        node = producers.get(x)
    return node


def _pick(node: Node, joined: Node) -> tuple[Value, dict[str, Any]] | None:
    """The part that ``node`` reads, and its attributes there; None where it reads several or more than positions."""
    d = joined.attrs["dim"]
    if d in joined.output.dynamic:
        return None
    if node.op == "select" and node.attrs["dim"] == d:
        at = int(node.attrs["index"])
        return next(((v, {"index": at - a}) for v, a, b in _parts(joined) if a <= at < b), None)
    if node.op == "slice" and len(node.attrs["slices"]) == 1:
        ((axis, start, stop, step),) = node.attrs["slices"]
        if axis != d or start is None or stop is None or start >= stop:
            return None
        inside = (
            (v, {"slices": ((d, start - a, stop - a, step),)}) for v, a, b in _parts(joined) if a <= start and stop <= b
        )
        return next(inside, None)
    return None


def _parts(joined: Node) -> Iterator[tuple[Value, int, int]]:
    """Each part with where it starts and ends, up to one whose size is not known."""
    start = 0
    for value in joined.inputs:
        if value is None or value.shape is None:
            return
        if len(value.shape) <= joined.attrs["dim"]:
            continue  # an empty vector, which torch lets pass
        stop = start + value.shape[joined.attrs["dim"]]
        yield value, start, stop
        start = stop
