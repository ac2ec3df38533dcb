"""Reading an ONNX file, and everything that is refused.

A model file is untrusted: it may be truncated, may contradict itself, and may name data files anywhere.  Whatever a
later step relies on is checked here, before anything is computed from it: the opset, the sizes of tensors, that values
are made once and before they are read, and that data files lie beside the model.  Tensors stay where they are: those
in data files are mapped, and checkers see the model without its large ones (:func:`slimmed`).

What a single tensor may say stands in ``onnx_tensors.py``; shapes are no concern of this file (``onnx_facts.py``).
Start at :func:`read_model` and :func:`check`.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.inliner import inline_local_functions
from onnx.shape_inference import infer_shapes
from onnx.version_converter import convert_version

from ..errors import ModelError, first_line
from .onnx_names import DEFAULT_DOMAINS, opset_of
from .onnx_tensors import AGAIN, LARGEST_AXIS, PACKED, array_of, byte_count, check_tensor, dense, dtype_of

Array = NDArray[Any]
Tensors = dict[str, TensorProto]
_SMALL = 4096
_LARGEST_INPUT = 1 << 28
_DEEPEST = 32
"""Subgraphs within subgraphs: readers of protobufs stop soon after."""

_LONGEST = 1 << 20
"""Nodes of a model once its functions are in place."""


def read_model(path: str | Path) -> ModelProto:
    """The model at ``path``, checked, with its external tensors loaded.

    Raises
    ------
    ModelError
        The file is missing, truncated or no ONNX model; its external data is missing, too short or outside the model's
        folder; or the model is not valid (see :func:`check`).
    """
    model = parse(Path(path))
    with readable(str(path)):
        check(model, str(path))
        for tensor in external_tensors(model):
            array = _mapped(tensor, Path(path))
            tensor.raw_data = array.tobytes()
            tensor.ClearField("data_location")
            tensor.ClearField("external_data")
    return model


@contextmanager
def readable(where: str) -> Iterator[None]:
    """What is found only when it is read: names that are no text, and sizes that no memory has."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise ModelError(f"{where} holds a name that is not UTF-8: {error.object[:40]!r}", hint=AGAIN) from error
    except MemoryError as error:
        raise ModelError(
            f"reading {where} needs more memory than there is: {first_line(error)}",
            hint="check the sizes that the model declares",
        ) from error


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
    for tensor in _all_tensors(model):
        if tensor.data_location == TensorProto.EXTERNAL:
            yield tensor


def _parts(model: ModelProto, where: str = "the model") -> Iterator[GraphProto | FunctionProto]:
    """The graph, the functions, and the subgraphs in both, at any depth."""
    waiting: list[tuple[GraphProto | FunctionProto, int]] = [(model.graph, 0), *((f, 0) for f in model.functions)]
    while waiting:
        part, depth = waiting.pop()
        if depth > _DEEPEST:
            raise ModelError(f"{where} has subgraphs nested more than {_DEEPEST} deep", hint=AGAIN)
        yield part
        waiting += [(inner, depth + 1) for node in part.node for inner in subgraphs(node)]


def _all_tensors(model: ModelProto) -> Iterator[TensorProto]:
    for part in _parts(model):
        if isinstance(part, GraphProto):
            yield from part.initializer
            yield from (t for s in part.sparse_initializer for t in (s.values, s.indices))
        for node in part.node:
            for attribute in node.attribute:
                yield from ([attribute.t] if attribute.HasField("t") else attribute.tensors)
                if attribute.HasField("sparse_tensor"):
                    yield from (attribute.sparse_tensor.values, attribute.sparse_tensor.indices)


def _mapped(tensor: TensorProto, model: Path) -> Array:
    """The external data of a tensor, mapped into memory and not read."""
    what = f"reading {model}: tensor {tensor.name!r}"
    entries = {e.key: e.value for e in tensor.external_data}
    file = _beside(entries.get("location", ""), model, what)
    dtype, needed = dtype_of(tensor.data_type, what), byte_count(tensor, what)
    if needed is None:
        raise ModelError(f"{what} is of a type that cannot lie in another file", hint=AGAIN)
    offset, length = _count(entries.get("offset") or "0", what), _count(entries.get("length") or str(needed), what)
    there = max(0, file.stat().st_size - offset)
    if there < needed or length != needed:
        found = f"which has {there}" if there < needed else f"and its entry says {length}"
        raise ModelError(f"{what} needs {needed} bytes at {offset} of {file.name}, {found}", hint=_WHOLE)
    if needed == 0:
        return np.zeros(tuple(tensor.dims), dtype)
    if tensor.data_type in PACKED:
        return np.memmap(file, np.uint8, "r", offset, (needed,))
    return np.memmap(file, dtype, "r", offset, tuple(tensor.dims))


