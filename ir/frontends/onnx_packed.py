"""Packed tensors of an ONNX model, as ``emit/onnx_packed.py`` writes them, made dense again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ..packing.form import PREFIX


def unpacked(model: onnx.ModelProto) -> onnx.ModelProto:
    """``model`` with its packed tensors dense; the same object where it has none."""
    nodes = [n for n in model.graph.node if n.name.startswith(PREFIX)]
    if not nodes:
        return model
    inner = {o for n in nodes for o in n.output if o.startswith(PREFIX)}
    names = [o for n in nodes for o in n.output if o not in inner]
    read = {name for n in nodes for name in n.input}
    constants = [t for t in model.graph.initializer if t.name in read]
    made = onnx.ModelProto()
    made.CopyFrom(model)
    rest = [n for n in made.graph.node if not n.name.startswith(PREFIX)]
    held = [t for t in made.graph.initializer if t.name not in read]
    arrays = _computed(model, nodes, constants, names)
    del made.graph.node[:], made.graph.initializer[:]
    made.graph.node.extend(rest)
    made.graph.initializer.extend([*held, *(numpy_helper.from_array(a, n) for n, a in zip(names, arrays, strict=True))])
    return made


def _computed(
    model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto], constants: Sequence[TensorProto], names: Sequence[str]
) -> list[NDArray[Any]]:
    """The values called ``names``, which ``nodes`` make of ``constants``."""
    outputs = [onnx.ValueInfoProto(name=n) for n in names]
    graph = helper.make_graph(nodes, "packed", [], outputs, constants)
    alone = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(alone.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found: list[NDArray[Any]] = session.run(list(names), {})
    return found
