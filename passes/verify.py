"""Verify: the compact graph equals the masked dense graph, and the check could have failed.

Masked means: every parameter element that did not survive is zero, and norms and reductions see survivors alone.  Both
graphs run on the same random inputs, once with the model's own weights and once with degenerate ones (zero heads,
default batch norm) replaced by random ones, so that no zero hides a mistake.  The check must see that the output
depends on the input and that the mask moves it.  On small graphs each unit is dropped alone as well.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..ir import arrays
from ..ir.analysis import Analysis, touching
from ..ir.codes import beside
from ..ir.dialects import runtime
from ..ir.errors import EndlessRun, ModelError, VerificationError, first_line
from ..ir.graph import Constant, Graph, Node, Value
from ..ir.opset import OPS, Alive
from .base import Kind, Pass, State, register
from .difference import (
    Border,
    Difference,
    Outputs,
    decisions,
    difference,
    graph_reads_inputs,
    refuse_chance,
    relative_error,
    run,
)
from .groups import Groups, Units
from .rewrite import eliminate, mask

_DOUBLE_MACS, _DOUBLE_PARAMS = 2e9, 1e8
_SLOW_IN_DOUBLE = 200
"""How many times longer torch takes for a depthwise multiply-accumulate in float64 than for a dense one."""

_SIZES_OF_INPUTS = (1.0, 16.0, 1.0 / 16)
"""Small numbers may vanish in what clips or quantises, large ones saturate."""

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
        macs = self.groups.cost.macs(self.groups.all_alive()) + _SLOW_IN_DOUBLE * _depthwise_macs(self.analysis.graph)
        self.has_double = bool(runtime(self.analysis.graph).DOUBLE)
        small = macs < _DOUBLE_MACS and self.groups.cost.params(self.groups.all_alive()) < _DOUBLE_PARAMS
        self.double = self.has_double and small
        self.decisions = decisions(self.analysis)
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
        return [v for v in self.decisions.border if all(v in each for each in made)]

    def _own_weights(self) -> None:
        self.state.tell("verify", "with the model's own weights")
        inputs = sample_inputs(self.analysis.graph, self.state.seed)
        oracle = mask(self.analysis, self.alive)
        expected = self.run(oracle, inputs)
        outputs = expected[: len(expected) - self._border(oracle).watched]
        if not all(np.isfinite(x).all() for x in outputs if x.dtype.kind == "f"):
            raise ModelError(
                "verifying: the masked model gives NaN or infinite outputs", hint="check the model's weights and inputs"
            )
        self._compare(oracle, expected, self.state.graph, inputs, "with the model's own weights")
        if self.state.inference is not None:
            self._compare(oracle, expected, self.state.inference, inputs, "in the graph for inference")

    def _random_weights(self) -> None:
        self.state.tell("verify", "with random weights")
        analysis, dense, answers = self._responding()
        oracle = _Runs(self, mask(analysis, self.alive), dense.inputs)
        compact = self._compact(analysis)
        moves = _size_that_differs(dense, oracle)
        for size in dict.fromkeys(size for size in (1.0, answers, moves) if size is not None):
            masked = oracle.at(size)
            self._compare(oracle.graph, masked, compact, _scaled(dense.inputs, size), "with random weights")
        if self.alive.all() or not any(x.dtype.kind == "f" for x in masked):
            return  # of positions and classes alone, equal ones do not mean that nothing moved
        if answers is None and graph_reads_inputs(dense.graph):
            raise VerificationError(
                "verifying: the output does not depend on the input, so the check could not fail",
                hint="check the example inputs; a constant network cannot be verified",
            )
        if moves is None:
            raise VerificationError(
                "verifying: the mask does not move the output, so the check could not fail",
                hint="the planned units do not reach an output; drop others (plan{ignore=…}), or skip verify",
            )

    def _responding(self) -> tuple[Analysis, _Runs, float | None]:
        """The dense graph with weights under which it answers to its inputs, its runs on some, and the size of those
        to which it does."""
        for weights in (randomised, audible):
            fresh = weights(self.analysis.graph, self.state.seed)
            analysis = with_constants(self.analysis, filled(self.analysis, self.alive, fresh, self.state.seed))
            graph, seed = analysis.graph, self.state.seed
            one, other = (_Runs(self, graph, sample_inputs(graph, seed + k)) for k in (1, 2))
            if (answers := _size_that_differs(one, other)) is not None:
                break
        return analysis, one, answers

    def _compact(self, analysis: Analysis) -> Graph:
        """The analysed graph without the dead positions, its channels in the parts and order of the pipeline."""
        compact = eliminate(analysis, self.alive, self.state.facts.get("held"))
        for rewriting in self.state.rewritings:
            compact = rewriting.applied(compact)
        return compact

    def _each_unit_alone(self) -> None:
        units = self.groups.prunable
        params = self.groups.cost.params(self.groups.all_alive())
        if params > _SMALL_PARAMS or not self.double:
            return
        self.state.tell("verify", "with units dropped alone")
        analysis = with_constants(self.analysis, randomised(self.analysis.graph, self.state.seed))
        inputs = sample_inputs(analysis.graph, self.state.seed)
        rng = np.random.default_rng(self.state.seed)
        for unit in rng.permutation(units)[:_SMALL_UNITS]:
            alive = self.groups.alive(np.array([unit]))
            if _vanishes(self.groups, alive):
                continue
            oracle = mask(analysis, alive)
            masked = self.run(oracle, inputs)
            self._compare(oracle, masked, eliminate(analysis, alive), inputs, f"with unit {unit} dropped alone")

    def run(self, graph: Graph, inputs: list[Any]) -> Outputs:
        """The outputs of ``graph``, then what is watched; in float64 until that does not run."""
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
            found = self.run(graph, inputs)
        except EndlessRun:
            raise
        except (RuntimeError, ModelError) as crash:
            raise VerificationError(
                f"verifying {how}: the compact graph does not run: {first_line(crash)}",
                hint="this is a bug in prunec, nothing was written; please report it with the model",
            ) from crash
        by = Difference(relative_error(expected, found))
        if not by.within(self.tolerance) and not self.double:
            by = self._beyond_rounding(oracle, expected, graph, inputs, found)
        self.worst, self.rounding = max(self.worst, by.error), self.rounding or by.rounding
        self.checked += sum(x.size for x in expected)
        if not by.within(self.tolerance):
            refuse_chance(lambda: self.run(oracle, inputs), self.tolerance, expected)
            raise VerificationError(
                f"verifying {how}: the compact graph differs from the masked one by {by.error:.2g} relative "
                f"(allowed {self.tolerance:g})",
                hint="this is a bug in prunec, nothing was written; please report it with the model",
                max_rel_err=by.error,
            )

    def _beyond_rounding(
        self, oracle: Graph, expected: Outputs, graph: Graph, inputs: list[Any], found: Outputs
    ) -> Difference:
        """What is measured in float64 where that runs; else the error, and whether rounding explains it."""
        try:
            if self.has_double:
                return Difference(relative_error(run(oracle, inputs, double=True), run(graph, inputs, double=True)))
        except RuntimeError:  # an op without a float64 kernel
            self.has_double = False
        return difference(self._border(oracle), inputs, found, self.tolerance, expected)

    def _border(self, oracle: Graph) -> Border:
        complete = self.decisions.complete and len(self.watched) == len(self.decisions.border)
        return Border.of(oracle, self.watched, complete)


class _Runs:
    """What one graph gives for its inputs at several sizes: each is run once."""

    def __init__(self, proof: _Proof, graph: Graph, inputs: list[Any]) -> None:
        self.proof, self.graph, self.inputs = proof, graph, inputs
        self.found: dict[tuple[float, bool], Outputs] = {}

    def at(self, size: float) -> Outputs:
        """The outputs for floating-point inputs ``size`` times as large, in the precision of the proof by now."""
        key = (size, self.proof.double)
        if key not in self.found:
            self.found[key] = self.proof.run(self.graph, _scaled(self.inputs, size))
        return self.found[key]


def _size_that_differs(a: _Runs, b: _Runs) -> float | None:
    """The first size of inputs at which two graphs give anything that differs; None where there is none."""
    return next((size for size in _SIZES_OF_INPUTS if _moved(a.at(size), b.at(size))), None)


def _moved(a: Outputs, b: Outputs) -> bool:
    """Whether any output differs, in its shape or in a number."""
    if len(a) != len(b):  # an optional or a sequence
        return True
    pairs = list(zip(a, b, strict=True))
    return any(x.shape != y.shape or _apart(x, y) for x, y in pairs if x.dtype.kind == "f")


def _apart(x: NDArray[Any], y: NDArray[Any]) -> bool:
    """Whether any number differs: what overflowed says nothing."""
    return bool((np.isfinite(x) & np.isfinite(y) & (x != y)).any())


def _scaled(inputs: list[Any], size: float) -> list[Any]:
    """Floating-point inputs ``size`` times as large."""
    return [arrays.like(arrays.to_numpy(x) * size, x) if _is_float(x) else x for x in inputs]


def _is_float(x: Any) -> bool:
    return hasattr(x, "dtype") and arrays.is_float(x)


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
    return np.intersect1d(np.concatenate(found), np.flatnonzero(touching(groups.analysis, solution)))


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
    fresh = {v: c if v in scales else _randomised(c, rng) for v, c in graph.constants.items()}
    return fresh | {v: replace(c, data=arrays.like(np.ones(c.data.shape), c.data)) for v, c in _silent_gains(graph)}


def _silent_gains(graph: Graph) -> Iterator[tuple[Value, Constant]]:
    """Gains of zero, one number each, that a branch is multiplied by: with them nothing of the branch shows."""
    readers = graph.consumers()
    for value, constant in graph.constants.items():
        single = constant.role == "parameter" and arrays.is_float(constant.data) and np.prod(constant.data.shape) == 1
        silent = single and not arrays.to_numpy(constant.data).any()
        if silent and any(_silences(graph, node, value) for node in readers.get(value, ())):
            yield value, constant


def _silences(graph: Graph, node: Node, gain: Value) -> bool:
    """Whether ``node`` gives zero wherever its operand ``gain`` is zero, whatever the others are."""
    operands = [v for v in node.inputs if v is not None]
    if node.op != "elementwise" or len(operands) < 2:
        return False
    numbers = ([np.array([0.0 if v == gain else probe]) for v in operands] for probe in (0.7, -1.3))
    found = [runtime(graph).evaluate(graph, node, each) for each in numbers]
    return all(x is not None and not x.any() for x in found)


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


def filled(analysis: Analysis, alive: Alive, constants: Mapping[Value, Constant], seed: int) -> dict[Value, Constant]:
    """``constants`` with random numbers for what is dropped of a parameter, where all of that is zero already.

    What is compared never sees them; without them no mask would move the output of a network that it was taken from.
    """
    rng = np.random.default_rng(seed)
    return {v: _filled(c, analysis.kept(v, alive), rng) for v, c in constants.items()}


def _filled(constant: Constant, kept: tuple[NDArray[Any] | None, ...], rng: np.random.Generator) -> Constant:
    data = constant.data
    if constant.role != "parameter" or not arrays.is_float(data) or all(k is None for k in kept):
        return constant
    array = arrays.to_numpy(data)
    stays = arrays.masked(np.ones(array.shape, bool), kept)
    if stays.all() or array[~stays].any():
        return constant
    size = float(np.sqrt(np.mean(np.square(array[stays], dtype=np.float64)))) if stays.any() else 0.0
    fresh = rng.uniform(0.5, 1.5, array.shape) * (size or 1.0)
    return replace(constant, data=arrays.alike(np.where(stays, array, fresh), data))


def audible(graph: Graph, seed: int) -> dict[Any, Constant]:
    """The constants of :func:`randomised`, faint parameters scaled up so that what passes keeps its size.

    Through many layers of faint weights (a network that was just initialised) the input drowns in the last bias.
    """
    scales = beside(graph)
    return {v: c if v in scales else _audible(c) for v, c in randomised(graph, seed).items()}


def _audible(constant: Constant) -> Constant:
    if constant.role != "parameter" or not arrays.is_float(constant.data):
        return constant
    array = arrays.to_numpy(constant.data)
    size = float(np.sqrt(np.mean(np.square(array, dtype=np.float64)))) if array.size else 0.0
    passing = np.sqrt(2 / max(1, array[0].size)) if array.ndim > 1 else 1.0
    if not 0 < size < passing / 2:
        return constant
    return replace(constant, data=arrays.like(array * (passing / size), constant.data))


def sample_inputs(graph: Graph, seed: int) -> list[Any]:
    """Random inputs for ``graph``, from the seed."""
    inputs: list[Any] = runtime(graph).sample_inputs(graph, seed)
    return inputs


def _depthwise_macs(graph: Graph) -> float:
    """Multiply-accumulates of convolutions in which each channel is a group."""
    weighted = ((n.output, n.inputs[1]) for n in graph.nodes if n.op == "conv")
    shapes = ((result.shape or (), weight.shape or ()) for result, weight in weighted if weight is not None)
    return float(sum(math.prod(out) * math.prod(w[2:]) for out, w in shapes if len(w) > 2 and w[1] == 1))


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