def _count(text: str, what: str) -> int:
    """A number of bytes, as an entry of external data spells it."""
    if not (text.isascii() and text.isdigit()):
        raise ModelError(f"{what} has its data at {text!r}, which is no number of bytes", hint=_WHOLE)
    return int(text)


_WHOLE = "copy the .onnx file together with its data files"


def _beside(location: str, model: Path, what: str) -> Path:
    """The data file, which has to lie in the model's folder (where a link to the model leads counts as well)."""
    homes = {model.parent.resolve(), model.resolve().parent}
    lexical = Path(location)
    try:
        file = (model.parent / location).resolve()
        there = file.is_file()
    except (OSError, ValueError) as error:  # a name that is too long, or holds a zero byte
        raise ModelError(f"{what} has its data at {location[:200]!r}: {first_line(error)}", hint=_WHOLE) from error
    if not location or lexical.is_absolute() or "\\" in location or not any(file.is_relative_to(h) for h in homes):
        raise ModelError(
            f"{what} has its data at {location!r}, outside the model's folder",
            hint="data files must lie beside the model; a model that reaches elsewhere may be hostile",
            location=location,
        )
    if ".." in lexical.parts:
        raise ModelError(f"{what} has its data at {location!r}, which goes through a parent folder", hint=_WHOLE)
    if not there:
        raise ModelError(
            f"{what} has its data in {location!r}, and there is no such file", hint=_WHOLE, location=location
        )
    return file


def load_tensor(tensor: TensorProto, folder: Path | None) -> Array:
    """The data of a tensor; ``folder`` is the model's path, for data that lies beside it."""
    if tensor.data_location != TensorProto.EXTERNAL:
        return array_of(tensor)
    if folder is None:
        raise ModelError(
            f"tensor {tensor.name!r} has its data in another file, and the model's folder is not known",
            hint="give the path of the model, or load it with onnx.load",
        )
    mapped = _mapped(tensor, folder)
    if tensor.data_type not in PACKED:
        return mapped
    whole = TensorProto(data_type=tensor.data_type, dims=tensor.dims, raw_data=mapped.tobytes())
    return array_of(whole)


# ---------------------------------------------------------------------- checking


def check(model: ModelProto, where: str = "the model") -> None:
    """Refuse what is no valid model.

    Raises
    ------
    ModelError
        An unknown opset, an axis or tensor of absurd size, an undefined or doubly defined value, a cycle, or whatever
        ``onnx.checker`` finds.
    """
    _check_opset(model, where)
    stored: Tensors = {}
    for part in _parts(model, where):
        if isinstance(part, GraphProto):
            _check_references(part, where)
    for tensor in _all_tensors(model):
        check_tensor(tensor, where)
    for value in model.graph.input:
        _check_declared(value, where, typed=True)
    for value in model.graph.output:
        _check_declared(value, where, typed=False)
    slim = slimmed(model, stored)
    ordered = in_order(slim.graph, stored, where)
    del slim.graph.node[:]
    slim.graph.node.extend(ordered)
    for value in slim.graph.output:
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.shape.SetInParent()  # the checker wants a shape, no runtime does
    try:
        onnx.checker.check_model(disguised(slim))
    except Exception as error:  # ValidationError, and others out of C++
        raise ModelError(f"{where} is not a valid ONNX model: {first_line(error)}", hint=AGAIN) from error


def disguised(model: ModelProto) -> ModelProto:
    """``model`` for tools that know the standard alone, and tolerate ops of other domains.

    ONNX Runtime has a few ops in the default domain that the standard lacks, or got later; its optimiser writes them.
    """
    version = opset_of(model)
    if not any(_is_runtime_op(n, version) for n in model.graph.node):
        return model
    copy = ModelProto()
    copy.CopyFrom(model)
    copy.opset_import.append(helper.make_opsetid(_DISGUISE, 1))
    for node in copy.graph.node:
        if _is_runtime_op(node, version):
            node.domain = _DISGUISE
    return copy


def _is_runtime_op(node: NodeProto, version: int) -> bool:
    if node.op_type not in _RUNTIME_OPS or node.domain not in DEFAULT_DOMAINS:
        return False
    return not onnx.defs.has(node.op_type) or onnx.defs.get_schema(node.op_type).since_version > version


_RUNTIME_OPS = frozenset({"LayerNormalization", "SimplifiedLayerNormalization"})
_DISGUISE = "onnxruntime"


