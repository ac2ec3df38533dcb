"""Proofs across forms: an ONNX model beside the masked graph, and the graph beside the source that it was read from.

``passes/verify.py`` compares graphs of one dialect; here what is compared runs elsewhere, or came from elsewhere.
How far two forms are apart, and what rounding explains, says ``passes/difference.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .ir import arrays
from .ir.analysis import analyse
from .ir.codes import codes
from .ir.errors import EndlessRun, first_line
from .ir.graph import Graph, Value
from .ir.opset import Alive
from .models import OnnxFile, run_onnx
from .passes.difference import (
    Border,
    Decisions,
    Difference,
    Outputs,
    decisions,
    difference,
    found_again,
    refuse_chance,
    run,
)
from .passes.groups import Groups
from .passes.rewrite import mask
from .passes.verify import sample_inputs

if TYPE_CHECKING:
    import onnx

    from .ir.emit.onnx_external import Emitted

TIED = "verify: runtimes choose differently among equals; what lies behind was not compared in ONNX Runtime"
"""What is noted of a :class:`Difference` that is ``tied``."""


def onnx_difference(
    model: onnx.ModelProto | Emitted, groups: Groups, alive: Alive, inputs: list[Any], name: str, tolerance: float
) -> tuple[Difference, int]:
    """How far ``model``, in ONNX Runtime, is from the masked graph, and how many numbers were compared.

    What goes into the model's decisions is compared as well.  A torch graph's values have other names in ONNX: there
    the border is that of the ONNX model, and each value of it is found again among the graph's by its numbers.

    Raises
    ------
    ModelError
        The masked graph or the model gives other outputs each time.
    """
    graph, found = groups.analysis.graph, decisions(groups.analysis)
    oracle = mask(groups.analysis, alive)
    expected = None
    if graph.dialect == "onnx":
        there = _computed_by(model, found.border)
        border = Border.of(oracle, there, found.complete and len(there) == len(found.border))
        watched = [v.name for v in border.inner]
        got = run_onnx(model, graph, inputs, name, watched)
    else:
        own = _decisions_of(model) if found.border else Decisions((), False)
        watched = [v.name for v in own.border]
        got = run_onnx(model, graph, inputs, name, watched)
        border, expected, got = found_again(oracle, list(found.border), inputs, got, len(watched), tolerance)
        border = replace(border, decides=border.decides and found.complete and own.complete)
    by = difference(border, inputs, got, tolerance, expected)
    if not by.within(tolerance):
        refuse_chance(lambda: run(oracle, inputs), tolerance)
        refuse_chance(lambda: run_onnx(model, graph, inputs, name), tolerance)
    return by, sum(x.size for x in got)


def _decisions_of(model: onnx.ModelProto | Emitted) -> Decisions:
    """What goes into the decisions of an ONNX model, its outputs aside."""
    from .ir.emit.onnx_external import Emitted
    from .ir.frontends.onnx import from_onnx

    found = decisions(analyse(from_onnx(model.whole() if isinstance(model, Emitted) else model)))
    returned = {v.name for v in model.graph.output}
    inner = tuple(v for v in found.border if v.name not in returned)
    there = tuple(_computed_by(model, inner))
    return Decisions(there, found.complete and there == inner)


def _computed_by(model: onnx.ModelProto | Emitted, values: Iterable[Value]) -> list[Value]:
    """Those of ``values`` that the model computes under their names."""
    made = {name for node in model.graph.node for name in node.output}
    return [v for v in values if v.name in made]


def source_difference(
    model: Any, read: Graph, dense: Graph, seed: int, tolerance: float
) -> tuple[Difference, str | None]:
    """How far ``dense`` is from the ``model`` itself, run as it is; and why the graph ``read`` from it had to stand in.

    The proof that follows compares graphs that both came of ``dense``, so what was read wrongly would not show there.

    Raises
    ------
    ModelError
        There is nothing to run, since weights have no values; or the model gives other outputs each time.
    """
    for constant in dense.constants.values():
        arrays.require_values(constant.data)
    inputs = sample_inputs(dense, seed)
    source, why = _runnable(model, read), None
    try:
        found = source(inputs)
    except EndlessRun:
        raise
    except Exception as error:  # whatever a module or a runtime raises: what was read is known to run
        source, why = partial(run, read), first_line(error)
        found = source(inputs)
    border = Border.of(dense, [], False)
    by = difference(replace(border, decides=bool(border.behind)), inputs, found, tolerance)
    if not by.within(tolerance):
        refuse_chance(lambda: source(inputs), tolerance, found)
        refuse_chance(lambda: run(dense, inputs), tolerance)
    return by, why


def _runnable(model: Any, read: Graph) -> Callable[[list[Any]], Outputs]:
    """What runs the model itself on inputs of the graph that was ``read`` from it."""
    if read.dialect == "onnx":
        return lambda inputs: run_onnx(_as_given(model, read), read, inputs, "the model")
    from .ir.emit.fx import run_source

    return lambda inputs: run_source(model, read, inputs)


def _as_given(model: Any, graph: Graph) -> onnx.ModelProto | Path:
    """An ONNX source, in an opset that ONNX Runtime has; in a file, unless the runtime is told how to open it."""
    from .ir.frontends.onnx_file import read_model, upgraded

    if not isinstance(model, OnnxFile):
        return upgraded(model)
    newer = upgraded(model.proto)
    if newer is not model.proto:
        return newer
    return read_model(model.path) if codes(graph) else model.path
