"""Verify: the compact graph equals the masked dense graph, and the check could have failed.

Masked means: every parameter element that did not survive is zero, and norms and reductions see survivors alone.  Both
graphs run on the same random inputs, once with the model's own weights and once with degenerate ones (zero heads,
default batch norm) replaced by random ones, so that no zero hides a mistake.  The check must see that the output
depends on the input and that the mask moves it.  On small graphs each unit is dropped alone as well.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..ir import arrays
from ..ir.analysis import Analysis
from ..ir.codes import beside
from ..ir.dialects import runtime
from ..ir.errors import ModelError, VerificationError, first_line
from ..ir.graph import Constant, Graph, Value, reads
from ..ir.opset import OPS, Alive
from .base import Kind, Pass, State, register
from .groups import Groups, Units
from .rewrite import eliminate, mask

Outputs = list[NDArray[Any]]
_DOUBLE_MACS, _DOUBLE_PARAMS = 2e9, 1e8
_ROUNDINGS, _NUDGES, _CHAOS = 10.0, 3, 0.1
_SIZES_OF_INPUTS = (1.0, 16.0, 1.0 / 16)
"""Small numbers may vanish in what clips or quantises, large ones saturate."""

_DIGITS, _LAST_DIGITS = 1e-6, {"float16": 2e-3, "bfloat16": 1.6e-2}
_SMALL_PARAMS, _SMALL_UNITS = 50_000, 24


@register
@dataclass(frozen=True)
class Verify(Pass):
    """Prove that the compact graph equals the masked dense graph.

    tolerance: the largest relative error allowed, of the largest magnitude of each output.
    """

    tolerance: float = 1e-4

    name: ClassVar[str] = "verify"
    kind: ClassVar[Kind] = "analysis"
    requires: ClassVar[frozenset[str]] = frozenset({"groups"})
    ensures: ClassVar[frozenset[str]] = frozenset({"verified"})
    requires_choice: ClassVar[bool] = True

    def run(self, state: State) -> dict[str, Any]:
        return _Proof(state, self.tolerance).report()


class _Proof:
    def __init__(self, state: State, tolerance: float) -> None:
        self.state, self.tolerance = state, tolerance
        self.groups: Groups = state.facts["groups"]
        self.analysis = self.groups.analysis
        self.alive: Alive = state.facts.get("alive", self.groups.all_alive())
        macs = self.groups.cost.macs(self.groups.all_alive())
        self.has_double = bool(runtime(self.analysis.graph).DOUBLE)
        small = macs < _DOUBLE_MACS and self.groups.cost.params(self.groups.all_alive()) < _DOUBLE_PARAMS
        self.double = self.has_double and small
        self.watched = self._watched()
        self.worst = 0.0
        self.rounding = False
        self.checked = 0

    def report(self) -> dict[str, Any]:
        for constant in self.analysis.graph.constants.values():
            arrays.require_values(constant.data)
        self._own_weights()
        self._random_weights()
        self._each_unit_alone()
        return {
            "ok": True,
            "max_rel_err": self.worst,
            "rounding": self.rounding,
            "checked": self.checked,
            "norm_tied": int(norm_tied(self.groups).size),
            "precision": "float64" if self.double else "float32",
            "tolerance": self.tolerance,
        }

    def _watched(self) -> list[Value]:
        """What selecting nodes read, as far as every graph compared has it.

        Boxes and scores show what the few that are selected from them, or none, would hide.
        """
        graphs = [self.state.graph, *([self.state.inference] if self.state.inference is not None else [])]
        made = [graph.producers().keys() for graph in graphs]
        return [v for v in selected_from(self.analysis) if all(v in each for each in made)]

    def _own_weights(self) -> None:
        inputs = sample_inputs(self.analysis.graph, self.state.seed)
        oracle = mask(self.analysis, self.alive)
        expected = self._run(oracle, inputs)
        if not all(np.isfinite(x).all() for x in expected if x.dtype.kind == "f"):
            raise ModelError(
                "verifying: the masked model gives NaN or infinite outputs", hint="check the model's weights and inputs"
            )
        self._compare(oracle, expected, self.state.graph, inputs, "with the model's own weights")
        if self.state.inference is not None:
            self._compare(oracle, expected, self.state.inference, inputs, "in the graph for inference")

    def _random_weights(self) -> None:
        analysis, answers = self._responding()
        dense, seed = analysis.graph, self.state.seed
        inputs = sample_inputs(dense, seed + 1)
        oracle = mask(analysis, self.alive)
        masked = self._run(oracle, inputs)
        self._compare(oracle, masked, eliminate(analysis, self.alive), inputs, "with random weights")
        if not any(x.dtype.kind == "f" for x in masked):
            return  # positions and classes alone: equal ones do not mean that nothing moved
        if self.alive.all():
            return
        if not answers and graph_reads_inputs(dense):
            raise VerificationError(
                "verifying: the output does not depend on the input, so the check could not fail",
                hint="check the example inputs; a constant network cannot be verified",
            )
        if not self._differ(dense, inputs, oracle, inputs):
            raise VerificationError(
                "verifying: the mask does not move the output, so the check could not fail",
                hint="the planned units do not reach an output; drop others (plan{ignore=…}), or skip verify",
            )

    def _responding(self) -> tuple[Analysis, bool]:
        """The dense graph with weights under which it answers to its inputs; whether it does answer."""
        for weights in (randomised, audible):
            analysis = with_constants(self.analysis, weights(self.analysis.graph, self.state.seed))
            graph, seed = analysis.graph, self.state.seed
            if answers := self._differ(graph, sample_inputs(graph, seed + 1), graph, sample_inputs(graph, seed + 2)):
                break
        return analysis, answers

    def _differ(self, a: Graph, x: list[Any], b: Graph, y: list[Any]) -> bool:
        """Whether two graphs on their inputs give anything that differs; inputs of other sizes are tried as well."""
        found = ((self._run(a, _scaled(x, size)), self._run(b, _scaled(y, size))) for size in _SIZES_OF_INPUTS)
        return any(_moved(p, q) for p, q in found)

    def _each_unit_alone(self) -> None:
        units = self.groups.prunable
        params = self.groups.cost.params(self.groups.all_alive())
        if params > _SMALL_PARAMS or not self.double:
            return
        analysis = with_constants(self.analysis, randomised(self.analysis.graph, self.state.seed))
        inputs = sample_inputs(analysis.graph, self.state.seed)
        rng = np.random.default_rng(self.state.seed)
        for unit in rng.permutation(units)[:_SMALL_UNITS]:
            alive = self.groups.alive(np.array([unit]))
            if _vanishes(self.groups, alive):
                continue
            oracle = mask(analysis, alive)
            masked = self._run(oracle, inputs)
            self._compare(oracle, masked, eliminate(analysis, alive), inputs, f"with unit {unit} dropped alone")

    def _run(self, graph: Graph, inputs: list[Any]) -> Outputs:
        graph = runtime(graph).observing(graph, self.watched)
        if self.double:
            try:
                return run(graph, inputs, double=True)
            except RuntimeError:  # an op without a float64 kernel, or a cast in the model itself
                self.double = False
        return run(graph, inputs)

    def _compare(self, oracle: Graph, expected: Outputs, graph: Graph, inputs: list[Any], how: str) -> None:
        """Run ``graph`` and compare it with what ``oracle`` gave."""
        try:
            found = self._run(graph, inputs)
        except (RuntimeError, ModelError) as crash:
            raise VerificationError(
                f"verifying {how}: the compact graph does not run: {first_line(crash)}",
                hint="this is a bug in prunec, nothing was written; please report it with the model",
            ) from crash
        by = Difference(relative_error(expected, found))
        if not by.within(self.tolerance) and not self.double:
            by = self._beyond_rounding(oracle, graph, inputs, by.error)
        self.worst, self.rounding = max(self.worst, by.error), self.rounding or by.rounding
        self.checked += sum(x.size for x in expected)
        if not by.within(self.tolerance):
            self._refuse_chance(oracle, expected, inputs)
            raise VerificationError(
                f"verifying {how}: the compact graph differs from the masked one by {by.error:.2g} relative "
                f"(allowed {self.tolerance:g})",
                hint="this is a bug in prunec, nothing was written; please report it with the model",
                max_rel_err=by.error,
            )

    def _refuse_chance(self, oracle: Graph, expected: Outputs, inputs: list[Any]) -> None:
        """Nothing can be compared where the masked graph itself gives other outputs each time."""
        if not Difference(relative_error(expected, self._run(oracle, inputs))).within(self.tolerance):
            raise ModelError(
                "verifying: the model gives other outputs each time it runs, so nothing can be compared",
                hint="take random ops out of the model; without any, the runtime reads memory that it did not write",
            )

    def _beyond_rounding(self, oracle: Graph, graph: Graph, inputs: list[Any], error: float) -> Difference:
        """What is measured in float64 where that runs; else ``error``, and whether rounding explains it."""
        try:
            if self.has_double:
                return Difference(relative_error(run(oracle, inputs, double=True), run(graph, inputs, double=True)))
        except RuntimeError:  # an op without a float64 kernel
            self.has_double = False
        return Difference(error, explained(oracle, inputs, error, selects=bool(self.watched)))


@dataclass(frozen=True)
class Difference:
    """How far outputs are from the masked graph's: the ``error`` as measured, and whether it is ``rounding`` alone."""

    error: float
    rounding: bool = False

    def within(self, tolerance: float) -> bool:
        return self.rounding or self.error <= tolerance


