"""The Python interface: :func:`compile` and what goes with it.

A compile reads a model into a graph (``models.py``), runs a pipeline of passes over it, emits the compact network,
proves that it equals the masked original and measures it (``compiler.py``); ``notes.py`` says what is worth a word.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .artifact import Result, load
from .compiler import Compiler
from .ir.analysis import analyse
from .ir.errors import UsageError
from .ir.pins import pins
from .latency import within_latency
from .models import check_finite, emit_onnx, read
from .notes import remarks
from .pairs import bench_pair, verify_pair
from .passes import verify as verification
from .passes.canonicalize import canonical
from .passes.groups import describe, find_groups
from .passes.runner import Progress
from .passes.score.scoring import criterion
from .passes.target import find_target
from .recipe import Recipe
from .strict import refuse_opaque
from .version import versions

_BUDGETS = ("ratio", "macs", "params", "latency")
_DEFAULT_RATIO = 0.5


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
        Tuple or dict of tensors; for ONNX arrays, by input name or in the order of the inputs, which may be absent.
    pipeline
        Pipeline text, a Recipe or the path of a ``.toml``; None = the default for the budget.
    ratio, macs, params, latency
        At most one budget: the fraction of the prunable units to drop, or compact/dense.
    target
        The runtime and processor that the artifact is for; see ``prunec passes`` for those known.
    seed
        For random scores and for the inputs that verify and measure.
    verify
        Prove that compact equals masked dense; False leaves the ``verify`` of the pipeline out.
    opset
        The ONNX opset of the output; None = that of the source, or 20 for a torch model.
    strict
        An op that is not known is an error instead of being pinned.
    verify_each, print_after
        Verify after each rewrite; print the graph on stdout after the passes named (or ``all``).
    progress
        Called with each stage and a detail; ``source_name`` is what it calls the model.
    loss
        For gradient criteria: a function from the model's outputs to a scalar tensor.
    measure
        Measure the latency of dense and compact in ONNX Runtime; always done for a budget of latency.

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
    check_finite(graph)
    measures = measure or latency is not None
    compiler = Compiler(canonical(graph), chosen, seed, verify, opset, verify_each, print_after, tell, loss, measures)
    if strict:
        refuse_opaque(compiler.dense)
    read_s = time.perf_counter() - started
    result = compiler.compile(recipe) if latency is None else within_latency(compiler, latency)
    result.report["notes"] = remarks(result.report)
    result.report["seconds"] = {"read": read_s, **compiler.seconds, "total": time.perf_counter() - started}
    result.report["source_sha256"] = digest
    return result


def _recipe(pipeline: Any, *budgets: float | None) -> Recipe:
    given = {k: v for k, v in zip(_BUDGETS, budgets, strict=True) if v is not None}
    if pipeline is not None:
        if given:
            raise UsageError(
                f"both a pipeline and {', '.join(given)} were given",
                hint="put the budget into plan{…}; a budget of latency stands alone",
            )
        return Recipe.load(pipeline)
    if "latency" in given:
        if len(given) > 1:
            raise UsageError(f"two budgets: {' and '.join(given)}", hint=f"give one of {', '.join(_BUDGETS)}")
        if not 0 < given["latency"] <= 1:
            raise UsageError(f"latency cannot be {given['latency']}", hint="a number in (0, 1]: compact/dense")
        return Recipe.default(macs=given["latency"])
    return Recipe.default(**(given or {"ratio": _DEFAULT_RATIO}))


# ---------------------------------------------------------------------- the other commands


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
        "pins": [asdict(pin) for pin in pins(analysis)],
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
    return verify_pair(dense, compact)


def bench(dense: Any, compact: Any) -> dict[str, Any]:
    """Two ONNX files against each other: parameters, MACs, bytes, latency in turns."""
    return bench_pair(dense, compact)


__all__ = ["Result", "analyze", "bench", "compile", "criterion", "emit_onnx", "load", "read", "verify"]