def _check_opset(model: ModelProto, where: str) -> None:
    versions = {o.version for o in model.opset_import if o.domain in DEFAULT_DOMAINS} or {1}
    newest = onnx.defs.onnx_opset_version()
    if len(versions) > 1:
        raise ModelError(f"{where} has two opsets, {' and '.join(map(str, sorted(versions)))}", hint=AGAIN)
    if max(versions) > newest:
        raise ModelError(
            f"{where} has opset {max(versions)}; {newest} is the newest known", hint="upgrade onnx and onnxruntime"
        )


def _check_references(graph: GraphProto, where: str) -> None:
    """Attributes that stand for an argument have a meaning in functions alone."""
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.ref_attr_name:
                raise ModelError(
                    f"{where}: node {node.name!r} ({node.op_type}) refers to {attribute.ref_attr_name!r}, the argument "
                    "of a function, and stands in none",
                    hint=AGAIN,
                    node=node.name,
                )


def _check_declared(value: onnx.ValueInfoProto, where: str, typed: bool) -> None:
    """``typed``: the type has to be known, as that of an input; an output may leave it open."""
    what = f"{where}: {value.name!r}, an input or output,"
    if value.type.HasField("tensor_type") and (typed or value.type.tensor_type.elem_type):
        dtype_of(value.type.tensor_type.elem_type, what)
    dims = [d.dim_value for d in value.type.tensor_type.shape.dim]
    if any(d >= LARGEST_AXIS for d in dims) or math.prod(d for d in dims if d > 0) > _LARGEST_INPUT:
        raise ModelError(f"{what} has the absurd shape {dims}", hint=AGAIN, shape=tuple(dims))


def in_order(graph: GraphProto, stored: Iterable[str], where: str) -> list[NodeProto]:
    """The nodes in a stable topological order."""
    made: dict[str, int] = {}
    given = {*stored, *(v.name for v in graph.input), *(t.name for t in graph.initializer)}
    for k, node in enumerate(graph.node):
        for name in filter(None, node.output):
            if made.setdefault(name, k) != k or name in given:
                raise ModelError(f"{where}: the value {name!r} is computed twice", hint=AGAIN, value=name)
    for value in graph.output:
        if value.name not in made and value.name not in given:
            raise ModelError(f"{where}: the output {value.name!r} is never computed", hint=AGAIN, value=value.name)
    waits: list[set[int]] = []
    readers: dict[int, list[int]] = {}
    for k, node in enumerate(graph.node):
        for name in node_reads(node):
            if name not in made and name not in given:
                what = f"node {node.name or k!r} ({node.op_type})"
                raise ModelError(f"{where}: {what} reads {name!r}, which does not exist", hint=AGAIN, value=name)
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
        raise ModelError(f"{where}: node {stuck.name!r} ({stuck.op_type}) lies on a cycle", hint=AGAIN, node=stuck.name)
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


def upgraded(model: ModelProto) -> ModelProto:
    """``model`` in an opset that ONNX Runtime has kernels for; it has none for the first six.

    Raises
    ------
    ModelError
        ONNX's converter does not know an op of the model.
    """
    version = opset_of(model, _OLDEST_OPSET)
    if version >= _OLDEST_OPSET:
        return model
    try:
        newer: ModelProto = convert_version(infer_shapes(model), _OLDEST_OPSET)  # it wants ranks
        return newer
    except Exception as error:  # out of C++
        raise ModelError(
            f"the model has opset {version}, which ONNX Runtime does not run, and cannot be converted to "
            f"{_OLDEST_OPSET}: {first_line(error)}",
            hint=f"export the model again, with opset {_OLDEST_OPSET} or newer",
            opset=version,
        ) from error


_OLDEST_OPSET = 7


def inlined(model: ModelProto) -> ModelProto:
    """``model`` with calls of its own functions replaced by their bodies."""
    if not model.functions:
        return model
    for function in model.functions:
        if onnx.defs.has(function.name, domain=function.domain):
            raise ModelError(
                f"the model has a function of its own that is called {function.name!r}, as an op of ONNX is",
                hint="runtimes do not agree on which is meant; give the function another name or domain",
            )
    if (length := _inlined_length(model)) > _LONGEST:
        raise ModelError(f"the model's functions come to {length} nodes", hint="export the model without functions")
    try:
        flat: ModelProto = inline_local_functions(model)
        return flat
    except Exception as error:  # out of C++
        raise ModelError(f"the model's functions cannot be inlined: {first_line(error)}", hint=AGAIN) from error


