"""What a graph costs when positions are dead: multiply-accumulates, parameters, bytes.  Counts only; no clock."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from ..ir import arrays
from ..ir.analysis import Analysis
from ..ir.axes import Axis
from ..ir.graph import Constant, Node, Value, reads
from ..ir.opset import OPS, Alive, Analysed, Cost, Macs
from ..ir.solve import Solution
from .target import Target

Count = Callable[[Axis], int]
"""How many positions of an axis are alive."""

Term = Callable[[Count], float]


@dataclass(frozen=True)
class Uncounted:
    """Ops of one ``kind`` whose multiply-accumulates are not known; ``params`` are what they carry."""

    kind: str
    ops: int
    params: int

    def __str__(self) -> str:
        details = [f"{self.ops} of them"] if self.ops > 1 else []
        details += [f"{self.params:,} parameters"] if self.params else []
        return f"{self.kind} ({', '.join(details)})" if details else self.kind


@dataclass(frozen=True, eq=False)
class CostModel:
    """Costs of an analysed graph as functions of which atoms are alive."""

    analysis: Analysis

    def macs(self, alive: Alive) -> float:
        """Multiply-accumulates of one example run (the traced batch included)."""
        return self.total("macs", alive)

    def terms(self, name: str) -> list[Term]:
        """The summands of ``macs`` or ``params``."""
        return {"macs": self._macs_terms, "params": self._params_terms}[name]

    def total(self, name: str, alive: Alive) -> float:
        """``macs`` or ``params``, by name."""
        count = Counts(alive)
        return sum((term(count) for term in self.terms(name)), 0.0)

    @cached_property
    def _macs_terms(self) -> list[Term]:
        sites = ((s, OPS.get(s.node.op)) for s in self.analysis.sites.values())
        return [partial(_macs, s, op.macs) for s, op in sites if op is not None and op.macs]

    @cached_property
    def _params_terms(self) -> list[Term]:
        parameters = (v for v, c in self._read.items() if c.role == "parameter")
        return [partial(elements, tuple(self.analysis.axes[v] or ())) for v in parameters]

    def uncounted(self) -> list[Uncounted]:
        """Ops that :meth:`macs` leaves out because they are not understood: kinds, most parameters first."""
        found: dict[str, list[int]] = {}
        for opaque in self.analysis.opaque:
            op = OPS.get(opaque.node.op)
            if (op is None or op.macs) and any("float" in v.dtype for v in opaque.node.outputs):
                found.setdefault(opaque.kind, []).append(self._carried(opaque.node))
        return sorted((Uncounted(k, len(n), sum(n)) for k, n in found.items()), key=lambda u: (-u.params, u.kind))

    def _carried(self, node: Node) -> int:
        """Elements of the float constants that ``node`` reads."""
        held = self.analysis.graph.constants
        floats = (v for v in set(reads(node)) if v in held and arrays.is_float(held[v].data))
        return sum(math.prod(v.shape or ()) for v in floats)

    def params(self, alive: Alive) -> float:
        """Elements of the parameters that the graph reads; tied ones count once."""
        return self.total("params", alive)

    def size_bytes(self, alive: Alive) -> float:
        """Bytes of all constants that the graph reads."""
        count = Counts(alive)
        total = 0.0
        for value, constant in self._read.items():
            width = (
                constant.data.element_size() if hasattr(constant.data, "element_size") else constant.data.dtype.itemsize
            )
            total += width * math.prod(count(a) for a in self.analysis.axes[value] or ())
        return total

    @cached_property
    def _read(self) -> dict[Value, Constant]:
        """The constants that some node reads; parameters that are only used in training are not."""
        graph = self.analysis.graph
        used = {v for node in graph.nodes for v in reads(node)}
        return {v: c for v, c in graph.constants.items() if v in used}


def _macs(site: Analysed, macs: Macs, count: Count) -> float:
    return macs(Cost(site, count))


def elements(axes: Iterable[Axis], count: Count) -> float:
    """How many elements of a tensor with these axes are alive."""
    return float(math.prod(count(axis) for axis in axes))


def computed(site: Analysed, solution: Solution, target: Target) -> Callable[[Axis, int], int]:
    """As many channels as a node is as slow as where so many of an axis are alive."""
    made = {id(axis) for axis in site.results[0]} if is_summing_conv(site) else set()

    def channels(axis: Axis, alive: int) -> int:
        if not solution.may_shrink(axis):
            return alive
        return target.in_sets(alive) if id(axis) in made else target.in_blocks(alive)

    return channels


def is_summing_conv(site: Analysed) -> bool:
    """Whether a node is a convolution that sums over channels, whose outputs a runtime makes in sets of blocks."""
    letters = site.binding.letters
    contracted = (letters[x] for x in OPS[site.node.op].contracts(site.node) if x in letters)
    return site.node.op == "conv" and any(len(axis) > 1 for axis in contracted)


class Counts:
    """Alive positions of an axis, each axis counted once."""

    def __init__(self, alive: Alive) -> None:
        self.alive = alive
        self.known: dict[int, int] = {}

    def __call__(self, axis: Axis) -> int:
        key = id(axis)
        if key not in self.known:
            self.known[key] = int(np.count_nonzero(self.alive[axis]))
        return self.known[key]
