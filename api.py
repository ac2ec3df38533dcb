"""The Python interface: :func:`compile` and what goes with it.

A compile reads a model into a graph, runs a pipeline of passes over it, emits the compact network, proves that it
equals the masked original and measures it.  Each step is a function here; the work is done in ``ir``, ``passes`` and
``runtime``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import artifact
from .ir import arrays
from .ir.analysis import analyse
from .ir.errors import BudgetError, ModelError, PrunecError, UsageError, VerificationError
from .ir.graph import Graph
from .ir.opset import OPS
from .passes import verify as verification
from .passes.base import State
from .passes.canonicalize import canonical
from .passes.groups import Groups, describe, find_groups
from .passes.plan.plan import Plan
from .passes.rewrite import Kept, kept_indices, mask, named
from .passes.runner import Runner
from .passes.score.scoring import criterion
from .passes.target import find_target
from .recipe import Recipe
from .report import Sizes, build_report, versions

if TYPE_CHECKING:
    import onnx
    import torch

Progress = Callable[[str, str], None]
_BUDGETS = ("ratio", "macs", "params", "latency")
_DEFAULT_RATIO = 0.5
_LATENCY_TRIALS = 6


@dataclass(eq=False)
class Result:
    """What a compile gives.

    Attributes
    ----------
    kept
        For each parameter by its source name, one entry an axis: int64 indices that survived, or None for all.
    plan
        Which units went; None when the pipeline had no planner.
    report
        JSON-serialisable; see ``report_schema.json``.
    """

    kept: Kept
    plan: Plan | None
    report: dict[str, Any]
    graph: Graph | None = None
    deployed: Graph | None = None
    opset: int | None = None
    emitted: onnx.ModelProto | None = field(default=None, repr=False)
    _module: torch.nn.Module | None = field(default=None, repr=False)

    @property
    def module(self) -> torch.nn.Module | None:
        """The compact, trainable module with the source's state-dict keys; None when the source was ONNX."""
        if self._module is None and self.graph is not None and self.graph.dialect == "fx":
            from .ir.emit.fx import emit

            self._module = emit(self.graph)
        return self._module

    @property
    def onnx(self) -> onnx.ModelProto:
        """The compact network as ONNX; emitted on first use, from the weights of the compile."""
        if self.emitted is None:
            graph = self.deployed if self.deployed is not None else self.graph
            assert graph is not None
            from .pairs import stamp

            self.emitted = stamp(emit_onnx(graph, self.opset), self.plan)
        return self.emitted

    def save(self, directory: str | Path) -> None:
        """Write the artifact: graph, plan, report, provenance; with the weights that ``module`` has now."""
        artifact.save(self._with_trained(), directory)

    def _with_trained(self) -> Result:
        """This result with the module's present weights in its graph; ONNX emitted anew where they changed."""
        if self._module is None or self.graph is None:
            return self
        graph, state, changed = self.graph.copy(), self._module.state_dict(), False
        for value, constant in graph.constants.items():
            held = state.get(constant.name)
            if held is not None and not bool((held == constant.data).all()):
                graph.constants[value] = replace(constant, data=held.detach().clone())
                changed = True
        if not changed:
            return self
        return replace(self, graph=graph, deployed=None, emitted=None)


