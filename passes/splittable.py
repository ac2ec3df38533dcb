"""Which nodes compute a part of some channels from that part alone, and which sum over them part by part.

Channels can be split where every node that has them either treats each by itself (it is cloned for each part), or
multiplies and sums over them with a constant weight (it becomes a sum over the parts), or only moves them: a pick, a
concatenation.  What a node does follows from its declaration: the letters of its signature, those that it contracts,
what it normalises.  Whatever is not surely one of these is refused, with the reason.  Start at :func:`roles`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..ir import arrays
from ..ir.analysis import Analysis
from ..ir.axes import Axis
from ..ir.dialects import runtime
from ..ir.graph import Graph, Node
from ..ir.opset import OPS, Analysed, Op
from ..ir.signature import Term
from .movable import along

KEPT = "kept channels"
_PROBES = (-2.6, -0.7, 0.0, 0.7, 2.6)


class Refused(Exception):
    """Channels cannot be split: ``why``, in a few words."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


@dataclass(frozen=True)
class Roles:
    """What a node does with split channels.

    Attributes
    ----------
    made
        The axis along which its results have them; None where they have none.
    passed, summed
        For operands that have them the axis: of those that pass into the result, of those that are summed over.
    moved
        Whether the node only moves channels, so that its parts are parts of what it reads.
    """

    made: int | None
    passed: dict[int, int]
    summed: dict[int, int]
    moved: bool = False


def roles(analysis: Analysis, site: Analysed, inside: NDArray[np.bool_]) -> Roles | None:
    """What a node does with the components ``inside``, None for one without any; raises :class:`Refused`."""
    return _Reading(analysis, site, inside).roles()


def is_calm(graph: Graph, node: Node) -> bool:
    """Whether ``node`` surely gives finite numbers for finite ones: a function of elements is tried."""
    if node.op != "elementwise":
        return True
    probes = ([np.array([x])] * len(node.inputs) for x in _PROBES)
    found = [runtime(graph).evaluate(graph, node, each) for each in probes]
    return all(x is not None and bool(np.isfinite(x).all()) for x in found)


class _Reading:
    """One node read for what it does with the components ``inside``."""

    def __init__(self, analysis: Analysis, site: Analysed, inside: NDArray[np.bool_]) -> None:
        self.graph, self.component = analysis.graph, analysis.solution.component
        self.site, self.node, self.inside = site, site.node, inside
        self.what = self.node.kind or self.node.op

    def roles(self) -> Roles | None:
        """What the node does; None where it has none of the components."""
        operands = {k: held for k, axes in enumerate(self.site.operands) if (held := self._held(axes or []))}
        results = [self._held(axes) for axes in self.site.results]
        if not operands and not any(results):
            return None
        made = self._made(results)
        if made is not None and along(self.node) == made:
            return self._moving(operands, made)
        op = OPS[self.node.op]
        passed, summed = self._read(op, operands, made)
        if made is not None and not passed:
            raise Refused(self.what)
        if summed:
            self._require_a_layer(op, summed)
        if any(len(held) > 1 and self.node.inputs[k] not in self.graph.constants for k, held in operands.items()):
            raise Refused(self.what)
        return Roles(made, passed, summed)

    def _held(self, axes: Sequence[Axis]) -> list[int]:
        """The axes that have the components."""
        found = []
        for d, axis in enumerate(axes):
            inside = self.inside[self.component[axis]]
            if inside.any():
                if not inside.all():
                    raise Refused(KEPT)
                found.append(d)
        return found

    def _made(self, results: list[list[int]]) -> int | None:
        """The axis that has them in every result; None where no result has any."""
        if not any(results):
            return None
        if any(held != results[0] for held in results) or len(results[0]) != 1:
            raise Refused(self.what)
        (d,) = results[0]
        first = self.component[self.site.results[0][d]]
        if any(not np.array_equal(self.component[axes[d]], first) for axes in self.site.results):
            raise Refused(self.what)
        return d

    def _moving(self, operands: dict[int, list[int]], made: int) -> Roles:
        """A pick or a concatenation along the channels."""
        if any(held != [made] for held in operands.values()):
            raise Refused(self.what)
        if self.node.op == "cat" and len(operands) != len(self.node.inputs):
            raise Refused(KEPT)
        if any(v is not None and v.dtype != self.node.output.dtype for v in (self.node.inputs[k] for k in operands)):
            raise Refused(self.what)
        return Roles(made, dict.fromkeys(operands, made), {}, moved=True)

    def _read(self, op: Op, operands: dict[int, list[int]], made: int | None) -> tuple[dict[int, int], dict[int, int]]:
        passed: dict[int, int] = {}
        summed: dict[int, int] = {}
        for k, d in ((k, d) for k, held in operands.items() for d in held):
            into = summed if self._is_summed(op, k, d) else passed
            if k in into or (into is passed and not self._passes(op, k, d, made)):
                raise Refused(self.what)
            into[k] = d
        return passed, summed

    def _is_summed(self, op: Op, k: int, d: int) -> bool:
        term = _term(op, self.site, k, d)
        if term is None:
            return False
        live = {x for x in term.letters if x in self.site.binding.letters and self._has(self.site.binding.letters[x])}
        contracted = live & set(op.contracts(self.node))
        if contracted and contracted != live:
            raise Refused(self.what)
        return bool(contracted)

    def _has(self, axis: Axis) -> bool:
        return bool(self.inside[self.component[axis]].any())

    def _passes(self, op: Op, k: int, d: int, made: int | None) -> bool:
        """Whether axis ``d`` of operand ``k`` is that of the result, each channel by itself."""
        if made is None or d in op.normalised_axes(self.node).get(k, ()):
            return False
        axis, result = (self.site.operands[k] or [])[d], self.site.results[0][made]
        return np.array_equal(self.component[axis], self.component[result])

    def _require_a_layer(self, op: Op, summed: dict[int, int]) -> None:
        """Refuse what is no product with a constant weight, to which at most one operand is added."""
        node, constants = self.node, self.graph.constants
        weights = [k for k in summed if node.inputs[k] in constants]
        plain = set(summed) == {0, 1} and len(weights) == 1 and not any(v is not None for v in node.inputs[3:])
        floats = [constants[v] for v in node.inputs[1:3] if v in constants]
        if not plain or len(node.outputs) > 1 or node.attrs.get("scaled"):
            raise Refused(self.what)
        if "float" not in node.output.dtype or not all(arrays.is_float(c.data) for c in floats):
            raise Refused(self.what)
        if any(v is not None and v not in constants for v in node.inputs[2:3]):
            raise Refused(self.what)
        if len([x for x in op.contracts(node) if self._has(self.site.binding.letters.get(x, np.zeros(0, int)))]) != 1:
            raise Refused(self.what)


def _term(op: Op, site: Analysed, k: int, d: int) -> Term | None:
    """What the signature says of axis ``d`` of operand ``k``; None where there is none, or a run of axes."""
    if op.signature is None:
        return None
    terms = op.signature.operands[min(k, len(op.signature.operands) - 1)]
    return dict(_places(terms, len(site.operands[k] or []))).get(d)


def _places(terms: Sequence[Term], rank: int) -> Iterator[tuple[int, Term]]:
    """Each term that is one axis, with that axis."""
    span = next((j for j, t in enumerate(terms) if t.spans), len(terms))
    for j, term in enumerate(terms):
        if j != span:
            yield (j if j < span else j + rank - len(terms)), term
