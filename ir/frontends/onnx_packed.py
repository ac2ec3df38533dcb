"""Packed tensors of an ONNX model, as ``emit/onnx_packed.py`` writes them, made dense again.

What they are is what the runtime makes of their nodes.  The description in the model's metadata only says in which
forms they may be packed again, which is tried on the numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ..emit.onnx_external import open_session
from ..packing.description import KEY, restored
from ..packing.form import PREFIX
from ..packing.packing import Packing

_OPS = {
    "Add", "BitShift", "Cast", "CumSum", "Expand", "Gather", "Identity", "Mul", "Reshape", "ScatterElements", "Slice",
    "Transpose", "Unsqueeze",
}  # fmt: skip
"""The ops that forms are written in; a node of another is not ours, whatever it is called."""


def unpacked(model: onnx.ModelProto) -> tuple[onnx.ModelProto, Packing | None]:
    """``model`` with its packed tensors dense, and how they may be packed; the same object and None where it has none.

    Raises
    ------
    ModelError
        What the metadata says of packed tensors contradicts them.
    """
    nodes = [n for n in model.graph.node if n.name.startswith(PREFIX)]
    if not nodes or not _are_written(model, nodes):
        return model, None
    inner = {o for n in nodes for o in n.output if o.startswith(PREFIX)}
    names = [o for n in nodes for o in n.output if o not in inner]
    read = {name for n in nodes for name in n.input}
    constants = [t for t in model.graph.initializer if t.name in read]
    made = onnx.ModelProto()
    made.CopyFrom(model)
    rest = [n for n in made.graph.node if not n.name.startswith(PREFIX)]
    others = {name for n in rest for name in n.input} | {o.name for o in made.graph.output}
    held = [t for t in made.graph.initializer if t.name not in read or t.name in others]
    said = [entry for entry in made.metadata_props if entry.key != KEY]
    arrays = _computed(model, nodes, constants, names)
    del made.graph.node[:], made.graph.initializer[:], made.metadata_props[:]
    made.graph.node.extend(rest)
    made.metadata_props.extend(said)
    made.graph.initializer.extend([*held, *(numpy_helper.from_array(a, n) for n, a in zip(names, arrays, strict=True))])
    return made, packing_of(model)


def _are_written(model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto]) -> bool:
    """Whether ``nodes`` are such as forms write: a few ops, of constants alone."""
    known = {t.name for t in model.graph.initializer} | {o for n in nodes for o in n.output} | {""}
    return all(n.op_type in _OPS and not n.domain and known.issuperset(n.input) for n in nodes)


def packing_of(model: onnx.ModelProto) -> Packing | None:
    """How the packed tensors of ``model`` may be packed again, by its metadata; None where that says nothing of it.

    What another tool has made dense since is left out.  Raises as :func:`unpacked` does.
    """
    text = next((entry.value for entry in model.metadata_props if entry.key == KEY), None)
    nodes = [n for n in model.graph.node if n.name.startswith(PREFIX)]
    if text is None or not nodes:
        return None
    read, made = {name for n in nodes for name in n.input}, {o for n in nodes for o in n.output}
    arrays = {t.name: _array(t) for t in model.graph.initializer if t.name in read}
    return Packing.of(p.form for p in restored(text, arrays, "the ONNX model", made).tensors.values())


def _array(tensor: TensorProto) -> NDArray[Any]:
    """The numbers of a tensor; the bytes of those whose integers are smaller than that."""
    if tensor.data_type in (TensorProto.UINT4, TensorProto.UINT2):
        return np.frombuffer(tensor.raw_data, np.uint8)
    return numpy_helper.to_array(tensor)


def _computed(
    model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto], constants: Sequence[TensorProto], names: Sequence[str]
) -> list[NDArray[Any]]:
    """The values called ``names``, which ``nodes`` make of ``constants``."""
    outputs = [onnx.ValueInfoProto(name=n) for n in names]
    graph = helper.make_graph(nodes, "packed", [], outputs, constants)
    alone = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    found: list[NDArray[Any]] = open_session(alone, options).run(list(names), {})
    return found
