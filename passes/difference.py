"""How far outputs are from the masked graph's, and whether rounding alone explains it.

The masked graph is run again with its inputs' last digits changed: an error of that size says nothing.  A graph that
moves far with its last digits would hide mistakes, and explains nothing, with one exception.  Where a graph decides
(boxes above a threshold, the k largest) a last digit may change what is chosen, and how much.  There the floats that
go into the decisions, its *border*, are outputs as well, and must agree strictly; what lies behind may then move.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..ir import arrays
from ..ir.analysis import Analysis
from ..ir.codes import beside
from ..ir.dialects import runtime
from ..ir.errors import ModelError
from ..ir.graph import Graph, Node, Value, reads
from ..ir.opset import OPS, no_zero_point

Outputs = list[NDArray[Any]]
_ROUNDINGS, _NUDGES, _CHAOS, _AGAIN = 10.0, 3, 0.1, 3
_DIGITS, _LAST_DIGITS = 1e-6, {"float16": 2e-3, "bfloat16": 1.6e-2}


@dataclass(frozen=True)
class Difference:
    """How far outputs are from the masked graph's: the ``error`` as measured, and whether it is ``rounding`` alone.

    ``tied``: another runtime chose other ones among equals, so that nothing behind a decision could be compared.
    """

    error: float
    rounding: bool = False
    tied: bool = False

    def within(self, tolerance: float) -> bool:
        """Whether it is no mistake."""
        return self.rounding or self.tied or self.error <= tolerance


@dataclass(frozen=True)
class Border:
    """The masked graph with the floats that go into its decisions as its last outputs, ``watched`` of them.

    ``decides`` allows what lies ``behind`` a decision to move: the outputs of those numbers.  All others belong to the
    border.  ``elsewhere``: in another runtime, which may order equals in another way.
    """

    oracle: Graph
    watched: int = 0
    decides: bool = False
    behind: frozenset[int] = frozenset()
    elsewhere: bool = False

    @classmethod
    def of(cls, oracle: Graph, values: list[Value], complete: bool) -> Border:
        """``complete`` where ``values``, which may be outputs as well, are all that goes into decisions."""
        seen = runtime(oracle).observing(oracle, values)
        watched = len(seen.outputs) - len(oracle.outputs)
        return cls(seen, watched, complete and bool(values), _outputs_behind(oracle))

    @property
    def inner(self) -> list[Value]:
        """The values that are outputs of the border alone."""
        return self.oracle.outputs[len(self.oracle.outputs) - self.watched :]

    def errors(self, expected: Outputs, found: Outputs) -> tuple[float, float]:
        """The largest relative errors behind decisions and at the border."""
        if len(expected) != len(found):
            return math.inf, math.inf
        behind, at_border = ([k for k in range(len(expected)) if (k in self.behind) is side] for side in (True, False))
        return (
            relative_error([expected[k] for k in behind], [found[k] for k in behind]),
            relative_error([expected[k] for k in at_border], [found[k] for k in at_border]),
        )

    def has_equals(self, expected: Outputs) -> bool:
        """Whether a ranking meets a number twice, among those that it chooses and the first that it does not."""
        returned = runtime(self.oracle).returned(self.oracle)
        if len(returned) != len(expected):  # sequences, which come apart
            returned, expected = self.inner, expected[len(expected) - self.watched :]
        seen = dict(zip(returned, expected, strict=True))
        rankings = ((n, n.inputs[0]) for n in self.oracle.nodes if n.op == "rank_along")
        return any(_meets_equals(node, seen[v]) for node, v in rankings if v in seen)


def _meets_equals(node: Node, x: NDArray[Any]) -> bool:
    """Whether ``node``, which ranks ``x``, chooses among equals."""
    dims, shape = sorted(node.attrs["dims"]), node.output.shape or ()
    rows = np.moveaxis(x, dims, range(x.ndim - len(dims), x.ndim)).reshape(*np.delete(x.shape, dims), -1)
    ordered = np.sort(rows if node.attrs["largest"] else -rows, axis=-1)[..., ::-1]
    chosen = shape[dims[0]] if node.attrs["keepdim"] and len(dims) == 1 else 1
    best = ordered[..., : chosen + 1]
    return bool((best[..., 1:] == best[..., :-1]).any())


def _outputs_behind(graph: Graph) -> frozenset[int]:
    """The numbers of the outputs that depend on a decision; none where outputs are no arrays, which come apart."""
    behind, returned = _behind_decisions(graph), runtime(graph).returned(graph)
    apart = any(v.dtype == "object" for v in returned)
    return frozenset() if apart else frozenset(k for k, v in enumerate(returned) if v in behind)


def found_again(
    oracle: Graph, values: list[Value], inputs: list[Any], found: Outputs, watched: int, tolerance: float
) -> tuple[Border, Outputs, Outputs]:
    """The border of another form of the masked graph, whose last ``watched`` outputs are its own.

    With it the outputs that it expects, and those of ``found`` that belong to them.

    Where it has as many of a size (axes of one position aside) as ``values`` has, each belongs to the nearest one.
    Otherwise the form decides by something else, and those alone belong together that agree.  Where the form has one
    that belongs to none, the border is not complete: nothing behind it may move.
    """
    seen = runtime(oracle).observing(oracle, values)
    held = seen.outputs[len(oracle.outputs) :]
    returned = [v for v in values if v in oracle.outputs]
    every = run(seen, inputs)
    first, cut = len(every) - len(held), len(found) - watched
    expected = every[first:]
    counts = Counter(map(_sizes, expected)), Counter(map(_sizes, found[cut:]))
    pairs: dict[int, NDArray[Any]] = {}
    for x in found[cut:]:
        size = _sizes(x)
        alike = {k: x.reshape(e.shape) for k, e in enumerate(expected) if k not in pairs and _sizes(e) == size}
        nearest = min(alike, key=lambda k: _error(expected[k], alike[k]), default=None)
        as_many = counts[0][size] == counts[1][size]
        if nearest is not None and (as_many or _error(expected[nearest], alike[nearest]) <= tolerance):
            pairs[nearest] = alike[nearest]
    border = Border.of(oracle, [*returned, *(held[k] for k in pairs)], complete=len(pairs) == watched)
    known = [*every[:first], *(expected[k] for k in pairs)]
    return replace(border, elsewhere=True), known, [*found[:cut], *pairs.values()]


def _sizes(array: NDArray[Any]) -> tuple[int, ...]:
    return tuple(n for n in array.shape if n != 1)


def difference(
    border: Border, inputs: list[Any], found: Outputs, tolerance: float, expected: Outputs | None = None
) -> Difference:
    """What ``found``, computed in float32, differs by from the outputs of the masked graph (``expected``, if known)."""
    expected = run(border.oracle, inputs) if expected is None else expected
    errors = border.errors(expected, found)
    if max(errors) <= tolerance:
        return Difference(max(errors))
    if _explained(border, inputs, expected, errors, tolerance):
        return Difference(max(errors), rounding=True)
    free = border.decides and border.elsewhere and errors[1] <= tolerance and math.isfinite(max(errors))
    return Difference(max(errors), tied=free and border.has_equals(expected))


def refuse_chance(again: Callable[[], Outputs], tolerance: float, expected: Outputs | None = None) -> None:
    """Refuse to compare with a network that itself gives other outputs each time it runs.

    Raises
    ------
    ModelError
        One of a few runs more differs from ``expected``, which is the first one's where it is not given.
    """
    expected = again() if expected is None else expected
    for _ in range(_AGAIN):
        if not Difference(relative_error(expected, again())).within(tolerance):
            raise ModelError(
                "verifying: the model gives other outputs each time it runs, so nothing can be compared",
                hint="take random ops out of the model; without any, the runtime reads memory that it did not write",
            )


def _explained(
    border: Border, inputs: list[Any], expected: Outputs, errors: tuple[float, float], tolerance: float
) -> bool:
    """Whether the masked graph moves as far with its last digits; strictly at the border."""
    for seed in range(_NUDGES if border.decides else 1):
        moved = run(_shaken(border.oracle, seed), [_nudged(x, seed) for x in inputs])
        noises = border.errors(expected, moved)
        behind, at_border = (e <= tolerance or e <= _ROUNDINGS * n for e, n in zip(errors, noises, strict=True))
        calm = [noise < _CHAOS or error <= tolerance for error, noise in zip(errors, noises, strict=True)]
        if behind and at_border and calm[1] and (calm[0] or border.decides):
            return True
    return False


def _shaken(oracle: Graph, seed: int) -> Graph:
    """``oracle`` with weights changed in their last digits where inputs cannot be: they are integers, or wider."""
    short = {c.data.dtype for c in oracle.constants.values() if _digits_of(c.data.dtype) > _DIGITS}
    if graph_reads_inputs(oracle) and not short:
        return oracle
    shaken, scales = oracle.copy(), beside(oracle)
    for value, constant in oracle.constants.items():
        weights = constant.role == "parameter" and arrays.is_float(constant.data) and np.prod(constant.data.shape) > 1
        if weights and value not in scales:
            shaken.constants[value] = replace(constant, data=_nudged(constant.data, seed))
    return shaken


@dataclass(frozen=True)
class Decisions:
    """The floats that go into a graph's decisions and are whole in every plan; ``complete`` where all of them are."""

    border: tuple[Value, ...]
    complete: bool