def _inlined_length(model: ModelProto) -> int:
    """Nodes once functions are in place, which may call each other, but not themselves."""
    calls = {f"{f.domain}::{f.name}": Counter(_kinds(f)) for f in model.functions}
    called = {k: [c for c in n if c in calls] for k, n in calls.items()}
    lengths: dict[str, int] = {}
    try:
        order = tuple(TopologicalSorter(called).static_order())
    except CycleError as error:
        raise ModelError(f"the model's functions call each other in a cycle: {error.args[1]}", hint=AGAIN) from error
    for kind in order:
        lengths[kind] = sum(n * lengths.get(c, 1) for c, n in calls[kind].items())
    return sum(lengths.get(kind, 1) for kind in _kinds(model.graph))


def _kinds(part: GraphProto | FunctionProto) -> Iterator[str]:
    waiting = [part]
    while waiting:
        for node in waiting.pop().node:
            yield f"{node.domain}::{node.op_type}"
            waiting += subgraphs(node)


# ---------------------------------------------------------------------- the model without its weights


def slimmed(model: ModelProto, stored: Tensors) -> ModelProto:
    """The model with Constant nodes as initialisers; ``stored`` receives all tensors, of which only small ones stay.

    A large tensor becomes an input of the same name, so that checkers and shape inference do not copy it.
    """
    slim = ModelProto(ir_version=ir_version(model), producer_name=model.producer_name)
    slim.opset_import.extend(model.opset_import)
    slim.functions.extend(model.functions)
    slim.metadata_props.extend(model.metadata_props)
    slim.graph.name = model.graph.name or "graph"
    for tensor in (*model.graph.initializer, *(dense(s, s.values.name) for s in model.graph.sparse_initializer)):
        _store(stored, tensor.name, tensor)
    for node in model.graph.node:
        constant = _constant_tensor(node)
        if constant is None:
            slim.graph.node.append(node)
            _write_defaults(slim.graph.node[-1])
        else:
            _store(stored, node.output[0], constant)
    slim.graph.input.extend(v for v in model.graph.input if v.name not in stored)
    slim.graph.output.extend(model.graph.output)
    for name, tensor in stored.items():
        if math.prod(tensor.dims) <= _SMALL and tensor.data_location != TensorProto.EXTERNAL:
            slim.graph.initializer.append(tensor)
            slim.graph.initializer[-1].name = name
        else:
            slim.graph.input.append(helper.make_tensor_value_info(name, tensor.data_type, tensor.dims))
    return slim


def ir_version(model: ModelProto) -> int:
    """The version of the file format to write: as new as the opsets need, since runtimes learn new ones late.

    From 4 on initialisers are no inputs.
    """
    needed: int = helper.find_min_ir_version_for(list(model.opset_import), ignore_unknown=True)
    return max(4, min(int(model.ir_version), max(needed, _KNOWN_FORMAT)))


_KNOWN_FORMAT = 10


def _write_defaults(node: NodeProto) -> None:
    """Write down a default that ONNX's own shape inference forgets, and then finds the node invalid."""
    if node.op_type == "MeanVarianceNormalization" and not node.attribute:
        node.attribute.append(helper.make_attribute("axes", [0, 2, 3]))


def _store(stored: Tensors, name: str, tensor: TensorProto) -> None:
    if stored.setdefault(name, tensor) is not tensor:
        raise ModelError(f"two tensors of the model are named {name!r}", hint=AGAIN, tensor=name)


_CONSTANTS: dict[str, tuple[int, Callable[[AttributeProto, str], TensorProto]]] = {
    "value": (AttributeProto.TENSOR, lambda a, name: a.t),
    "sparse_value": (AttributeProto.SPARSE_TENSOR, lambda a, name: dense(a.sparse_tensor, name)),
    "value_int": (AttributeProto.INT, lambda a, name: numpy_helper.from_array(np.asarray(a.i, np.int64))),
    "value_ints": (AttributeProto.INTS, lambda a, name: numpy_helper.from_array(np.asarray(list(a.ints), np.int64))),
    "value_float": (AttributeProto.FLOAT, lambda a, name: numpy_helper.from_array(np.asarray(a.f, np.float32))),
    "value_floats": (
        AttributeProto.FLOATS,
        lambda a, name: numpy_helper.from_array(np.asarray(list(a.floats), np.float32)),
    ),
}
"""How a Constant node spells its tensor: the attribute, its type, and the tensor in it."""


def _constant_tensor(node: NodeProto) -> TensorProto | None:
    """The tensor behind a Constant node; None for another node, a textual constant, or one that is not valid."""
    default = node.op_type == "Constant" and node.domain in DEFAULT_DOMAINS
    if not default or len(node.attribute) != 1 or len(node.output) != 1 or node.input:
        return None
    (attribute,) = node.attribute
    kind, tensor = _CONSTANTS.get(attribute.name, (None, None))
    return tensor(attribute, node.output[0]) if tensor is not None and attribute.type == kind else None
