"""Reading an ONNX file, and everything that is refused.

A model file is untrusted: it may be truncated, may contradict itself, and may name data files anywhere.  Whatever a
later step relies on is checked here, before anything is computed from it: the opset, the sizes of tensors, that values
are made once and before they are read, and that data files lie beside the model.  Tensors stay where they are: those
in data files are mapped, and checkers see the model without its large ones (:func:`slimmed`).

Shapes are no concern of this file (``onnx_facts.py``).  Start at :func:`read_model` and :func:`check`.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.inliner import inline_local_functions

from ..errors import ModelError, first_line

Array = NDArray[Any]
Tensors = dict[str, TensorProto]
_LARGEST_AXIS = 1 << 31
_SMALL = 4096


def read_model(path: str | Path) -> ModelProto:
    """The model at ``path``, checked, with its external tensors loaded.

    Raises
    ------
    ModelError
        The file is missing, truncated or no ONNX model; its external data is missing, too short or outside the model's
        folder; or the model is not valid (see :func:`check`).
    """
    model = parse(Path(path))
    check(model, str(path))
    for tensor in external_tensors(model):
        array = _mapped(tensor, Path(path))
        tensor.raw_data = array.tobytes()
        tensor.ClearField("data_location")
        tensor.ClearField("external_data")
    return model


def parse(path: Path) -> ModelProto:
    """The model at ``path`` as it is written: neither checked, nor its external data loaded."""
    if not path.is_file():
        found = "a folder, not a file" if path.is_dir() else "no such file"
        raise ModelError(f"reading {path}: {found}", hint="give the path of an .onnx file", path=str(path))
    try:
        model = onnx.load_model(str(path), format="protobuf", load_external_data=False)
    except OSError as error:
        raise ModelError(
            f"reading {path}: {error.strerror or error}", hint="check the permissions of the file", path=str(path)
        ) from error
    except Exception as error:  # protobuf's DecodeError has another home in each version
        raise ModelError(
            f"reading {path}: not an ONNX model, or truncated ({first_line(error)})",
            hint="export or download the file again",
            path=str(path),
        ) from error
    if not model.ir_version or not model.HasField("graph"):
        raise ModelError(f"reading {path}: the file holds no ONNX graph", hint="export or download the file again")
    return model


def external_tensors(model: ModelProto) -> Iterator[TensorProto]:
    """Tensors of the model, at any depth, whose bytes lie in other files."""
    for tensor in _all_tensors(model.graph):
        if tensor.data_location == TensorProto.EXTERNAL:
            yield tensor


def _all_tensors(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield from ([attribute.t] if attribute.HasField("t") else attribute.tensors)
            for inner in subgraphs(node):
                yield from _all_tensors(inner)


def _mapped(tensor: TensorProto, model: Path) -> Array:
    """The external data of a tensor, mapped into memory and not read."""
    what = f"reading {model}: tensor {tensor.name!r}"
    entries = {e.key: e.value for e in tensor.external_data}
    file = _beside(entries.get("location", ""), model, what)
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type))
    offset, needed = int(entries.get("offset", 0) or 0), math.prod(tensor.dims) * dtype.itemsize
    there = max(0, file.stat().st_size - offset)
    if tensor.data_type in _PACKED:
        needed = -(-math.prod(tensor.dims) // 2)
    if offset < 0 or there < needed:
        raise ModelError(f"{what} needs {needed} bytes at {offset} of {file.name}, which has {there}", hint=_WHOLE)
    if needed == 0:
        return np.zeros(tuple(tensor.dims), dtype)
    if tensor.data_type in _PACKED:
        return np.memmap(file, np.uint8, "r", offset, (needed,))
    return np.memmap(file, dtype, "r", offset, tuple(tensor.dims))


_PACKED = frozenset({TensorProto.INT4, TensorProto.UINT4, getattr(TensorProto, "FLOAT4E2M1", TensorProto.INT4)})
_WHOLE = "copy the .onnx file together with its data files"


def _beside(location: str, model: Path, what: str) -> Path:
    """The data file, which has to lie in the model's folder (where a link to the model leads counts as well)."""
    homes = {model.parent.resolve(), model.resolve().parent}
    file = (model.parent / location).resolve()
    lexical = Path(location)
    if not location or lexical.is_absolute() or "\\" in location or not any(file.is_relative_to(h) for h in homes):
        raise ModelError(
            f"{what} has its data at {location!r}, outside the model's folder",
            hint="data files must lie beside the model; a model that reaches elsewhere may be hostile",
            location=location,
        )
    if ".." in lexical.parts:
        raise ModelError(f"{what} has its data at {location!r}, which goes through a parent folder", hint=_WHOLE)
    if not file.is_file():
        raise ModelError(
            f"{what} has its data in {location!r}, and there is no such file", hint=_WHOLE, location=location
        )
    return file


