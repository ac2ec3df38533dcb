"""ONNX models that are not held whole: tensors that are read when they are needed, and tensors beside the model.

A model above 2 GB does not fit in one protobuf; its tensors go to a file beside it (ONNX "external data").  What a
large model of mapped tensors becomes need not be in memory at all: an :class:`Emitted` leaves its tensors where they
are until somebody writes, runs or asks for the whole.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort
from onnx import GraphProto, numpy_helper

from ..errors import EnvironmentProblem
from .onnx_stream import Pending, Piece, pieces, read

LARGE_BYTES = 2**31 - 2**24
"""Protobuf ends at 2 GiB; 16 MiB are left for what is not a tensor."""

SMALL_BYTES = 1024
"""Tensors below this stay inside the model: shapes and scalars, which readers need at once."""

PAGE_BYTES = 4096
"""Tensors start at a multiple of this, so that they can be mapped into memory."""


@dataclass(frozen=True, eq=False)
class Emitted:
    """A model: ``proto``, in which the initialisers that ``tensors`` holds by name are empty."""

    proto: onnx.ModelProto
    tensors: Mapping[str, Any] = field(default_factory=dict)

    @property
    def graph(self) -> GraphProto:
        return self.proto.graph

    def whole(self) -> onnx.ModelProto:
        """The model with all its tensors."""
        if not self.tensors:
            return self.proto
        model = onnx.ModelProto()
        model.CopyFrom(self.proto)
        for tensor in model.graph.initializer:
            if tensor.name in self.tensors:
                tensor.raw_data = b"".join(Pending(self.tensors[tensor.name]).read())
        return model

    def size_bytes(self) -> int:
        """Bytes of the model in one file."""
        return sum(map(len, pieces(self.proto, self.tensors))) if self.tensors else self.proto.ByteSize()

    def serialised(self) -> Iterator[Piece]:
        """The bytes of the model in one file."""
        return read(pieces(self.proto, self.tensors))

    def raw(self, tensor: onnx.TensorProto) -> bytes | Pending:
        """The bytes of one of the model's initialisers."""
        return Pending(self.tensors[tensor.name]) if tensor.name in self.tensors else tensor.raw_data


def as_emitted(model: onnx.ModelProto | Emitted) -> Emitted:
    """The model as one that may leave tensors where they are."""
    return model if isinstance(model, Emitted) else Emitted(model)


def tensor_bytes(model: onnx.ModelProto | Emitted) -> int:
    """Bytes held by the initialisers of the main graph."""
    held = as_emitted(model)
    return sum(len(held.raw(t)) or t.ByteSize() for t in model.graph.initializer)


def is_large(model: onnx.ModelProto | Emitted) -> bool:
    """Whether the model needs external data."""
    return tensor_bytes(model) > LARGE_BYTES


def open_as_written(model: onnx.ModelProto | Emitted, options: ort.SessionOptions) -> ort.InferenceSession:
    """A session that leaves quantised layers as they are: fused they round elsewhere, and on some processors their
    sums saturate.

    ONNX Runtime makes weights unsigned against the latter, among its extended optimisations.
    """
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    options.add_session_config_entry("session.x64quantprecision", "1")
    return open_session(_apart(model.whole() if isinstance(model, Emitted) else model), options)


def _apart(model: onnx.ModelProto) -> onnx.ModelProto:
    """``model`` with bytes that several nodes read once for each: ONNX Runtime cannot make shared ones unsigned."""
    signed = {t.name: t for t in model.graph.initializer if t.data_type == onnx.TensorProto.INT8}
    readers = Counter(name for node in model.graph.node for name in node.input if name in signed)
    if all(count == 1 for count in readers.values()):
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for n, node in enumerate(copy.graph.node):
        for k, name in enumerate(node.input):
            if readers[name] > 1:
                node.input[k] = own = f"{name}/{n}.{k}"
                copy.graph.initializer.add().CopyFrom(signed[name])
                copy.graph.initializer[-1].name = own
    return copy


