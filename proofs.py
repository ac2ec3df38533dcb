"""Proofs across forms: an ONNX model beside the masked graph, and the graph beside the source that it was read from.

``passes/verify.py`` compares graphs of one dialect; here what is compared runs elsewhere, or came from elsewhere.
How far two forms are apart, and what rounding explains, says ``passes/difference.py``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .ir import arrays
from .ir.analysis import analyse
from .ir.codes import codes
from .ir.errors import ModelError
from .ir.graph import Graph, Value
from .ir.opset import Alive
from .models import OnnxFile, run_onnx
from .passes.difference import Border, Decisions, Difference, decisions, difference, found_again, run
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
    """
    graph, found = groups.analysis.graph, decisions(groups.analysis)
    oracle = mask(groups.analysis, alive)
    inner = [v for v in found.border if v not in graph.outputs]
    expected = None
    if graph.dialect == "onnx":
        watched = _inside(model, inner)
        border = Border.of(oracle, watched, found.complete and watched == inner)
        got = run_onnx(model, graph, inputs, name, [v.name for v in watched])
    else:
        there = _decisions_of(model) if inner else Decisions((), False)
        got = run_onnx(model, graph, inputs, name, [v.name for v in there.border])
        border, expected, got = found_again(oracle, inner, inputs, got, len(there.border), tolerance)
        border = replace(border, decides=border.decides and found.complete and there.complete)
    return difference(border, inputs, got, tolerance, expected), sum(x.size for x in got)


def _decisions_of(model: onnx.ModelProto | Emitted) -> Decisions:
    """What goes into the decisions of an ONNX model, its outputs aside."""
    from .ir.emit.onnx_external import Emitted
    from .ir.frontends.onnx import from_onnx

    found = decisions(analyse(from_onnx(model.whole() if isinstance(model, Emitted) else model)))
    returned = {v.name for v in model.graph.output}
    inner = [v for v in found.border if v.name not in returned]
    there = _inside(model, inner)
    return Decisions(tuple(there), found.complete and there == inner)


def _inside(model: onnx.ModelProto | Emitted, values: Iterable[Value]) -> list[Value]:
    """Those of ``values`` that the model computes under their names and does not return."""
    made = {name for node in model.graph.node for name in node.output} - {v.name for v in model.graph.output}
    return [v for v in values if v.name in made]


def source_difference(model: Any, read: Graph, dense: Graph, seed: int, tolerance: float) -> Difference:
    """How far ``dense`` is from what it was read from: an ONNX model as it is, else the graph that was ``read``.

    The proof that follows compares graphs that both came of ``dense``, so what was read wrongly would not show there.

    Raises
    ------
    ModelError
        There is nothing to run: weights have no values.
    """
    for constant in dense.constants.values():
        arrays.require_values(constant.data)
    inputs = sample_inputs(dense, seed)
    try:
        found = (
            run_onnx(_as_given(model, read), read, inputs, "the model") if read.dialect == "onnx" else run(read, inputs)
        )
    except ModelError:  # of an opset that ONNX Runtime does not know, and the reader converts
        found = run(read, inputs)
    border = Border.of(dense, [], False)
    return difference(replace(border, decides=bool(border.behind)), inputs, found, tolerance)


def _as_given(model: Any, graph: Graph) -> onnx.ModelProto | Path:
    """An ONNX source; in a file, unless ONNX Runtime is to be told how to open it."""
    from .ir.frontends.onnx_file import read_model

    path = model.path if isinstance(model, OnnxFile) else Path(model) if isinstance(model, (str, Path)) else None
    if path is None:
        proto: onnx.ModelProto = model
        return proto
    return read_model(path) if codes(graph) else path