def load_tensor(tensor: TensorProto, folder: Path | None) -> Array:
    """The data of a tensor; ``folder`` is the model's path, for data that lies beside it."""
    if tensor.data_location != TensorProto.EXTERNAL:
        return numpy_helper.to_array(tensor)
    if folder is None:
        raise ModelError(
            f"tensor {tensor.name!r} has its data in another file, and the model's folder is not known",
            hint="give the path of the model, or load it with onnx.load",
        )
    mapped = _mapped(tensor, folder)
    if tensor.data_type not in _PACKED:
        return mapped
    whole = TensorProto(data_type=tensor.data_type, dims=tensor.dims, raw_data=mapped.tobytes())
    return numpy_helper.to_array(whole)


# ---------------------------------------------------------------------- checking


def check(model: ModelProto, where: str = "the model") -> None:
    """Refuse what is no valid model.

    Raises
    ------
    ModelError
        An unknown opset, an axis or tensor of absurd size, an undefined or doubly defined value, a cycle, or whatever
        ``onnx.checker`` finds.
    """
    version = max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=1)
    if version > onnx.defs.onnx_opset_version():
        newest = onnx.defs.onnx_opset_version()
        raise ModelError(
            f"{where} has opset {version}; {newest} is the newest known", hint="upgrade onnx and onnxruntime"
        )
    stored: Tensors = {}
    for tensor in _all_tensors(model.graph):
        _check_tensor(tensor, where)
    for value in model.graph.input:
        _check_declared(value, where)
    slim = slimmed(model, stored)
    ordered = in_order(slim.graph, stored, where)
    del slim.graph.node[:]
    slim.graph.node.extend(ordered)
    for value in slim.graph.output:
        value.type.tensor_type.shape.SetInParent()  # the checker wants a shape, no runtime does
    try:
        onnx.checker.check_model(slim)
    except Exception as error:  # ValidationError, and others out of C++
        raise ModelError(f"{where} is not a valid ONNX model: {first_line(error)}", hint=_AGAIN) from error


_AGAIN = "onnx.checker.check_model says more; export the model again"


def _check_tensor(tensor: TensorProto, where: str) -> None:
    what = f"{where}: tensor {tensor.name!r} of shape {list(tensor.dims)}"
    if tensor.data_type in (TensorProto.UNDEFINED, TensorProto.STRING):
        return
    if any(not 0 <= d < _LARGEST_AXIS for d in tensor.dims):
        raise ModelError(f"{what} has an axis of absurd size", hint=_AGAIN, shape=tuple(tensor.dims))
    if not tensor.HasField("raw_data") or tensor.data_location == TensorProto.EXTERNAL or tensor.data_type in _PACKED:
        return
    try:
        width = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type)).itemsize
    except KeyError:
        raise ModelError(f"{what} has the unknown data type {tensor.data_type}", hint=_AGAIN) from None
    if math.prod(tensor.dims) * width != len(tensor.raw_data):
        raise ModelError(
            f"{what} holds {len(tensor.raw_data)} bytes, not {math.prod(tensor.dims) * width}", hint=_AGAIN
        )


def _check_declared(value: onnx.ValueInfoProto, where: str) -> None:
    dims = [d.dim_value for d in value.type.tensor_type.shape.dim]
    if any(d >= _LARGEST_AXIS for d in dims) or math.prod(d for d in dims if d > 0) >= _LARGEST_AXIS:
        raise ModelError(f"{where}: input {value.name!r} has the absurd shape {dims}", hint=_AGAIN, shape=tuple(dims))


def in_order(graph: GraphProto, stored: Iterable[str], where: str) -> list[NodeProto]:
    """The nodes in a stable topological order."""
    made: dict[str, int] = {}
    given = {*stored, *(v.name for v in graph.input), *(t.name for t in graph.initializer)}
    given |= {t.values.name for t in graph.sparse_initializer}
    for k, node in enumerate(graph.node):
        for name in filter(None, node.output):
            if made.setdefault(name, k) != k or name in given:
                raise ModelError(f"{where}: the value {name!r} is computed twice", hint=_AGAIN, value=name)
    for value in graph.output:
        if value.name not in made and value.name not in given:
            raise ModelError(f"{where}: the output {value.name!r} is never computed", hint=_AGAIN, value=value.name)
    waits: list[set[int]] = []
    readers: dict[int, list[int]] = {}
    for k, node in enumerate(graph.node):
        for name in node_reads(node):
            if name not in made and name not in given:
                what = f"node {node.name or k!r} ({node.op_type})"
                raise ModelError(f"{where}: {what} reads {name!r}, which does not exist", hint=_AGAIN, value=name)
        waits.append({made[name] for name in node_reads(node) if name in made})
        for before in waits[k]:
            readers.setdefault(before, []).append(k)
    return _released(graph.node, waits, readers, where)


