"""ONNX models too large for one protobuf: the tensors' bytes beside the model (ONNX "external data").

``onnx.save_model`` moves the tensors out of the caller's model and back in; here the model is left alone, and the bytes
are handed on without a copy of the whole: to a file, or to ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import onnx
import onnxruntime as ort
from onnx import numpy_helper

LARGE_BYTES = 2**31 - 2**24
"""Protobuf ends at 2 GiB; 16 MiB are left for what is not a tensor."""

SMALL_BYTES = 1024
"""Tensors below this stay inside the model: shapes and scalars, which readers need at once."""

PAGE_BYTES = 4096
"""Tensors start at a multiple of this, so that they can be mapped into memory."""


def tensor_bytes(model: onnx.ModelProto) -> int:
    """Bytes held by the initialisers of the main graph."""
    return sum(len(t.raw_data) if t.raw_data else t.ByteSize() for t in model.graph.initializer)


def is_large(model: onnx.ModelProto) -> bool:
    """Whether the model needs external data."""
    return tensor_bytes(model) > LARGE_BYTES


def open_session(model: onnx.ModelProto, options: ort.SessionOptions) -> ort.InferenceSession:
    """``model`` in ONNX Runtime on the CPU; the tensors of a large one are lent, not copied."""
    if not is_large(model):
        return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    slim, _ = split(model, "memory")
    lent = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer if len(t.raw_data) >= SMALL_BYTES}
    kinds = {t.name: t.data_type for t in model.graph.initializer}
    values = [ort.OrtValue.ortvalue_from_numpy_with_onnx_type(a, kinds[n]) for n, a in lent.items()]
    options.add_external_initializers(list(lent), values)
    session = ort.InferenceSession(slim.SerializeToString(), options, providers=["CPUExecutionProvider"])
    session.lent = (lent, values)  # as long as it lives
    return session


def split(model: onnx.ModelProto, location: str) -> tuple[onnx.ModelProto, Iterator[bytes]]:
    """The model without its large tensors, and the bytes for the file ``location`` beside it."""
    slim = onnx.ModelProto()
    _copy_fields(model, slim, leave="graph")
    _copy_fields(model.graph, slim.graph, leave="initializer")
    large, offset = [], 0
    for tensor in model.graph.initializer:
        if len(tensor.raw_data) < SMALL_BYTES:
            slim.graph.initializer.append(tensor)
            continue
        offset = -(-offset // PAGE_BYTES) * PAGE_BYTES
        slim.graph.initializer.append(_reference(tensor, location, offset))
        large.append((offset, tensor))
        offset += len(tensor.raw_data)
    return slim, _chunks(large)


def _chunks(tensors: list[tuple[int, onnx.TensorProto]]) -> Iterator[bytes]:
    written = 0
    for offset, tensor in tensors:
        yield bytes(offset - written)
        yield tensor.raw_data
        written = offset + len(tensor.raw_data)


def _reference(tensor: onnx.TensorProto, location: str, offset: int) -> onnx.TensorProto:
    found = onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
    found.doc_string = tensor.doc_string
    found.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", str(offset)), ("length", str(len(tensor.raw_data)))):
        found.external_data.add(key=key, value=value)
    return found


def _copy_fields(source: Any, target: Any, leave: str) -> None:
    for field, value in source.ListFields():
        if field.name == leave:
            continue
        if hasattr(value, "extend"):
            getattr(target, field.name).extend(value)
        elif hasattr(value, "CopyFrom"):
            getattr(target, field.name).CopyFrom(value)
        else:
            setattr(target, field.name, value)