def compile(
    model: Any,
    example_inputs: Any = None,
    pipeline: str | Path | Recipe | None = None,
    ratio: float | None = None,
    macs: float | None = None,
    params: float | None = None,
    latency: float | None = None,
    target: str = "ort-cpu",
    seed: int = 0,
    verify: bool = True,
    *,
    opset: int | None = None,
    strict: bool = False,
    verify_each: bool = False,
    print_after: tuple[str, ...] = (),
    progress: Progress | None = None,
    source_name: str | None = None,
    loss: Callable[[Any], Any] | None = None,
    measure: bool = True,
) -> Result:
    """Prune ``model`` and prove that what comes out equals the masked original.

    Parameters
    ----------
    model
        ``nn.Module``, ``ExportedProgram``, ``onnx.ModelProto``, or the path of an ``.onnx`` or ``.pt2`` file.
    example_inputs
        Tuple or dict of tensors (arrays by input name for ONNX, where they may be absent).
    pipeline
        Pipeline text, a Recipe or the path of a ``.toml``; None = the default for the budget.
    ratio, macs, params, latency
        At most one budget: the fraction of the prunable units to drop, or compact/dense.
    strict
        An op that is not known is an error instead of being pinned.
    loss
        For gradient criteria: a function from the model's outputs to a scalar tensor.

    Raises
    ------
    UsageError, ModelError, VerificationError, BudgetError, PassError, EnvironmentProblem
        Each carries the exit code that the command gives.

    Examples
    --------
    >>> import prunec, torchvision, torch                                     # doctest: +SKIP
    >>> result = prunec.compile(torchvision.models.resnet18(), (torch.randn(1, 3, 224, 224),), ratio=0.5)
    >>> result.report["macs"]["ratio"]
    """
    started = time.perf_counter()
    tell = progress or (lambda stage, detail: None)
    chosen = find_target(target)
    recipe = _recipe(pipeline, ratio, macs, params, latency)
    tell("read", source_name or type(model).__name__)
    graph, digest = read(model, example_inputs)
    _check_finite(graph)
    compiler = _Compiler(
        canonical(graph), chosen.name, seed, verify, opset, verify_each, print_after, tell, loss, measure
    )
    if strict:
        compiler.refuse_opaque()
    read_s = time.perf_counter() - started
    result = compiler.compile(recipe) if latency is None else compiler.within_latency(latency)
    result.report["seconds"] = {"read": read_s, **compiler.seconds, "total": time.perf_counter() - started}
    result.report["source_sha256"] = digest
    return result


def _recipe(pipeline: Any, *budgets: float | None) -> Recipe:
    given = {k: v for k, v in zip(_BUDGETS, budgets, strict=True) if v is not None}
    if pipeline is not None:
        if given:
            raise UsageError(f"both a pipeline and {', '.join(given)} were given", hint="put the budget into plan{…}")
        return Recipe.load(pipeline)
    if "latency" in given:
        if not 0 < given["latency"] <= 1 or len(given) > 1:
            raise UsageError(f"latency cannot be {given['latency']}", hint="one budget, in (0, 1]: compact/dense")
        return Recipe.default(macs=given["latency"])
    return Recipe.default(**(given or {"ratio": _DEFAULT_RATIO}))


