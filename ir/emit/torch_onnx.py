"""ONNX from a torch graph, by torch's own exporter: opset selectable, dynamic batch kept, names and bytes stable."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import onnx
import onnx.version_converter
import torch
from torch import fx
from torch.utils import _pytree as pytree

from ..arrays import require_values
from ..errors import ModelError, first_line
from ..frontends.fx_names import NAMES
from ..frontends.onnx_names import opset_of
from ..graph import Graph
from .fx import emit as emit_module
from .fx import resolve
from .torch_onnx_recurrent import with_onnx_layers

DEFAULT_OPSET = 20
_OLDEST = 18
_TORCH = ("aten.", "prims.", "python.")


def emit(graph: Graph, opset: int | None = None) -> onnx.ModelProto:
    """The ONNX model of a graph of the fx dialect.

    Raises
    ------
    ModelError
        When an op has no ONNX form in that opset, or the weights have no values.
    """
    for constant in graph.constants.values():
        require_values(constant.data)
    wanted = opset or DEFAULT_OPSET
    try:
        with _quiet():
            model = _exported(graph, max(wanted, _OLDEST))
            if wanted < _OLDEST:
                model = _converted(model, wanted)
    except Exception as error:
        strange = _strange(graph)
        raise ModelError(
            f"emitting ONNX: torch's exporter failed: {first_line(_first(error))}",
            hint=f"it may know no ONNX form of {', '.join(strange)}: a plugin can give it one (docs/adding-an-op.md)"
            if strange
            else f"try --opset {_OLDEST} or above; result.module is not affected",
        ) from error
    return _named_batch(_stable(model, wanted))


def _first(error: BaseException) -> BaseException:
    """The error that the others came of: the exporter wraps what it met in advice."""
    return error if error.__cause__ is None else _first(error.__cause__)


def _exported(graph: Graph, opset: int) -> onnx.ModelProto:
    """By torch's present exporter, which begins at opset 18."""
    args, kwargs = graph.source["example"]
    module = with_onnx_layers(_without_strides(emit_module(graph)))
    program = torch.export.export(module, args, kwargs, dynamic_shapes=_dynamic(graph), strict=False)
    names = [v.name for v in graph.inputs if v.is_tensor]
    made = torch.onnx.export(
        program, dynamo=True, verbose=False, opset_version=opset, input_names=names, output_names=_output_names(graph),
        custom_translation_table=_translations(graph),
    )  # fmt: skip
    assert made is not None
    return made.model_proto


def _translations(graph: Graph) -> dict[Any, Any]:
    """How the exporter writes the ops whose spellings say so themselves."""
    kinds = {n.kind for n in graph.nodes if n.kind in NAMES}
    return {resolve(kind): NAMES[kind].to_onnx for kind in sorted(kinds) if NAMES[kind].to_onnx is not None}


def _strange(graph: Graph) -> list[str]:
    """Kinds of other libraries than torch whose spelling gives no ONNX form."""
    known = {str(overload) for overload in _translations(graph)}
    return sorted({n.kind for n in graph.nodes} - known - {k for n in graph.nodes if (k := n.kind).startswith(_TORCH)})


def _without_strides(module: fx.GraphModule) -> fx.GraphModule:
    """``module`` with no view that relies on the strides of fused attention, which its decomposition changes."""
    aten = torch.ops.aten
    for node in list(module.graph.nodes):
        if node.target is aten.view.default:
            node.target = aten.reshape.default
        elif node.target is aten.scaled_dot_product_attention.default:
            with module.graph.inserting_after(node):
                dense = module.graph.call_function(aten.clone.default, (), {"memory_format": torch.contiguous_format})
            node.replace_all_uses_with(dense)
            dense.args = (node,)
    module.recompile()
    return module


def _converted(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """The model in an older opset, for edge runtimes; raises where an op has no older form."""
    for node in model.graph.node:  # a default that the converter takes for something new
        kept = [a for a in node.attribute if a.name != "noop_with_empty_axes" or a.i]
        del node.attribute[:]
        node.attribute.extend(kept)
    problem: Exception | None = None
    for version in range(opset, _OLDEST + 1):  # the converter lacks steps that change types alone
        try:
            converted = onnx.version_converter.convert_version(model, version)
            converted.opset_import[0].version = opset
            onnx.checker.check_model(converted, full_check=True)
            return converted
        except Exception as error:  # out of C++
            problem = problem or error
    assert problem is not None
    raise problem


def _dynamic(graph: Graph) -> Any:
    """Dynamic shapes as ``torch.export`` wants them, from the axes that were traced as dynamic; None for none."""
    if not any(v.dynamic for v in graph.inputs):
        return None
    leaves = [dict.fromkeys(sorted(v.dynamic), torch.export.Dim.DYNAMIC) if v.dynamic else None for v in graph.inputs]
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
    found = opset_of(model, opset)
    if found != opset:
        raise ModelError(
            f"emitting ONNX: opset {opset} was asked for, the exporter gave {found}", hint=f"try --opset {found}"
        )
    return model


def _named_batch(model: onnx.ModelProto) -> onnx.ModelProto:
    """The dynamic first axis called ``batch`` instead of by the exporter's symbol."""
    declared = [*model.graph.input, *model.graph.output]
    sizes = [d for v in declared for d in v.type.tensor_type.shape.dim]
    symbols = {v.type.tensor_type.shape.dim[0].dim_param for v in model.graph.input if v.type.tensor_type.shape.dim}
    for size in sizes:
        if size.dim_param and size.dim_param in symbols:
            size.dim_param = "batch"
    return model


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter prints and warns; nothing of that is for prunec's users."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
