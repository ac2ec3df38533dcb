"""Fold: batch norms go into the convolution before them, constants of dead channels into the biases after them.

Both are for inference: a folded network computes the same, and trains differently, so ``result.module`` keeps its
batch norms and the emitted ONNX does not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ..ir import arrays
from ..ir.analysis import analyse
from ..ir.graph import Graph, Node, Value, substitute
from ..ir.words import counted
from .affine import affine, numbers
from .base import Kind, Pass, State, register
from .constants import fold_constants
from .rewrite import set_bias


@register
@dataclass(frozen=True)
class Fold(Pass):
    """Fold batch norms into the layer before them, and constants of dead channels into the biases after them.

    batch_norm: fold batch norms.  constants: remove channels whose value does not depend on the input, where that is
    exact (a convolution without padding, a linear layer, or a constant of zero); others stay.
    """

    batch_norm: bool = True
    constants: bool = True

    name: ClassVar[str] = "fold"
    kind: ClassVar[Kind] = "rewrite"
    requires: ClassVar[frozenset[str]] = frozenset({"canonical"})
    ensures: ClassVar[frozenset[str]] = frozenset({"folded"})
    inference_only: ClassVar[bool] = True
    requires_choice: ClassVar[bool] = True

    def run(self, state: State) -> Graph:
        graph = state.graph
        if self.batch_norm:
            groups = state.facts.get("groups")
            analysis = analyse(graph) if groups is None else groups.analysis
            opaque = frozenset(o.node.name for o in analysis.opaque)
            graph, folded = fold_batch_norms(graph, opaque)
            if folded:
                state.notes.append(f"fold: {counted(folded, 'batch norm')} folded into what stands before")
        if self.constants:
            graph, removed = fold_constants(graph)
            if removed:
                state.notes.append(f"fold: {counted(removed, 'channel')} constant or not read folded away")
        return graph


def fold_batch_norms(graph: Graph, opaque: frozenset[str] = frozenset()) -> tuple[Graph, int]:
    """A copy of ``graph`` with each batch norm folded that alone reads a convolution or linear layer; how many.

    ``opaque`` are the names of nodes that the analysis does not understand, whatever op they are.
    """
    graph = graph.copy()
    producers, readers = graph.producers(), graph.consumers()
    gone: dict[Value, Value] = {}
    folded: list[Node] = []
    for norm in graph.nodes:
        layers = _before(graph, norm, producers, readers)
        if not layers or any(not _foldable(graph, norm, layer, readers) for layer in layers):
            continue
        if {norm.name, *(layer.name for layer in layers)} & opaque:
            continue
        scale, shift = affine(graph, norm)
        for layer in layers:
            _absorb(graph, layer, scale, shift if layer is layers[0] else None)
        assert norm.inputs[0] is not None
        gone[norm.output] = norm.inputs[0]
        folded.append(norm)
    dead = {id(n) for n in folded}
    graph.nodes = [n for n in graph.nodes if id(n) not in dead]
    return redirect(graph, gone).without_idle_constants(), len(folded)


def _before(graph: Graph, norm: Node, producers: dict[Value, Node], readers: dict[Value, list[Node]]) -> list[Node]:
    """The layer whose result a batch norm alone reads, or the layers of which that is the sum (``split``)."""
    found: list[Node] = []
    waiting = list(norm.inputs[:1]) if norm.op == "batch_norm" else []
    while waiting:
        value = waiting.pop(0)
        node = None if value is None else producers.get(value)
        if value is None or node is None or len(readers[value]) != 1 or value in graph.outputs:
            return []
        if node.attrs.get("sum"):
            waiting[:0] = node.inputs
        else:
            found.append(node)
    return found


def redirect(graph: Graph, table: dict[Value, Value]) -> Graph:
    """``graph`` reading ``table[v]`` for ``v`` (in place); an output keeps its own name."""
    for node in graph.nodes:
        substitute(node, table)
    for value in [v for v in graph.outputs if v in table]:
        maker = graph.producers()[table[value]]
        maker.outputs = tuple(value if v is table[value] else v for v in maker.outputs)
        for node in graph.nodes:
            substitute(node, {table[value]: value})
    return graph


def _foldable(graph: Graph, norm: Node, layer: Node, readers: dict[Value, list[Node]]) -> bool:
    if (
        layer.op not in ("conv", "linear")
        or layer.attrs.get("scaled")
        or "eps" not in norm.attrs
        or len(readers[layer.output]) != 1
    ):
        return False
    if layer.output in graph.outputs or (norm.inputs[0] is not None and len(norm.inputs[0].shape or ()) < 2):
        return False
    constants = [v for v in (*layer.inputs[1:3], *norm.inputs[1:]) if v is not None]
    if any(v not in graph.constants for v in constants):
        return False
    own = [v for v in layer.inputs[1:3] if v is not None]
    last = len(layer.output.shape or ()) - 1
    return all(len(readers[v]) == 1 and v not in graph.outputs for v in own) and (layer.op == "conv" or last == 1)


def _absorb(graph: Graph, layer: Node, scale: NDArray[np.float64], shift: NDArray[np.float64] | None) -> None:
    """Make ``layer`` compute ``scale * layer(x) + shift``, without a shift where there is none."""
    weight = layer.inputs[1]
    assert weight is not None
    held = graph.constants[weight]
    shaped = scale.reshape(-1, *[1] * (len(held.data.shape) - 1))
    graph.constants[weight] = replace(held, data=arrays.changed(held.data, lambda data: data * shaped))
    old = numbers(graph, layer.inputs[2]) if len(layer.inputs) > 2 else None
    if old is not None or shift is not None:
        set_bias(
            graph, layer, np.zeros_like(scale) + (0 if old is None else old * scale) + (0 if shift is None else shift)
        )
