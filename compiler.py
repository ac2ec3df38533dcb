"""One compile: a recipe run over a graph, what comes out emitted, verified in ONNX Runtime, measured and reported.

Reading models is no concern of this file (``models.py``), and a budget of latency tries many compiles
(``latency.py``).  Start at :meth:`Compiler.compile`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .artifact import Result
from .ir import arrays
from .ir.errors import ModelError, PrunecError, VerificationError
from .ir.graph import Graph
from .ir.packing.packing import PACKING
from .models import emitted_onnx, feeds
from .passes import verify as verification
from .passes.base import PASSES, Progress, State, revaluing
from .passes.groups import Groups, groups_of
from .passes.pack.folded import grown
from .passes.plan.plan import Plan
from .passes.runner import Runner
from .passes.target import Target
from .passes.values import kept
from .proofs import TIED, onnx_difference, source_difference
from .recipe import Recipe
from .report import Sizes, TorchFiles, build_report

if TYPE_CHECKING:
    from .ir.emit.onnx_external import Emitted
    from .runtime.copies import Moved

_TRIAL_S, _MEASURE_S = 1.5, 3.0
"""Seconds of measuring: of one trial, of what is reported."""


@dataclass(eq=False)
class Compiler:
    """One canonical graph being compiled: pipelines run over it, its dense form is emitted once.

    The options are those of :func:`prunec.compile`; ``tell`` gets each stage as it starts, ``seconds`` holds how long
    the stages outside the pipeline took, ``notes`` what they have to say.
    """

    dense: Graph
    target: Target
    seed: int
    verify: bool
    opset: int | None
    verify_each: bool
    print_after: tuple[str, ...]
    tell: Progress
    loss: Callable[..., Any] | None
    samples: Iterable[Any] | None
    targets: Iterable[Any] | None
    measure: bool
    seconds: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    _groups: Groups | None = None
    _dense_onnx: Emitted | None = None

    def compile(self, recipe: Recipe) -> Result:
        """The result of ``recipe``, verified, measured and reported as far as that was asked for."""
        state, runner = self._run(recipe, verify=self.verify)
        state.notes[:0] = self.notes
        groups: Groups = state.facts["groups"] if "groups" in state.facts else groups_of(self.dense)
        alive = state.facts.get("alive", groups.all_alive())
        held = state.facts.get("held", alive)
        found, plan = kept(state, groups), state.facts.get("plan")
        if plan is None and state.rewritings:
            plan = Plan.of(groups, groups.prunable[:0], {})  # a compact file says of what it is made
        result = Result(found, plan, {}, state.graph, state.deployed, self.opset)
        result.packing = state.facts.get("packing")
        steps = (step.name for step in runner.steps)
        result.values = revaluing(n for n in steps if not PASSES[n].may_revalue or n in state.values)
        if result.packing is not None and state.inference is not None:
            state.notes += grown(state.graph, state.inference, result.packing)
        verified: dict[str, Any] | None = state.facts.get("verified")
        has_onnx = verified is None or self._has_onnx(result, state)
        if verified is not None and has_onnx:
            verified = self._verify_emitted(result, groups, alive, verified, state.notes)
        state.notes += [*_fixed_sizes(self.dense), *self._other_runtime()]
        latency = self._latency(result, state) if self.measure and has_onnx else None
        moved = self._moved(result.emit()) if latency is not None else None
        if result.packing is not None and has_onnx:
            self._emit_packed(result, state)
        compact = result.emit() if result.emitted is not None else None
        sizes = Sizes(compact, self._dense_onnx, result.forms, self._torch_files(result), zipped=self.measure)
        result.report = build_report(groups, held, state, runner.steps, verified, latency, sizes, moved)
        return result

    def _other_runtime(self) -> Iterator[str]:
        """A note where what is measured is not what the target runs."""
        if self.measure and self.target.runtime != "onnxruntime":
            yield f"latency and copies are those of ONNX Runtime; {self.target.name} is {self.target.runtime}"

    def check_source(self, model: Any, read: Graph) -> None:
        """Refuse to go on where the dense graph does not compute what ``model`` does, of which it was ``read``."""
        tolerance = verification.Verify().tolerance
        with self._timed("verify_source", "verify source"):
            by, why = source_difference(model, read, self.dense, self.seed, tolerance)
        if why is not None:
            self.notes.append(f"verify: the model itself did not run ({why}), so that what was read stood in for it")
        if not by.within(tolerance):
            raise VerificationError(
                f"verifying what was read: the dense graph differs from the model by {by.error:.2g} relative "
                f"(allowed {tolerance:g})",
                hint="this is a bug in prunec, nothing was written; please report it with the model",
                max_rel_err=by.error,
            )

    def _run(self, recipe: Recipe, *, verify: bool) -> tuple[State, Runner]:
        context = {"loss": self.loss, "samples": self.samples, "targets": self.targets}
        state = State(self.dense, self.dense, self.target, self.seed, context=context, tell=self.tell)
        if (packing := self.dense.source.get(PACKING)) is not None:
            state.facts["packing"] = packing  # what was packed stays so
        known = {"canonical"}
        if self._groups is not None:
            state.facts["groups"] = self._groups
            known.add("groups")
        skip = frozenset() if verify else frozenset({"verify"})
        runner = Runner(self.verify_each, self.print_after, self.tell, print, ensured=known, skip=skip)
        runner.run(recipe, state)
        found: Groups | None = state.facts.get("groups")
        if found is not None and found.analysis.graph is self.dense:
            self._groups = found  # no pass gave weights other numbers
        return state, runner

    def _torch_files(self, result: Result) -> TorchFiles | None:
        """The torch weights of both networks on disk; None where nothing is packed, or there are none."""
        graph = result.graph
        if result.packing is None or graph is None or graph.dialect != "fx":
            return None
        if any(arrays.is_meta(c.data) for c in graph.constants.values()):
            return None
        from .ir.serial import weights_file

        with self._timed("pack", "pack"):
            return TorchFiles(weights_file(graph, result.packing), weights_file(self.dense))

    def _has_onnx(self, result: Result, state: State) -> bool:
        """Whether the network has an ONNX form; a note where a torch module has none."""
        try:
            self._emit(result)
        except ModelError as error:
            if self.dense.dialect == "onnx":
                raise
            lost = ", and latency was not measured" if self.measure else ""
            state.notes.append(f"verified in torch alone{lost}, for it has no ONNX form: {error.message}")
            return False
        return True

    def _verify_emitted(
        self, result: Result, groups: Groups, alive: Any, report: dict[str, Any], notes: list[str]
    ) -> dict[str, Any]:
        """The emitted ONNX, in ONNX Runtime, against the masked dense graph."""
        model = self._emit(result)
        with self._timed("verify_onnx", "verify onnx"):
            graph = groups.analysis.graph
            inputs = verification.other_batch(graph, verification.sample_inputs(graph, self.seed))
            by, _ = onnx_difference(model, groups, alive, inputs, "the emitted ONNX model", report["tolerance"])
        if not by.within(report["tolerance"]):
            raise VerificationError(
                f"verifying the emitted ONNX in ONNX Runtime: it differs from the masked model by {by.error:.2g} "
                f"relative (allowed {report['tolerance']:g})",
                hint="nothing was written; please report it with the model",
                max_rel_err=by.error,
            )
        if by.tied:
            notes.append(f"{TIED}, but in torch")
            return {**report, "tied": True, "onnx_rel_err": by.error}
        worst, rounding = max(report["max_rel_err"], by.error), report["rounding"] or by.rounding
        return {**report, "max_rel_err": worst, "onnx_rel_err": by.error, "rounding": rounding}

    @contextmanager
    def _timed(self, key: str, stage: str) -> Iterator[None]:
        """Tell that ``stage`` starts, and add its seconds under ``key``."""
        self.tell(stage, "")
        start = time.perf_counter()
        yield
        self.seconds[key] = self.seconds.get(key, 0) + time.perf_counter() - start

    def _emit(self, result: Result) -> Emitted:
        if result.emitted is None:
            with self._timed("emit", "emit"):
                return result.emit()
        return result.emitted

    def _emit_packed(self, result: Result, state: State) -> None:
        """Both networks as ONNX, whose bytes say what packing is for; a note where there is no such form."""
        try:
            self._emit_dense()
            self._emit(result)
        except ModelError as error:
            state.notes.append(f"size_bytes are those of the weights, not packed, for {error.message}")

    def _emit_dense(self) -> Emitted:
        """The dense graph as ONNX, emitted once."""
        if self._dense_onnx is None:
            with self._timed("emit_dense", "emit dense"):
                self._dense_onnx = emitted_onnx(self.dense, self.opset)
        return self._dense_onnx

    def _latency(self, result: Result, state: State) -> dict[str, Any] | None:
        """Dense against compact in ONNX Runtime; None, with a note, where the model has no ONNX form."""
        try:
            return self._compare(self._emit(result), _MEASURE_S)
        except PrunecError as error:
            state.notes.append(f"latency was not measured: {error.message}")
            return None

    def _compare(self, compact: Emitted, budget_s: float) -> dict[str, Any]:
        from .runtime.profile import compare

        dense = self._emit_dense()
        inputs = _feeds(self.dense, dense, self.seed)
        with self._timed("measure", "measure"):
            return compare(dense, compact, inputs, inputs, budget_s=budget_s, seed=self.seed).as_dict()

    def _moved(self, compact: Emitted) -> Moved:
        """What dense and compact move at run time."""
        from .runtime.copies import moved

        with self._timed("measure", "measure copies"):
            return moved(self._emit_dense(), compact, _feeds(self.dense, self._emit_dense(), self.seed))

    def trial(self, macs: float) -> float:
        """The measured latency, compact/dense, of a budget of MACs.

        Raises
        ------
        BudgetError
            No plan is that small.
        """
        state, _ = self._run(Recipe.default(macs=macs), verify=False)
        ratio: float = self._compare(emitted_onnx(state.deployed, self.opset), _TRIAL_S)["ratio"]
        return ratio


def _fixed_sizes(graph: Graph) -> Iterator[str]:
    """A note on sizes that the source leaves open and the graph does not."""
    if graph.dialect == "fx" and not any(v.dynamic for v in graph.inputs):
        yield "sizes are those of the example inputs, the batch too: the export has no dynamic axis"
    if fixed := graph.source.get("fixed_sizes"):
        sizes = ", ".join(f"{name} = {size}" for name, size in fixed.items())
        yield f"open sizes of the file are fixed now, for it could not be read with others: {sizes}"


def _feeds(graph: Graph, model: Emitted, seed: int) -> dict[str, Any]:
    """Inputs for measuring: the graph's sample with a batch of one where the batch is dynamic."""
    return feeds(model, graph, verification.one_example(graph, verification.sample_inputs(graph, seed)))