class _Compiler:
    """One graph being compiled: pipelines run over it, its dense form emitted once."""

    def __init__(
        self,
        dense: Graph,
        target: str,
        seed: int,
        verify: bool,
        opset: int | None,
        verify_each: bool,
        print_after: tuple[str, ...],
        tell: Progress,
        loss: Callable[[Any], Any] | None,
        measure: bool,
    ) -> None:
        self.dense, self.target, self.seed, self.verify, self.opset = dense, find_target(target), seed, verify, opset
        self.verify_each, self.print_after, self.tell, self.loss, self.measure = (
            verify_each,
            print_after,
            tell,
            loss,
            measure,
        )
        self.seconds: dict[str, float] = {}
        self._groups: Groups | None = None
        self._dense_onnx: onnx.ModelProto | None = None

    def compile(self, recipe: Recipe) -> Result:
        state, runner = self._run(recipe)
        groups: Groups = state.facts["groups"] if "groups" in state.facts else find_groups(analyse(self.dense))
        alive = state.facts.get("alive", groups.alive(np.zeros(0, np.int64)))
        kept = named(groups.analysis.graph, kept_indices(groups.analysis, alive))
        result = Result(kept, state.facts.get("plan"), {}, state.graph, state.deployed, self.opset)
        verified: dict[str, Any] | None = state.facts.get("verified")
        if verified is not None:
            verified = self._verify_emitted(result, groups, alive, verified)
        latency = self._latency(result, state) if self.measure else None
        sizes = Sizes(result.onnx if result.emitted is not None else None, self._dense_onnx)
        result.report = build_report(groups, alive, state, runner.steps, verified, latency, sizes)
        return result

    def _run(self, recipe: Recipe) -> tuple[State, Runner]:
        state = State(self.dense, self.dense, self.target, self.seed, context={"loss": self.loss})
        runner = Runner(self.verify_each, self.print_after, self.tell, print)
        runner.ensured.add("canonical")
        if self._groups is not None:
            state.facts["groups"] = self._groups
            runner.ensured.add("groups")
        passes = [p for p in recipe if self.verify or p.name != "verify"]
        runner.run(passes, state)
        self._groups = state.facts.get("groups")
        return state, runner

    def refuse_opaque(self) -> None:
        """Raise for ops that are not known, with the declaration to write."""
        found = analyse(self.dense).opaque
        if found:
            kinds = sorted({f"{o.kind}: {o.why}" for o in found})
            raise ModelError(
                f"--strict: {len(kinds)} kinds of ops are not understood: {'; '.join(kinds)}",
                hint='declare each in ir/ops, e.g. declare("name", "B c * -> B c *", "…"), and name it in ir/frontends',
                ops=kinds,
            )

    def _verify_emitted(self, result: Result, groups: Groups, alive: Any, report: dict[str, Any]) -> dict[str, Any]:
        """The emitted ONNX, in ONNX Runtime, against the masked dense graph."""
        self._emit(result)
        self.tell("verify onnx", "")
        start = time.perf_counter()
        graph = groups.analysis.graph
        inputs = verification.other_batch(graph, verification.sample_inputs(graph, self.seed))
        oracle = mask(groups.analysis, alive)
        found = run_onnx(result.onnx, groups.analysis.graph, inputs)
        error = verification.relative_error(verification.run(oracle, inputs), found)
        if verification.Verify().tolerance < error < float("inf"):
            error = verification.excess(oracle, inputs, error)
        if not error <= verification.Verify().tolerance:
            raise VerificationError(
                f"verifying the emitted ONNX in ONNX Runtime: it differs from the masked model by {error:.2g} relative",
                hint="nothing was written; please report it with the model",
            )
        self.seconds["verify_onnx"] = time.perf_counter() - start
        return {**report, "max_rel_err": max(report["max_rel_err"], error), "onnx_rel_err": error}

    def _emit(self, result: Result) -> onnx.ModelProto:
        if result.emitted is None:
            self.tell("emit", "")
            start = time.perf_counter()
            model = result.onnx
            self.seconds["emit"] = self.seconds.get("emit", 0) + time.perf_counter() - start
            return model
        return result.onnx

    def dense_onnx(self) -> onnx.ModelProto:
        """The dense graph as ONNX, emitted once."""
        if self._dense_onnx is None:
            self.tell("emit dense", "")
            start = time.perf_counter()
            self._dense_onnx = emit_onnx(self.dense, self.opset)
            self.seconds["emit_dense"] = time.perf_counter() - start
        return self._dense_onnx

    def _latency(self, result: Result, state: State) -> dict[str, Any] | None:
        """Dense against compact in ONNX Runtime; None, with a note, where the model has no ONNX form."""
        try:
            return self._compare(self._emit(result), 3.0)
        except PrunecError as error:
            state.notes.append(f"latency was not measured: {error.message}")
            return None

    def _compare(self, compact: onnx.ModelProto, budget_s: float) -> dict[str, Any]:
        from .runtime.profile import compare

        dense = self.dense_onnx()
        self.tell("measure", "")
        start = time.perf_counter()
        feeds = _feeds(self.dense, dense, self.seed)
        found = compare(dense, compact, feeds, feeds, budget_s=budget_s, seed=self.seed).as_dict()
        self.seconds["measure"] = self.seconds.get("measure", 0) + time.perf_counter() - start
        return found

    def within_latency(self, budget: float) -> Result:
        """The largest network whose measured latency is at most ``budget`` of the dense one's.

        The budget is searched over MACs: each trial is planned, emitted and measured; the last one is verified whole.
        """
        verify, self.verify = self.verify, False
        low, high, best = 0.0, 1.0, None
        trial = budget
        for _ in range(_LATENCY_TRIALS):
            try:
                state, _ = self._run(Recipe.default(macs=trial))
                ratio = self._compare(emit_onnx(state.deployed, self.opset), 1.5)["ratio"]
            except BudgetError:
                low, ratio = max(low, trial), float("inf")
                trial = (trial + high) / 2
                continue
            self.tell("search", f"macs {trial:.3f} -> latency {ratio:.3f}")
            if ratio <= budget:
                best, low = trial, trial
            else:
                high = trial
            trial = min(max(trial * budget / ratio, low + 0.25 * (high - low)), low + 0.75 * (high - low))
            if high - low < 0.02:
                break
        self.verify = verify
        if best is None:
            raise BudgetError(
                f"planning: no plan was found whose measured latency is at most {budget:g} of the dense model's",
                hint="ask for more, or give a budget in macs",
                budget={"latency": budget},
            )
        result = self.compile(Recipe.default(macs=best))
        result.report["budget"] = {"latency": budget, "macs": best}
        return result


