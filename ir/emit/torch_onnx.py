"""ONNX from a torch graph, by torch's own exporter: opset selectable, dynamic batch kept, names and bytes stable."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import onnx
import torch
from torch.utils import _pytree as pytree

from ..errors import ModelError
from ..graph import Graph
from .fx import emit as emit_module

DEFAULT_OPSET = 20


def emit(graph: Graph, opset: int | None = None) -> onnx.ModelProto:
    """The ONNX model of a graph of the fx dialect.

    Raises
    ------
    ModelError
        When an op has no ONNX form in that opset.
    """
    module = emit_module(graph)
    args, kwargs = graph.source["example"]
    dynamic = _dynamic(graph)
    try:
        with _quiet():
            program = torch.export.export(module, args, kwargs, dynamic_shapes=dynamic, strict=False)
            made = torch.onnx.export(
                program,
                dynamo=True,
                verbose=False,
                opset_version=opset or DEFAULT_OPSET,
                input_names=[v.name for v in graph.inputs if v.is_tensor],
                output_names=_output_names(graph),
            )
    except Exception as error:
        raise ModelError(
            f"emitting ONNX: torch's exporter failed: {str(error).strip().splitlines()[0] if str(error).strip() else error!r}",
            hint="try another --opset; result.module is not affected",
        ) from error
    assert made is not None
    return _stable(made.model_proto, opset or DEFAULT_OPSET)


def _dynamic(graph: Graph) -> Any:
    """Dynamic shapes as ``torch.export`` wants them, from the axes that were traced as dynamic; None for none."""
    if not any(v.dynamic for v in graph.inputs):
        return None
    leaves = [
        {d: torch.export.Dim.DYNAMIC for d in sorted(v.dynamic)} if v.dynamic else None for v in graph.inputs
    ]
    args, kwargs = pytree.tree_unflatten(leaves, graph.source["in_spec"])
    if not kwargs:
        return tuple(args)
    names = graph.source["forward"]
    return {**dict(zip(names, args, strict=False)), **kwargs}


def _output_names(graph: Graph) -> list[str] | None:
    """``output``, or the keys of a flat dictionary; left to the exporter otherwise."""
    if len(graph.outputs) == 1:
        return ["output"]
    spec = graph.source["out_spec"]
    context = getattr(spec, "context", None)
    if isinstance(context, list) and len(context) == len(graph.outputs) and all(isinstance(k, str) for k in context):
        taken = {v.name for v in graph.inputs}
        return [k if k not in taken else f"{k}_out" for k in context]
    return None


def _stable(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """The model without traces of this run: no stack traces, no doc strings, no file names."""
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    for items in (model.graph.value_info, model.graph.input, model.graph.output, model.graph.initializer):
        for item in items:
            item.doc_string = ""
            if hasattr(item, "metadata_props"):
                del item.metadata_props[:]
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    del model.graph.value_info[:]
    model.graph.name = "main_graph"
    model.producer_name, model.producer_version = "prunec", ""
    found = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), opset)
    if found != opset:
        raise ModelError(f"emitting ONNX: opset {opset} was asked for, the exporter gave {found}", hint=f"try --opset {found}")
    return model


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter prints and warns; nothing of that is for prunec's users."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