def decisions(analysis: Analysis) -> Decisions:
    """What nodes read which decide or select: opaque ones, those that rank, thresholds.

    What lies behind a decision already shows which of two that are nearly equal came first, and is left out; what goes
    into it stands at the border.
    """
    made, behind = analysis.graph.producers(), _behind_decisions(analysis.graph)
    unknown = {o.node.name for o in analysis.opaque}
    at_border = (
        n
        for n in analysis.graph.nodes
        if n.op == "rank_along" or n.name in unknown or any(v in behind for v in n.outputs)
    )
    read = dict.fromkeys(v for n in at_border for v in reads(n) if v in made and v.dtype.startswith("float"))
    border = [v for v in read if v not in behind]
    shrinks = analysis.solution.may_shrink
    whole = tuple(v for v in border if not any(map(shrinks, analysis.axes.get(v) or ())))
    return Decisions(whole, len(whole) == len(border))


def _behind_decisions(graph: Graph) -> set[Value]:
    """Values that depend on integers or booleans which were computed from floats: positions, masks of a threshold.

    Only floats that depend on a parameter count: what follows from the inputs alone is the same in every plan.
    """
    learned = {v for v, c in graph.constants.items() if c.role == "parameter"}
    found: set[Value] = set()
    for node in graph.nodes:
        read = tuple(reads(node))
        if any(v in found for v in read):
            found.update(node.outputs)
        elif any(v in learned for v in read):
            learned.update(node.outputs)
            if not _sizes_or_codes(node) and any("float" in v.dtype for v in read):
                found.update(v for v in node.outputs if "int" in v.dtype or v.dtype == "bool")
    return found