def _feeds(graph: Graph, model: onnx.ModelProto, seed: int) -> dict[str, Any]:
    """Inputs for measuring: the graph's sample with a batch of one where the batch is dynamic."""
    sample = verification.sample_inputs(graph, seed)
    arrays_ = [arrays.to_numpy(x) for v, x in zip(graph.inputs, sample, strict=True) if v.is_tensor]
    values = [v for v in graph.inputs if v.is_tensor]
    names = [i.name for i in model.graph.input]
    return {n: (a[:1] if 0 in v.dynamic else a) for n, v, a in zip(names, values, arrays_, strict=True)}


# ---------------------------------------------------------------------- reading and emitting


def read(model: Any, example_inputs: Any = None) -> tuple[Graph, str]:
    """The graph of whatever :func:`compile` takes, and the SHA-256 of the source.

    Raises
    ------
    ModelError
        The model cannot be read; see the frontends.
    """
    if isinstance(model, (str, Path)):
        return _read_file(Path(model), example_inputs)
    module = type(model).__module__
    if module.startswith("onnx"):
        from .ir.frontends.onnx import from_onnx

        return from_onnx(model, _by_name(example_inputs)), artifact.digest(model.SerializeToString(deterministic=True))
    from torch import nn
    from torch.export import ExportedProgram

    if isinstance(model, ExportedProgram):
        return _read_program(model)
    if isinstance(model, nn.Module):
        return _read_module(model, example_inputs)
    raise ModelError(
        f"reading the model: {type(model).__name__} is not understood",
        hint="give an nn.Module, an ExportedProgram, an onnx.ModelProto, or the path of an .onnx or .pt2 file",
    )


def _read_file(path: Path, example_inputs: Any) -> tuple[Graph, str]:
    if path.suffix == ".pt2":
        from .pt2 import load_program
        from .sources import check_file

        check_file(str(path))
        return _read_program(load_program(path))
    if path.suffix == ".onnx" or path.exists():
        from .ir.frontends.onnx import from_onnx
        from .ir.frontends.onnx_file import read_model

        model = read_model(str(path))
        return from_onnx(model, _by_name(example_inputs)), artifact.file_digest(path)
    raise ModelError(f"{path}: no such file", hint="give an .onnx or .pt2 file, or the module itself")


def _read_program(program: Any) -> tuple[Graph, str]:
    from .ir.frontends.fx import from_exported

    graph = from_exported(program)
    return graph, _digest_of(graph)


