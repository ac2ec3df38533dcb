"""ONNX models whose tensors are packed: nodes that read constants alone make each tensor when the model is loaded.

Which form a tensor takes is the smallest of those that give it back exactly.  Any ONNX runtime that folds constants
runs such a file as it runs the dense one. Start at :func:`packed`; the
way back is ``frontends/onnx_packed.py``.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ..frontends.onnx_names import opset_of
from ..packing.description import KEY, Description, Packed
from ..packing.form import PREFIX
from ..packing.packing import SMALL_BYTES, Packing
from .onnx_external import Emitted

_OLDEST = 13
"""The opset from which on the nodes of all forms are what is written here; a model in an older one stays as it is."""

_KINDS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
"""Of tensors whose nodes ONNX Runtime can run."""

_INTEGERS = {4: (TensorProto.UINT4, 21), 2: (TensorProto.UINT2, 25)}


def packed(model: Emitted, packing: Packing) -> tuple[Emitted, dict[str, int]]:
    """``model`` with its tensors in the smallest exact form, and how many took which (``dense``: left as they are)."""
    if opset_of(model.proto, 0) < _OLDEST:
        return model, {"dense": sum(len(t.raw_data) >= SMALL_BYTES for t in model.graph.initializer)}
    made = onnx.ModelProto()
    made.CopyFrom(model.whole())
    nodes: list[onnx.NodeProto] = []
    count: Counter[str] = Counter()
    stay = []
    described: dict[str, Packed] = {}
    names = [t.name for t in made.graph.initializer]
    parents = {n[:k] for n in names for k, letter in enumerate(n) if letter == "."}  # their parts would be called so
    read = {v.name for v in made.graph.input} | {v.name for v in made.graph.output}
    for tensor in made.graph.initializer:
        large = tensor.name not in read and len(tensor.raw_data) >= SMALL_BYTES
        fits = large and tensor.name not in parents and tensor.data_type in _KINDS
        found = packing.smallest(numpy_helper.to_array(tensor)) if fits else None
        if found is None:
            stay.append(tensor)
            count["dense"] += large
            continue
        out = _Nodes(tensor.name, opset_of(made, 0))
        out.result(found.form.write(out), found.transposed)
        nodes += out.nodes
        stay += out.constants
        count[found.form.name] += 1
        described[tensor.name] = found
    own = [*nodes, *made.graph.node]
    del made.graph.initializer[:], made.graph.node[:]
    made.graph.initializer.extend(stay)
    made.graph.node.extend(own)
    if described:
        made.metadata_props.add(key=KEY, value=Description(described).text())
    return Emitted(made), dict(count)


class _Nodes:
    """A :class:`~prunec.ir.packing.form.Writer` for one tensor."""

    def __init__(self, tensor: str, opset: int) -> None:
        self.tensor, self.opset, self.prefix = tensor, opset, tensor
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[TensorProto] = []

    def constant(self, name: str, data: NDArray[Any]) -> str:
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(data), self._called(name)))
        return self.constants[-1].name

    def _called(self, name: str) -> str:
        return f"{self.prefix}.{name}" if name else self.prefix

    def has_integer(self, width: int) -> bool:
        return width in _INTEGERS and self.opset >= _INTEGERS[width][1]

    def small_integers(self, name: str, data: NDArray[np.uint8], width: int, count: int) -> str:
        kind, _ = _INTEGERS[width]
        made = TensorProto(name=self._called(name), data_type=kind, dims=[count], raw_data=data.tobytes())
        self.constants.append(made)
        return made.name

    def inside(self, name: str) -> _Nodes:
        inner = copy.copy(self)
        inner.prefix = self._called(name)
        return inner

    def node(self, op: str, inputs: Sequence[str], **attributes: Any) -> str:
        name = f"{PREFIX}{self.tensor}.{len(self.nodes)}"
        if "to" in attributes:
            attributes["to"] = helper.np_dtype_to_tensor_dtype(np.dtype(attributes["to"]))
        self.nodes.append(helper.make_node(op, inputs, [name], name, **attributes))
        return name

    def result(self, name: str, transposed: bool) -> None:
        """Call the value ``name`` (transposed where it is so) as the tensor was called."""
        if transposed:
            self.node("Transpose", [name], perm=[1, 0])
        self.nodes[-1].output[0] = self.tensor