def difference(oracle: Graph, inputs: list[Any], found: Outputs, tolerance: float, selects: bool = False) -> Difference:
    """What ``found``, computed in float32, differs by from the outputs of ``oracle``."""
    error = relative_error(run(oracle, inputs), found)
    return Difference(error, error > tolerance and explained(oracle, inputs, error, selects))


def explained(oracle: Graph, inputs: list[Any], error: float, selects: bool = False) -> bool:
    """Whether rounding explains an ``error`` in float32: the masked graph itself moves so with its last digits.

    Where the graph ``selects`` (boxes above a threshold, the k largest), a last digit may change what is selected, and
    how much; elsewhere a graph that moves far with its last digits would hide mistakes.
    """
    expected = run(oracle, inputs)
    for seed in range(_NUDGES if selects else 1):
        noise = relative_error(expected, run(_shaken(oracle, seed), [_nudged(x, seed) for x in inputs]))
        if error <= _ROUNDINGS * noise and (selects or noise < _CHAOS):
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


def selected_from(analysis: Analysis) -> list[Value]:
    """Floats, computed and whole, that nodes read which select: opaque ones, and those that rank."""
    nodes = [o.node for o in analysis.opaque] + [n for n in analysis.graph.nodes if n.op == "rank_along"]
    made = analysis.graph.producers()
    return list(dict.fromkeys(v for n in nodes for v in reads(n) if v in made and v.dtype.startswith("float")))


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
        return float("inf")
    worst = 0.0
    for a, b in zip(expected, found, strict=True):
        if a.shape != b.shape:
            return float("inf")
        if a.size == 0:
            continue
        if a.dtype.kind not in "fc":
            worst = max(worst, float(np.mean(a != b) > 0.01))
            continue
        difference = np.abs(a.astype(np.float64) - b.astype(np.float64))
        scale = max(float(np.abs(a).max()), float(np.finfo(np.float32).tiny))
        worst = max(worst, float("inf") if not np.isfinite(difference).all() else float(difference.max()) / scale)
    return worst