def _sizes_or_codes(node: Node) -> bool:
    """Whether the integers that ``node`` makes are sizes, or stand for numbers."""
    op = OPS.get(node.op)
    return node.op in ("size", "fill") or (
        op is not None and (bool(op.coded(node)) or op.zero_point is not no_zero_point)
    )


def _nudged(x: Any, seed: int) -> Any:
    """Inputs changed in the last digits of their type."""
    array = arrays.to_numpy(x) if hasattr(x, "dtype") else np.zeros(0)
    if array.dtype.kind != "f":
        return x
    sign = np.random.default_rng(seed).choice([-1.0, 1.0], array.shape)
    return arrays.like(array * (1 + sign * _digits_of(x.dtype)), x)


def _digits_of(dtype: Any) -> float:
    """The last digits of a type, relative to a number."""
    return _LAST_DIGITS.get(str(dtype).removeprefix("torch."), _DIGITS)


def relative_error(expected: Outputs, found: Outputs) -> float:
    """The largest difference over all outputs, relative to the output's magnitude; inf where shapes differ.

    Integers (classes, positions) are equal or not: an output of which more than 1 % differ counts as an error of 1.
    """
    if len(expected) != len(found):
        return math.inf
    return max((_error(a, b) for a, b in zip(expected, found, strict=True)), default=0.0)


def _error(a: NDArray[Any], b: NDArray[Any]) -> float:
    if a.shape != b.shape:
        return math.inf
    if a.size == 0:
        return 0.0
    if a.dtype.kind not in "fc":
        return float(np.mean(a != b) > 0.01)
    with np.errstate(invalid="ignore"):  # what overflowed in the same way does not differ
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        apart = np.where(same, 0.0, np.abs(a.astype(np.float64) - b.astype(np.float64)))
    scale = max(float(np.abs(a[np.isfinite(a)]).max(initial=0.0)), float(np.finfo(np.float32).tiny))
    return float(apart.max()) / scale if np.isfinite(apart).all() else math.inf


def graph_reads_inputs(graph: Graph) -> bool:
    """Whether there are floating-point inputs, so that other inputs can give another output."""
    return any(v.dtype.startswith("float") for v in graph.inputs)


def run(graph: Graph, inputs: list[Any], double: bool = False) -> Outputs:
    """The outputs of ``graph``, run by the dialect's own runtime."""
    outputs: Outputs = runtime(graph).run(graph, inputs, double)
    return outputs