def _released(
    nodes: Sequence[NodeProto], waits: list[set[int]], readers: Mapping[int, list[int]], where: str
) -> list[NodeProto]:
    ready, order = [k for k, w in enumerate(waits) if not w], []
    while ready:
        order.append(k := heapq.heappop(ready))
        for reader in readers.get(k, ()):
            waits[reader].discard(k)
            if not waits[reader]:
                heapq.heappush(ready, reader)
    if len(order) < len(nodes):
        stuck = next(n for k, n in enumerate(nodes) if waits[k])
        raise ModelError(
            f"{where}: node {stuck.name!r} ({stuck.op_type}) lies on a cycle", hint=_AGAIN, node=stuck.name
        )
    return [nodes[k] for k in order]


def subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    """The bodies of If, Loop and Scan."""
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs


def node_reads(node: NodeProto) -> dict[str, None]:
    """Names that a node reads: its inputs, and what its subgraphs take from outside."""
    names = dict.fromkeys(filter(None, node.input))
    for inner in subgraphs(node):
        names |= outer_reads(inner)
    return names


def outer_reads(graph: GraphProto) -> dict[str, None]:
    """Names that a subgraph takes from outside."""
    inside = (
        {v.name for v in graph.input} | {t.name for t in graph.initializer} | {o for n in graph.node for o in n.output}
    )
    names: dict[str, None] = {}
    for node in graph.node:
        names |= node_reads(node)
    names |= dict.fromkeys(v.name for v in graph.output)
    return {n: None for n in names if n not in inside}


def inlined(model: ModelProto) -> ModelProto:
    """``model`` with calls of its own functions replaced by their bodies."""
    if not model.functions:
        return model
    try:
        flat: ModelProto = inline_local_functions(model)
        return flat
    except Exception as error:  # out of C++
        raise ModelError(f"the model's functions cannot be inlined: {first_line(error)}", hint=_AGAIN) from error


# ---------------------------------------------------------------------- the model without its weights


def slimmed(model: ModelProto, stored: Tensors) -> ModelProto:
    """The model with Constant nodes as initialisers; ``stored`` receives all tensors, of which only small ones stay.

    A large tensor becomes an input of the same name, so that checkers and shape inference do not copy it.
    """
    slim = ModelProto(ir_version=max(model.ir_version, 4), producer_name=model.producer_name)
    slim.opset_import.extend(model.opset_import)
    slim.functions.extend(model.functions)
    slim.metadata_props.extend(model.metadata_props)
    slim.graph.name = model.graph.name or "graph"
    stored.update((t.name, t) for t in model.graph.initializer)
    for node in model.graph.node:
        tensor = _constant_tensor(node)
        if tensor is None:
            slim.graph.node.append(node)
            _write_defaults(slim.graph.node[-1])
        else:
            stored[node.output[0]] = tensor
    slim.graph.input.extend(v for v in model.graph.input if v.name not in stored)
    slim.graph.output.extend(model.graph.output)
    slim.graph.sparse_initializer.extend(model.graph.sparse_initializer)
    for name, tensor in stored.items():
        if math.prod(tensor.dims) <= _SMALL and tensor.data_location != TensorProto.EXTERNAL:
            slim.graph.initializer.append(tensor)
            slim.graph.initializer[-1].name = name
        else:
            slim.graph.input.append(helper.make_tensor_value_info(name, tensor.data_type, tensor.dims))
    return slim


def _write_defaults(node: NodeProto) -> None:
    """Write down a default that ONNX's own shape inference forgets, and then finds the node invalid."""
    if node.op_type == "MeanVarianceNormalization" and not node.attribute:
        node.attribute.append(helper.make_attribute("axes", [0, 2, 3]))


def _constant_tensor(node: NodeProto) -> TensorProto | None:
    """The tensor behind a Constant node; None for another node, or a sparse or textual constant."""
    if node.op_type != "Constant" or node.domain not in ("", "ai.onnx") or len(node.attribute) != 1:
        return None
    (a,) = node.attribute
    if a.name == "value":
        tensor: TensorProto = a.t
        return tensor
    if a.name in ("value_int", "value_ints"):
        return numpy_helper.from_array(np.asarray(a.i if a.name == "value_int" else list(a.ints), np.int64))
    if a.name in ("value_float", "value_floats"):
        return numpy_helper.from_array(np.asarray(a.f if a.name == "value_float" else list(a.floats), np.float32))
    return None