def _moved(a: Outputs, b: Outputs) -> bool:
    """Whether any output differs, in its shape or in a number."""
    if len(a) != len(b):  # an optional or a sequence
        return True
    pairs = list(zip(a, b, strict=True))
    return any(x.shape != y.shape or bool((x != y).any()) for x, y in pairs if x.dtype.kind == "f")


def _scaled(inputs: list[Any], size: float) -> list[Any]:
    """Floating-point inputs ``size`` times as large."""
    return [arrays.like(arrays.to_numpy(x) * size, x) if _is_float(x) else x for x in inputs]


def _is_float(x: Any) -> bool:
    return hasattr(x, "dtype") and arrays.is_float(x)


def graph_reads_inputs(graph: Graph) -> bool:
    """Whether there are floating-point inputs, so that other inputs can give another output."""
    return any(v.dtype.startswith("float") for v in graph.inputs)


def _vanishes(groups: Groups, alive: Alive) -> bool:
    return any(axis.size and not alive[axis].any() for axes in groups.analysis.axes.values() for axis in axes or ())


def norm_tied(groups: Groups) -> Units:
    """Units on an axis that is normalised or reduced over: for them removing is not zeroing."""
    solution = groups.analysis.solution
    found: list[NDArray[Any]] = [np.zeros(0, np.int64)]
    for site in groups.analysis.sites.values():
        op = OPS.get(site.node.op)
        for k, dims in op.normalised_axes(site.node).items() if op else ():
            for d in dims:
                found.append(solution.needs((site.operands[k] or [])[d])[1])
    return np.intersect1d(np.concatenate(found), groups.prunable)