def _read_module(model: Any, example_inputs: Any) -> tuple[Graph, str]:
    from .ir.frontends.fx import export

    if example_inputs is None:
        raise UsageError("compiling an nn.Module needs example_inputs", hint="a tuple or a dict of tensors")
    if isinstance(example_inputs, Mapping):
        args, kwargs = (), dict(example_inputs)
    else:
        args, kwargs = (tuple(example_inputs) if isinstance(example_inputs, (tuple, list)) else (example_inputs,)), {}
    return _read_program(export(model, args, kwargs))


def _by_name(example_inputs: Any) -> dict[str, Any] | None:
    if example_inputs is None or isinstance(example_inputs, Mapping):
        return None if example_inputs is None else {k: arrays.to_numpy(v) for k, v in example_inputs.items()}
    raise UsageError("example inputs of an ONNX model are given by name", hint="a dict of arrays by input name")


def _digest_of(graph: Graph) -> str:
    from .ir.printer import print_graph

    parts = [print_graph(graph).encode()]
    parts += [np.ascontiguousarray(arrays.to_numpy(c.data)).tobytes() for c in graph.constants.values()]
    return artifact.digest(*parts)


def _check_finite(graph: Graph) -> None:
    for constant in graph.constants.values():
        if constant.role == "parameter" and arrays.is_float(constant.data) and not arrays.is_finite(constant.data):
            raise ModelError(
                f"reading the model: parameter {constant.name!r} holds NaN or infinite values",
                hint="repair or retrain the model: weights that are not finite cannot be ranked or verified",
                parameter=constant.name,
            )


def emit_onnx(graph: Graph, opset: int | None = None) -> onnx.ModelProto:
    """The ONNX form of a graph, by the emitter of its dialect."""
    if graph.dialect == "fx":
        from .ir.emit import torch_onnx

        return torch_onnx.emit(graph, opset)
    from .ir.emit import onnx as emitter

    return emitter.emit(graph, opset)


def run_onnx(model: onnx.ModelProto, graph: Graph, inputs: list[Any]) -> list[Any]:
    """Outputs of ``model`` in ONNX Runtime on the sample inputs of ``graph``."""
    from .runtime.session import Session

    tensors = [arrays.to_numpy(x) for v, x in zip(graph.inputs, inputs, strict=True) if v.is_tensor]
    names = [i.name for i in model.graph.input]
    found = Session(model, name="the emitted ONNX model").run(dict(zip(names, tensors, strict=True)))
    return [found[o.name] for o in model.graph.output]


# ---------------------------------------------------------------------- the other commands


def load(directory: str | Path) -> Result:
    """The result that :meth:`Result.save` wrote, without the model's source code."""
    return artifact.load(directory)


def analyze(model: Any, example_inputs: Any = None) -> dict[str, Any]:
    """Groups, units, what is pinned and what is not understood, as JSON-serialisable data."""
    graph, _ = read(model, example_inputs)
    start = time.perf_counter()
    groups = find_groups(analyse(canonical(graph)))
    seconds = time.perf_counter() - start
    analysis = groups.analysis
    return {
        "groups": describe(groups),
        "units": int(groups.prunable.size),
        "pinned": analysis.pinned_units(),
        "opaque_ops": analysis.opaque_costs(),
        "opaque_reasons": sorted({f"{o.kind}: {o.why}" for o in analysis.opaque}),
        "conflicts": analysis.solution.conflicts,
        "norm_tied": int(verification.norm_tied(groups).size),
        "atoms": analysis.atoms.count,
        "nodes": len(analysis.graph.nodes),
        "seconds": seconds,
        "versions": versions(),
    }


def verify(dense: Any, compact: Any) -> dict[str, Any]:
    """Whether an ONNX file that prunec wrote equals the masked form of the ONNX file it came from."""
    from .pairs import verify_pair

    return verify_pair(dense, compact)


def bench(dense: Any, compact: Any, target: str = "ort-cpu") -> dict[str, Any]:
    """Two ONNX files against each other: parameters, MACs, bytes, latency in turns."""
    from .pairs import bench_pair

    find_target(target)
    return bench_pair(dense, compact)


__all__ = ["OPS", "Result", "analyze", "bench", "compile", "criterion", "load", "verify"]