def open_session(model: onnx.ModelProto | Emitted, options: ort.SessionOptions) -> ort.InferenceSession:
    """``model`` in ONNX Runtime on the CPU: from memory, a large one lent, one with tensors on disk from there."""
    if isinstance(model, Emitted):
        if model.tensors:
            return _from_disk(model, options)
        model = model.proto
    if is_large(model):
        return _lent(model, options)
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _from_disk(model: Emitted, options: ort.SessionOptions) -> ort.InferenceSession:
    """The runtime maps the tensors of a file, and gives back what it has packed; the file goes once it is mapped."""
    with tempfile.TemporaryDirectory(prefix="prunec-", ignore_cleanup_errors=True) as folder:
        try:
            slim, chunks = split(model, "model.data")
            with open(Path(folder, "model.data"), "wb") as file:
                for chunk in chunks:
                    file.write(chunk)
            path = Path(folder, "model.onnx")
            path.write_bytes(slim.SerializeToString())
        except OSError as error:
            raise EnvironmentProblem(
                f"cannot write the tensors of a model to {folder}: {error.strerror or error}",
                hint="free space there, or set TMPDIR to a folder that has it",
            ) from error
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _lent(model: onnx.ModelProto, options: ort.SessionOptions) -> ort.InferenceSession:
    slim, _ = split(model, "memory")
    lent = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer if len(t.raw_data) >= SMALL_BYTES}
    kinds = {t.name: t.data_type for t in model.graph.initializer}
    values = [ort.OrtValue.ortvalue_from_numpy_with_onnx_type(a, kinds[n]) for n, a in lent.items()]
    options.add_external_initializers(list(lent), values)
    session = ort.InferenceSession(slim.SerializeToString(), options, providers=["CPUExecutionProvider"])
    session.lent = (lent, values)  # as long as it lives
    return session


def split(model: onnx.ModelProto | Emitted, location: str) -> tuple[onnx.ModelProto, Iterator[Piece]]:
    """The model without its large tensors, and the bytes for the file ``location`` beside it."""
    large: list[tuple[int, bytes | Pending]] = []
    end = 0

    def place(raw: bytes | Pending) -> int:
        nonlocal end
        offset = -(-end // PAGE_BYTES) * PAGE_BYTES
        large.append((offset, raw))
        end = offset + len(raw)
        return offset

    return referring(model, location, place), _chunks(large)


def large_tensors(model: onnx.ModelProto | Emitted) -> list[bytes | Pending]:
    """The bytes of the tensors that :func:`referring` asks for, in their order."""
    held = as_emitted(model)
    raws = (held.raw(t) for t in held.graph.initializer)
    return [raw for raw in raws if len(raw) >= SMALL_BYTES]


def referring(
    model: onnx.ModelProto | Emitted, location: str, place: Callable[[bytes | Pending], int]
) -> onnx.ModelProto:
    """The model without its large tensors, which lie in the file ``location`` beside it: ``place`` says where each."""
    held, slim = as_emitted(model), onnx.ModelProto()
    _copy_fields(held.proto, slim, leave="graph")
    _copy_fields(held.graph, slim.graph, leave="initializer")
    for tensor in held.graph.initializer:
        raw = held.raw(tensor)
        large = len(raw) >= SMALL_BYTES
        slim.graph.initializer.append(_reference(tensor, location, place(raw), len(raw)) if large else tensor)
    return slim


def _chunks(tensors: list[tuple[int, bytes | Pending]]) -> Iterator[Piece]:
    written = 0
    for offset, raw in tensors:
        yield bytes(offset - written)
        yield from raw.read() if isinstance(raw, Pending) else (raw,)
        written = offset + len(raw)


def _reference(tensor: onnx.TensorProto, location: str, offset: int, length: int) -> onnx.TensorProto:
    found = onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
    found.doc_string = tensor.doc_string
    found.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", str(offset)), ("length", str(length))):
        found.external_data.add(key=key, value=value)
    return found


def _copy_fields(source: Any, target: Any, leave: str) -> None:
    for entry, value in source.ListFields():
        if entry.name == leave:
            continue
        if hasattr(value, "extend"):
            getattr(target, entry.name).extend(value)
        elif hasattr(value, "CopyFrom"):
            getattr(target, entry.name).CopyFrom(value)
        else:
            setattr(target, entry.name, value)