# ---------------------------------------------------------------------- weights that hide nothing


def with_constants(analysis: Analysis, constants: dict[Any, Constant]) -> Analysis:
    """The same analysis over a graph with other data in its constants."""
    graph = analysis.graph.copy()
    graph.constants = constants
    return analysis.over(graph)


def randomised(graph: Graph, seed: int) -> dict[Any, Constant]:
    """The constants with degenerate ones (all equal, or tiny) replaced by random values of a sensible size."""
    rng = np.random.default_rng(seed)
    scales = beside(graph)
    return {v: c if v in scales else _randomised(c, rng) for v, c in graph.constants.items()}


def _randomised(constant: Constant, rng: np.random.Generator) -> Constant:
    data = constant.data
    if constant.role == "literal" or not arrays.is_float(data) or np.prod(data.shape) < 2:
        return constant
    low, high = arrays.extremes(data)
    if low != high and max(abs(low), abs(high)) > 1e-4:
        return constant
    if low > 0 or constant.name.endswith("var"):
        fresh = rng.uniform(0.5, 1.5, data.shape)
    else:
        fresh = rng.normal(0, np.sqrt(2 / max(1, math.prod(data.shape[1:]))) if data.ndim > 1 else 0.1, data.shape)
    return replace(constant, data=arrays.like(fresh, data))


def audible(graph: Graph, seed: int) -> dict[Any, Constant]:
    """The constants of :func:`randomised`, faint parameters scaled up so that what passes keeps its size.

    Through many layers of faint weights (a network that was just initialised) the input drowns in the last bias.
    """
    return {v: _audible(c) for v, c in randomised(graph, seed).items()}


def _audible(constant: Constant) -> Constant:
    if constant.role != "parameter" or not arrays.is_float(constant.data):
        return constant
    array = arrays.to_numpy(constant.data)
    size = float(np.sqrt(np.mean(np.square(array, dtype=np.float64)))) if array.size else 0.0
    passing = np.sqrt(2 / max(1, array[0].size)) if array.ndim > 1 else 1.0
    if not 0 < size < passing / 2:
        return constant
    return replace(constant, data=arrays.like(array * (passing / size), constant.data))


def run(graph: Graph, inputs: list[Any], double: bool = False) -> Outputs:
    """The outputs of ``graph``, run by the dialect's own runtime."""
    outputs: Outputs = runtime(graph).run(graph, inputs, double)
    return outputs


def sample_inputs(graph: Graph, seed: int) -> list[Any]:
    """Random inputs for ``graph``, from the seed."""
    inputs: list[Any] = runtime(graph).sample_inputs(graph, seed)
    return inputs


def other_batch(graph: Graph, inputs: list[Any]) -> list[Any]:
    """The inputs with one example more where the batch is dynamic: a size that was fixed by mistake shows."""
    axes = runtime(graph).batch_axes(graph)
    return [x if d is None else _with_one_more(x, d) for x, d in zip(inputs, axes, strict=True)]


def one_example(graph: Graph, inputs: list[Any]) -> list[Any]:
    """The inputs with a batch of one where the batch is dynamic."""
    axes = runtime(graph).batch_axes(graph)
    return [x if d is None else x[(slice(None),) * d + (slice(1),)] for x, d in zip(inputs, axes, strict=True)]


def _with_one_more(x: Any, axis: int) -> Any:
    array = arrays.to_numpy(x)
    return arrays.like(np.concatenate([array, array.take([0], axis)], axis), x)
