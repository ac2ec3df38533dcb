"""The Python interface: :func:`compile` and what goes with it.

A compile reads a model into a graph (``models.py``), runs a pipeline of passes over it, emits the compact network,
proves that it equals the masked original and measures it (``compiler.py``); ``notes.py`` says what is worth a word.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .artifact import Result, load
from .compiler import Compiler
from .draw.drawing import check_suffix, draw
from .files import write_whole
from .findings import findings
from .ir.errors import UsageError
from .ir.graph import Graph
from .latency import within_latency
from .models import check_finite, emit_onnx, opened, read
from .notes import remarks
from .pairs import bench_pair, verify_pair
from .passes.base import Progress
from .passes.canonicalize import canonical
from .passes.groups import groups_of
from .passes.score.scoring import criterion
from .passes.target import Target, find_target
from .profiles import profiled
from .recipe import Recipe
from .strict import refuse_opaque
from .version import versions

if TYPE_CHECKING:
    from .passes.train.sparse import Sparse

_BUDGETS = ("ratio", "macs", "params", "latency")
_DEFAULT_RATIO = 0.5
_TARGET = "ort-cpu"
_OLDEST_OPSET = 7


def compile(
    model: Any,
    example_inputs: Any = None,
    pipeline: str | Path | Recipe | None = None,
    ratio: float | None = None,
    macs: float | None = None,
    params: float | None = None,
    latency: float | None = None,
    target: str = _TARGET,
    seed: int = 0,
    verify: bool = True,
    *,
    opset: int | None = None,
    strict: bool = False,
    verify_each: bool = False,
    print_after: tuple[str, ...] = (),
    progress: Progress | None = None,
    source_name: str | None = None,
    loss: Callable[..., Any] | None = None,
    samples: Iterable[Any] | None = None,
    targets: Iterable[Any] | None = None,
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
        Prove that what was read is the model and compact equals masked dense; False leaves both out, and the ``verify``
        of the pipeline.
    opset
        The ONNX opset of the output; None = that of the source, or 20 for a torch model.
    strict
        An op that is not known is an error instead of being pinned.
    verify_each, print_after
        Verify after each rewrite; print the graph on stdout after the passes named (or ``all``).
    progress
        Called with each stage and a detail; ``source_name`` is what it calls the model.
    loss
        For gradient criteria: a function from the model's outputs (and ``targets``, if given) to a scalar tensor.
    samples
        For criteria that look at data (``hrank``, ``snip``): batches of inputs, each in the form of example_inputs.
    targets
        For each batch of samples what the loss compares the outputs with.
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
    chosen = profiled(find_target(target))
    _check_opset(opset)
    recipe = _recipe(pipeline, ratio, macs, params, latency)
    tell("read", source_name or type(model).__name__)
    model = opened(model)
    graph, digest = read(model, example_inputs)
    _check_runs(graph, chosen)
    check_finite(graph)
    measures = measure or latency is not None
    compiler = Compiler(
        canonical(graph), chosen, seed, verify, opset, verify_each, print_after, tell, loss, samples, targets, measures
    )
    if strict:
        refuse_opaque(compiler.dense)
    read_s = time.perf_counter() - started
    if verify:
        compiler.check_source(model, graph)
    result = compiler.compile(recipe) if latency is None else within_latency(compiler, latency)
    result.report["notes"] = remarks(result.report)
    result.report["seconds"] = {"read": read_s, **compiler.seconds, "total": time.perf_counter() - started}
    result.report["source_sha256"] = digest
    return result


def _check_opset(opset: int | None) -> None:
    if opset is None:
        return
    from onnx.defs import onnx_opset_version

    newest = onnx_opset_version()
    if not _OLDEST_OPSET <= opset <= newest:
        raise UsageError(
            f"opset cannot be {opset}", hint=f"ONNX Runtime knows {_OLDEST_OPSET} to {newest}; left out, it is chosen"
        )


def _check_runs(graph: Graph, target: Target) -> None:
    if target.runtime == "torch" and graph.dialect != "fx":
        raise UsageError(f"target {target.name} runs torch modules, and the model is an ONNX file", hint="use ort-cpu")


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


def analyze(
    model: Any,
    example_inputs: Any = None,
    *,
    score: str | None = None,
    loss: Callable[[Any], Any] | None = None,
    samples: Iterable[Any] | None = None,
    graph: str | Path | None = None,
    seed: int = 0,
    source_name: str | None = None,
) -> dict[str, Any]:
    """Groups, their scores and costs, what is pinned and why, and what is not understood, as JSON-serialisable data.

    Parameters
    ----------
    score
        The criterion whose scores are described; None = the default of the ``score`` pass.
    loss, samples
        For criteria that need them, as in :func:`compile`.
    graph
        A file, ``.html`` or ``.svg``, that gets a drawing of the groups; ``source_name`` is its title.
    """
    if graph is not None:
        check_suffix(graph)
    start = time.perf_counter()
    read_graph, _ = read(model, example_inputs)
    read_s = time.perf_counter() - start
    groups = groups_of(canonical(read_graph))
    found = findings(groups, find_target(_TARGET), score, seed, {"loss": loss, "samples": samples})
    if graph is not None:
        write_whole(graph, draw(groups, found, source_name or type(model).__name__, graph))
    return {**found, "seconds": time.perf_counter() - start - read_s, "versions": versions()}


def train(
    model: Any,
    recipe: str | Path | Recipe,
    example_inputs: Any = None,
    *,
    epochs: int | None = None,
    progress: bool | None = None,
) -> Sparse:
    """Train ``model`` so that its weights become sparse, or few values: a context around any training loop.

    Parameters
    ----------
    model
        ``nn.Module``; its linear and convolution layers are trained so, in place.  Make the optimizer before or after
        (after, for ``str``, whose thresholds it has to train).
    recipe
        Training methods, as pipeline text (``pdp{sparsity=0.9,warm=2,rise=10}``), a Recipe or the path of a ``.toml``.
    example_inputs
        What the model is run on, for methods that train channels: from it comes which of them live and die together.
    epochs
        How many there will be, for the bar of the progress, and to note a schedule that they are too few for.
    progress
        Whether each epoch that ends prints a line on stderr.  None: where stderr is a terminal.

    Raises
    ------
    UsageError
        The recipe holds a pass that is no training method, the model has no layer for it, or ``epochs`` is below 1.

    Examples
    --------
    >>> with prunec.train(model, "pdp{sparsity=0.9,warm=2,rise=10}") as sparse:    # doctest: +SKIP
    ...     for epoch in range(20):
    ...         sparse.step(one_epoch(model, optimizer, loader))
    >>> prunec.compile(model.eval(), inputs, "pack,verify").onnx                   # doctest: +SKIP
    """
    from torch import nn

    from .passes.train.progress import EpochLines
    from .passes.train.sparse import Sparse
    from .passes.train.training import Training

    if epochs is not None and (not isinstance(epochs, int) or epochs < 1):
        raise UsageError(f"prunec.train: epochs cannot be {epochs}", hint="from 1, or leave it away")
    if not isinstance(model, nn.Module):
        raise UsageError(
            f"prunec.train trains an nn.Module, and this is a {type(model).__name__}", hint="load it in torch"
        )
    steps = Recipe.load(recipe)
    methods = [step for step in steps if isinstance(step, Training)]
    if other := [step.name for step in steps if not isinstance(step, Training)]:
        raise UsageError(
            f"prunec.train: {other[0]} is a pass of a compile", hint="train first, then compile what was trained"
        )
    grouped = example_inputs is not None and any(method.of_groups for method in methods)
    groups = groups_of(canonical(read(model, example_inputs)[0])) if grouped else None
    return Sparse(model, methods, str(steps), groups, EpochLines(epochs, progress))


def verify(dense: Any, compact: Any) -> dict[str, Any]:
    """Whether an ONNX file that prunec wrote equals the masked form of the ONNX file it came from."""
    return verify_pair(dense, compact)


def bench(dense: Any, compact: Any, *, copies: bool = False) -> dict[str, Any]:
    """Two ONNX files against each other: parameters, MACs, bytes, latency in turns, and what they move.

    ``copies`` lists each node that only moves data in ONNX Runtime's optimised graph: op, bytes, share of the time.
    """
    return bench_pair(dense, compact, each=copies)


__all__ = ["Result", "analyze", "bench", "compile", "criterion", "emit_onnx", "load", "read", "verify"]
