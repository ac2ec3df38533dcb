"""The ONNX frontend: a model file or ModelProto becomes a graph.

Shapes are never guessed.  Every axis that the model leaves open gets a size; ONNX's shape inference, and an evaluation
of whatever depends on sizes and literals alone, say the rest; what is then still unknown is measured by one run in
ONNX Runtime.  All of it is done twice, with other sizes: what differs between the two is dynamic, what does not is a
fact, and facts become constants (1/sqrt(head size), the target of a reshape), because shapes will change.

onnx-graphsurgeon reads nodes and attributes; tensors stay where they are (mapped, when they lie beside the model).
Start at :func:`from_onnx`; reading and its refusals are at :func:`read_model`, measuring at :func:`measure`.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.inliner import inline_local_functions
from onnx.shape_inference import infer_shapes

from ..arrays import is_float
from ..errors import Declined, ModelError
from ..graph import Constant, Graph, Node, Shape, Value, substitute, values_in
from ..opset import OPAQUE
from .onnx_names import (
    KNOWN,
    NAMES,
    OPSET,
    RESULT,
    kind_of,
    literal,
    new_call,
    repeated_axes,
    reshape_target,
    shape_of,
    spell,
)

Array = NDArray[Any]
Tensors = dict[str, TensorProto]

BATCH, SPATIAL, OTHER = 2, 224, 16
"""Sizes of axes that the model leaves open: the first, height and width of a 4-D input, any other."""

_STEPS = {BATCH: 1, SPATIAL: 32, OTHER: 8}
_LARGEST_AXIS = 1 << 31
_SMALL = 4096
_LARGEST_FACT = 1 << 22
_LARGEST_CLONE = 1 << 16
_ROUNDS = 32
_DATA_DEPENDENT = frozenset(
    "RandomNormal RandomUniform RandomNormalLike RandomUniformLike Multinomial Bernoulli Dropout If Loop Scan "
    "QuantizeLinear DequantizeLinear DynamicQuantizeLinear".split()
)


# ---------------------------------------------------------------------- reading a file


def read_model(path: str | Path) -> ModelProto:
    """The model at ``path``, checked, with its external tensors loaded.

    Raises
    ------
    ModelError
        The file is missing, truncated or no ONNX model; its external data is missing, too short or outside the model's
        folder; or the model is not valid (see :func:`check`).
    """
    model = _parse(Path(path))
    check(model, str(path))
    for tensor in external_tensors(model):
        array = _mapped(tensor, Path(path))
        tensor.raw_data = array.tobytes()
        tensor.ClearField("data_location")
        tensor.ClearField("external_data")
    return model


def _parse(path: Path) -> ModelProto:
    if not path.is_file():
        found = "a folder, not a file" if path.is_dir() else "no such file"
        raise ModelError(f"reading {path}: {found}", hint="give the path of an .onnx file", path=str(path))
    try:
        model = onnx.load_model(str(path), format="protobuf", load_external_data=False)
    except OSError as error:
        raise ModelError(f"reading {path}: {error.strerror or error}", path=str(path)) from error
    except Exception as error:  # protobuf's DecodeError has another home in each version
        raise ModelError(
            f"reading {path}: not an ONNX model, or truncated ({_first_line(error)})",
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
    slim = _slim(model, stored)
    ordered = _ordered(slim.graph, stored, where)
    del slim.graph.node[:]
    slim.graph.node.extend(ordered)
    for value in slim.graph.output:
        value.type.tensor_type.shape.SetInParent()  # the checker wants a shape, no runtime does
    try:
        onnx.checker.check_model(slim)
    except Exception as error:  # ValidationError, and others out of C++
        raise ModelError(f"{where} is not a valid ONNX model: {_first_line(error)}", hint=_AGAIN) from error


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


def _ordered(graph: GraphProto, stored: Iterable[str], where: str) -> list[NodeProto]:
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
        names |= _outer(inner)
    return names


def _outer(graph: GraphProto) -> dict[str, None]:
    inside = (
        {v.name for v in graph.input} | {t.name for t in graph.initializer} | {o for n in graph.node for o in n.output}
    )
    names: dict[str, None] = {}
    for node in graph.node:
        names |= node_reads(node)
    names |= dict.fromkeys(v.name for v in graph.output)
    return {n: None for n in names if n not in inside}


# ---------------------------------------------------------------------- the model without its weights


def _slim(model: ModelProto, stored: Tensors) -> ModelProto:
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


# ---------------------------------------------------------------------- sizes of the inputs

Sizes = dict[str, Shape]


@dataclass(frozen=True)
class Declared:
    """An input as the model declares it; an axis of open size has a symbol."""

    name: str
    dtype: str
    axes: tuple[int | str, ...]


def _declared(value: onnx.ValueInfoProto, example: Array | None) -> Declared | None:
    """None for what is no tensor."""
    kind = value.type.tensor_type
    if not value.type.HasField("tensor_type"):
        return None
    if not kind.HasField("shape") and example is None:
        raise ModelError(f"input {value.name!r} declares no shape", hint="give example inputs", input=value.name)
    axes = [d.dim_value if d.dim_value > 0 else d.dim_param for d in kind.shape.dim]
    if not kind.HasField("shape") and example is not None:
        axes = [""] * example.ndim
    return Declared(value.name, _dtype(kind.elem_type), tuple(a or f"{value.name}.{d}" for d, a in enumerate(axes)))


def _dtype(elem_type: int) -> str:
    return str(np.dtype(helper.tensor_dtype_to_np_dtype(elem_type)))


@dataclass
class _Axes:
    """Sizes for the symbols of the inputs: an example, and a second one where the symbols differ."""

    inputs: list[Declared]
    example: dict[str, int] = field(default_factory=dict)
    other: dict[str, int] = field(default_factory=dict)

    def choose(self, given: Mapping[str, Array]) -> None:
        leading = {x.axes[0] for x in self.inputs if x.axes}
        for x in self.inputs:
            for d, symbol in enumerate(x.axes):
                if isinstance(symbol, str) and symbol not in self.example:
                    usual = BATCH if symbol in leading else SPATIAL if len(x.axes) == 4 and d > 1 else OTHER
                    wanted = given[x.name].shape[d] if x.name in given else usual
                    self.example[symbol] = max(wanted, BATCH) if symbol in leading else wanted
                    self.other[symbol] = self.example[symbol] + _STEPS[usual]
        self.leading = leading

    def attempts(self) -> Iterator[dict[str, int]]:
        """Second sizes to try: all symbols differ, or the leading ones alone."""
        if self.example:
            yield self.other
        if self.example and set(self.example) - self.leading:
            yield {s: self.other[s] if s in self.leading else n for s, n in self.example.items()}

    def sizes(self, symbols: Mapping[str, int]) -> Sizes:
        return {x.name: tuple(symbols[a] if isinstance(a, str) else a for a in x.axes) for x in self.inputs}


def _check_given(inputs: Sequence[Declared], given: Mapping[str, Array]) -> None:
    known = {x.name: x for x in inputs}
    for name, array in given.items():
        if name not in known:
            raise ModelError(f"the model has no input {name!r}", hint=f"inputs: {', '.join(known)}", input=name)
        axes = known[name].axes
        if len(axes) != array.ndim or any(
            isinstance(a, int) and a != n for a, n in zip(axes, array.shape, strict=True)
        ):
            raise ModelError(
                f"example input {name!r} has shape {list(array.shape)}, the model declares {list(axes)}",
                hint="give an input of the declared shape",
                input=name,
            )


# ---------------------------------------------------------------------- measuring


@dataclass
class Facts:
    """What is known of a model at one choice of input sizes; ``values`` are those that depend on sizes alone."""

    shapes: dict[str, Shape] = field(default_factory=dict)
    dtypes: dict[str, str] = field(default_factory=dict)
    values: dict[str, Array] = field(default_factory=dict)


class _Unfit(Exception):
    """The model does not accept inputs of the sizes tried."""


def measure(slim: ModelProto, stored: Tensors, folder: Path | None, sizes: Sizes, strict: bool) -> Facts:
    """Shapes and size-dependent values of ``slim`` for inputs of ``sizes``.

    ``strict`` makes sizes that contradict each other an error; otherwise such shapes stay unknown.
    """
    facts = Facts(values=_literals(slim, stored))
    model = ModelProto()
    model.CopyFrom(slim)
    _concretise(model.graph, sizes)
    measured = False
    for _ in range(_ROUNDS):
        _infer(model, facts, strict)
        if _evaluate(model, facts):
            continue
        unknown = [o for n in model.graph.node for o in n.output if o and o not in facts.shapes]
        if measured or not unknown:
            break
        measured = True
        facts.shapes |= _run_for_shapes(slim, stored, folder, sizes, unknown)
    return facts


def _literals(slim: ModelProto, stored: Tensors) -> dict[str, Array]:
    """Stored values that no pass changes: integers, single numbers, and what only ops without a declaration read."""
    small = {t.name: t for t in slim.graph.initializer}
    declared = {i for n in slim.graph.node if kind_of(n.op_type, n.domain) in NAMES for i in n.input}
    declared |= {v.name for v in slim.graph.output}
    found = {}
    for name in stored:
        tensor = small.get(name)
        if tensor is None or tensor.data_type == TensorProto.STRING:
            continue
        array = numpy_helper.to_array(tensor)
        if not is_float(array) or array.size == 1 or name not in declared:
            found[name] = array
    return found


def _concretise(graph: GraphProto, sizes: Sizes) -> None:
    for value in graph.input:
        if value.name in sizes:
            shape = helper.make_tensor_value_info("", value.type.tensor_type.elem_type, sizes[value.name])
            value.type.CopyFrom(shape.type)
    for value in graph.output:
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")
    del graph.value_info[:]


def _infer(model: ModelProto, facts: Facts, strict: bool) -> None:
    try:
        inferred = infer_shapes(model, check_type=False, strict_mode=strict, data_prop=True)
    except Exception as error:  # InferenceError, and others out of C++
        if strict:
            raise _Unfit(_first_line(error)) from error
        return
    graph = inferred.graph
    for value in (*graph.value_info, *graph.input, *graph.output):
        kind = value.type.tensor_type
        if kind.elem_type:
            facts.dtypes[value.name] = _dtype(kind.elem_type) if kind.elem_type != TensorProto.STRING else "object"
        elif value.type.WhichOneof("value") not in (None, "tensor_type"):
            facts.dtypes[value.name] = "object"
        if kind.HasField("shape") and all(d.HasField("dim_value") for d in kind.shape.dim):
            facts.shapes.setdefault(value.name, tuple(d.dim_value for d in kind.shape.dim))
    facts.shapes |= {t.name: tuple(t.dims) for t in graph.initializer}


def _evaluate(model: ModelProto, facts: Facts) -> bool:
    """Compute what follows from known values; those nodes become initialisers of ``model``.  False: nothing new."""
    ready: list[NodeProto] = []
    known = set(facts.values)
    for node in model.graph.node:
        if _is_computable(node, known, facts):
            ready.append(node)
            known.update(node.output)
    if not ready:
        return False
    found = _computed(model, ready, facts)
    facts.values |= found
    rest = [n for n in model.graph.node if not all(o in found for o in n.output if o)]
    stuck = len(rest) == len(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(rest)
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(a), name) for name, a in found.items())
    facts.shapes |= {name: a.shape for name, a in found.items()}
    return not stuck


def _is_computable(node: NodeProto, known: set[str], facts: Facts) -> bool:
    if node.domain not in ("", "ai.onnx") or node.op_type in _DATA_DEPENDENT or any(True for _ in subgraphs(node)):
        return False
    if node.op_type in ("Shape", "Size"):
        return node.input[0] in facts.shapes
    if any(math.prod(facts.shapes.get(o, (_LARGEST_FACT,))) >= _LARGEST_FACT for o in node.output if o):
        return False
    return all(name in known for name in node.input if name)


def _computed(model: ModelProto, ready: Sequence[NodeProto], facts: Facts) -> dict[str, Array]:
    """Results of the nodes ``ready``, by ONNX Runtime; by the reference implementation where that cannot."""
    found, nodes = {}, []
    for node in ready:
        if node.op_type in ("Shape", "Size"):
            found[node.output[0]] = _size(node, facts.shapes[node.input[0]])
        else:
            nodes.append(node)
    read = {i for n in nodes for i in n.input}
    constants = {k: a for k, a in {**facts.values, **found}.items() if k in read}
    part = _part(model, nodes, constants)
    names = [o for n in nodes for o in n.output if o]
    part.graph.output.extend(onnx.ValueInfoProto(name=o) for o in names)
    if not names:
        return found
    try:
        results = _session(part).run(names, {})
    except Exception:  # the runtime's exceptions share no base class; the reference knows more types
        results = _by_reference(part, names)
    return found | {k: np.asarray(a) for k, a in zip(names, results, strict=True) if a is not None}


def _by_reference(part: ModelProto, names: Sequence[str]) -> Sequence[Any]:
    from onnx.reference import ReferenceEvaluator

    try:
        return ReferenceEvaluator(part).run(list(names), {})  # type: ignore[return-value]
    except Exception as error:  # whatever an op of the reference raises
        raise _Unfit(_first_line(error)) from error


def _size(node: NodeProto, shape: Shape) -> Array:
    if node.op_type == "Size":
        return np.asarray(math.prod(shape), np.int64)
    bounds = {a.name: a.i for a in node.attribute}
    return np.asarray(shape[bounds.get("start", 0) : bounds.get("end", len(shape))], np.int64)


def _part(model: ModelProto, nodes: Iterable[NodeProto], constants: Mapping[str, Array]) -> ModelProto:
    part = ModelProto(ir_version=model.ir_version)
    part.opset_import.extend(model.opset_import)
    part.graph.name = "part"
    part.graph.node.extend(nodes)
    part.graph.initializer.extend(numpy_helper.from_array(np.asarray(a), name) for name, a in constants.items())
    return part


def _session(model: ModelProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _run_for_shapes(
    slim: ModelProto, stored: Tensors, folder: Path | None, sizes: Sizes, unknown: Sequence[str]
) -> dict[str, Shape]:
    """Shapes of the values ``unknown``, from a run of the model; empty where ONNX Runtime cannot run it."""
    nodes = _needed(slim.graph.node, unknown)
    read = {name for n in nodes for name in node_reads(n)}
    weights = {k: load_tensor(t, folder) for k, t in stored.items() if k in read}
    part = _part(slim, nodes, weights)
    part.graph.input.extend(v for v in slim.graph.input if v.name in sizes and v.name in read)
    for name in unknown:
        part.graph.node.append(helper.make_node("Shape", [name], [f"{name}/shape"]))
        part.graph.output.append(onnx.ValueInfoProto(name=f"{name}/shape"))
    rng = np.random.default_rng(0)
    try:
        feeds = {v.name: _random(rng, sizes[v.name], _dtype(v.type.tensor_type.elem_type)) for v in part.graph.input}
        found = _session(part).run(None, feeds)
    except Exception:  # the runtime cannot run this model: its shapes stay unknown, its nodes pinned
        return {}
    return {name: tuple(int(n) for n in shape) for name, shape in zip(unknown, found, strict=True)}


def _needed(nodes: Sequence[NodeProto], wanted: Iterable[str]) -> list[NodeProto]:
    """The nodes, in order, that the values ``wanted`` depend on."""
    names, kept = set(wanted), []
    for node in reversed(nodes):
        if names.intersection(node.output):
            kept.append(node)
            names.update(node_reads(node))
    return kept[::-1]


def _random(rng: np.random.Generator, shape: Shape, dtype: str) -> Array:
    return (rng.standard_normal(shape) if "float" in dtype else rng.integers(0, 2, shape)).astype(dtype)


# ---------------------------------------------------------------------- tensors


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


# ---------------------------------------------------------------------- building the graph


def from_onnx(model: ModelProto | str | Path, example_inputs: Mapping[str, Array] | None = None) -> Graph:
    """The graph of an ONNX model.

    Parameters
    ----------
    model
        A path (external data is mapped, not read) or a model in memory, which stays as it is.
    example_inputs
        Arrays by input name, for the sizes that the model leaves open.

    Raises
    ------
    ModelError
        The model cannot be read, is not valid, or the example inputs do not fit it.
    """
    path = None if isinstance(model, ModelProto) else Path(model)
    proto = model if isinstance(model, ModelProto) else _parse(Path(model))
    check(proto, str(path or "the model"))
    return _Reader(proto, path, dict(example_inputs or {})).read()


class _Reader:
    def __init__(self, model: ModelProto, path: Path | None, given: dict[str, Array]) -> None:
        self.stored: Tensors = {}
        self.path = path
        self.model = _inlined(model)
        self.slim = _slim(self.model, self.stored)
        self.opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 1)
        ordered = _ordered(self.slim.graph, self.stored, str(path or "the model"))
        del self.slim.graph.node[:]
        self.slim.graph.node.extend(ordered)
        self.declared = [v for v in self.model.graph.input if v.name not in self.stored]
        self.axes = _Axes([d for v in self.declared if (d := _declared(v, given.get(v.name))) is not None])
        _check_given(self.axes.inputs, given)
        self.axes.choose(given)
        self.env: dict[str, Value] = {}
        self.constants: dict[Value, Constant] = {}
        self.nodes: list[Node] = []
        self.taken: set[str] = set()

    def read(self) -> Graph:
        self._measure()
        inputs = [self._value(v.name) for v in self.declared]
        self.env |= {v.name: v for v in inputs}
        self.graph = Graph("onnx", inputs, [], self.nodes, self.constants, self._source())
        with _quiet():
            imported = gs.import_onnx(self.slim)
        for node, proto in zip(imported.nodes, self.slim.graph.node, strict=True):
            self._node(node, proto)
        self.graph.outputs = [self._read(v.name) for v in self.model.graph.output]
        for declared, value in zip(self.graph.source["declared_outputs"], self.graph.outputs, strict=True):
            _complete(declared, value)
        return unshared(_sizes_read(_without_unused(self.graph.prune_unused())), self.stored)

    # ------------------------------------------------------------------ facts

    def _measure(self) -> None:
        """Facts for the example sizes and, where sizes are open, for others."""
        try:
            self.facts = self._facts(self.axes.example, strict=True)
        except _Unfit:
            self.facts = self._facts(self.axes.example, strict=False)
        self.other: Facts | None = None
        self.varied = self.axes.example
        for symbols in self.axes.attempts():
            try:
                self.other, self.varied = self._facts(symbols, strict=True), symbols
                return
            except _Unfit:
                continue

    def _facts(self, symbols: Mapping[str, int], strict: bool) -> Facts:
        try:
            return measure(self.slim, self.stored, self.path, self.axes.sizes(symbols), strict)
        except _Unfit:
            if strict:
                raise
        return Facts()

    def _fixed(self, name: str) -> Array | None:
        """A value that follows from fixed sizes alone."""
        a = self.facts.values.get(name)
        b = a if self.other is None else self.other.values.get(name)
        same = a is not None and b is not None and a.shape == b.shape and np.array_equal(a, b, equal_nan=is_float(a))
        return a if same else None

    def _known(self, value: Value | None) -> Array | None:
        """Elements of a value, None for those that depend on open sizes; None when it depends on data."""
        if value in self.constants:
            return np.asarray(self.constants[value].data)
        a = None if value is None else self.facts.values.get(value.name)
        b = a if self.other is None or value is None else self.other.values.get(value.name)
        if a is None or b is None or a.shape != b.shape:
            return None
        return np.where(a == b, a.astype(object), np.asarray(None))

    def _value(self, name: str) -> Value:
        shape = self.facts.shapes.get(name)
        other = shape if self.other is None else self.other.shapes.get(name)
        if shape is None or other is None or len(other) != len(shape):
            return Value(name, None, self.facts.dtypes.get(name, "float32"))
        dynamic = frozenset(d for d, (m, n) in enumerate(zip(shape, other, strict=True)) if m != n)
        return Value(name, shape, self.facts.dtypes.get(name, "float32"), dynamic)

    # ------------------------------------------------------------------ values

    def _read(self, name: str) -> Value:
        """The value called ``name``; a constant is made when it is first read."""
        if name not in self.env:
            self.env[name] = self._stored(name) if name in self.stored else self._folded(name)
        return self.env[name]

    def _stored(self, name: str) -> Value:
        data = load_tensor(self.stored[name], self.path)
        return self._constant(name, data, "parameter" if is_float(data) else "buffer", name)

    def _folded(self, name: str) -> Value:
        data = self._fixed(name)
        if data is None:
            raise AssertionError(f"nothing computes {name!r}")
        return self._constant(name, data, "literal", f"_literal.{name}")

    def _constant(self, name: str, data: Array, role: str, full_name: str) -> Value:
        value = Value(name, tuple(data.shape), str(data.dtype))
        self.constants[value] = Constant((full_name,), data, role)
        return value

    # ------------------------------------------------------------------ nodes

    def _node(self, node: gs.Node, proto: NodeProto) -> None:
        outputs = list(filter(None, proto.output))
        if all(self._fixed(name) is not None for name in outputs):
            return
        if proto.op_type == "Identity" and self._alias(proto):
            return
        call = self._call(node, proto)
        name = self._unique(proto.name or f"{proto.op_type}_{outputs[0]}")
        values = tuple(self._value(proto.output[k]) for k in call["results"])
        made = Node(name, OPAQUE, (), values, {}, kind_of(proto.op_type, proto.domain), call)
        self._canonical(made)
        self._describe(made)
        self.env |= {v.name: v for v in made.outputs}
        self.nodes.append(made)

    def _call(self, node: gs.Node, proto: NodeProto) -> dict[str, Any]:
        carried = [a for a in proto.attribute if a.type in _CARRIED]
        held = {a.name for a in carried}
        outer = [n for inner in subgraphs(proto) for n in _outer(inner)]
        return {
            "op_type": proto.op_type,
            "domain": proto.domain,
            "attributes": {k: v for k, v in node.attrs.items() if k not in held},
            "inputs": [self._read(n) if n else None for n in proto.input],
            "results": self._results(proto),
            "slots": len(proto.output),
            "protos": carried,
            "outer": {n: self._read(n) for n in dict.fromkeys(outer)},
        }

    def _results(self, proto: NodeProto) -> tuple[int, ...]:
        """Slots of the results: optional ones that nobody reads are left out."""
        if not hasattr(self, "_names_read"):
            self._names_read = {n for p in self.slim.graph.node for n in node_reads(p)}
            self._names_read |= {v.name for v in self.slim.graph.output}
        optional = _optional_results(proto, self.opset)
        return tuple(k for k, n in enumerate(proto.output) if n and (n in self._names_read or k not in optional))

    def _describe(self, node: Node) -> None:
        """Op, operands and attributes; opaque, reading everything, where no declaration fits."""
        everything = tuple(dict.fromkeys(values_in(node.call)))
        if self._is_arithmetic(node):
            node.op, node.inputs = ("size" if node.kind in ("Shape", "Size") else "fill"), ()
            return
        try:
            seen = {**node.call, RESULT: list(node.outputs), KNOWN: self._known, OPSET: self.opset}
            node.op, node.inputs, node.attrs = spell(node.kind, seen)
        except Declined as declined:
            node.op, node.inputs, node.attrs = OPAQUE, everything, {"why": str(declined)}

    def _is_arithmetic(self, node: Node) -> bool:
        """Whether a node computes sizes: its result depends on sizes and literals alone."""
        if node.kind in ("Shape", "Size"):
            node.outputs = tuple(Value(v.name, None, "symint") for v in node.outputs)
            return True
        return all(v.name in self.facts.values and not _is_field(v) for v in node.outputs)

    def _alias(self, proto: NodeProto) -> bool:
        """Exporters store equal tensors once and name the others by an Identity: each is a tensor of its own again."""
        source, name = proto.input[0], proto.output[0]
        if source not in self.stored or name in {v.name for v in self.model.graph.output}:
            return False
        self.stored[name] = tensor = TensorProto()
        tensor.CopyFrom(self.stored[source])
        if _is_tie(load_tensor(tensor, self.path)):
            del self.stored[name]
            self.env[name] = self._read(source)
        return True

    def _unique(self, name: str) -> str:
        found, k = name, 1
        while found in self.taken:
            k += 1
            found = f"{name}_{k}"
        self.taken.add(found)
        return found

    # ------------------------------------------------------------------ targets that are computed

    def _canonical(self, node: Node) -> None:
        """Write sizes that are computed at run time as constants, as far as they are facts."""
        change = {"Reshape": self._reshape, "Expand": self._expand, "Resize": self._resize, "Gather": self._gather}
        inputs = node.call["inputs"]
        if node.kind not in change or len(inputs) < 2 or inputs[0] is None:
            return
        if inputs[0].shape is not None and node.output.shape is not None:
            change[node.kind](node)

    def _reshape(self, node: Node) -> None:
        target = node.call["inputs"][1]
        node.call["copied"] = self._copied(node.call["inputs"][0], node.output)
        if target not in self.constants and self._known(target) is not None:
            self._retarget(node)

    def _retarget(self, node: Node) -> None:
        """A constant target, unless more than one size would be left to the runtime."""
        out, copied = node.output, node.call["copied"]
        sizes = [None if d in out.dynamic else s for d, s in enumerate(shape_of(out))]
        if 0 in sizes or sum(s is None and d not in copied for d, s in enumerate(sizes)) > 1:
            return
        node.call["inputs"][1] = self._literal(f"{node.name}_shape", reshape_target(sizes, copied))
        node.call["attributes"].pop("allowzero", None)

    def _gather(self, node: Node) -> None:
        """All elements of a vector in their order, at indices computed from sizes: what exporters make of a stride."""
        x, index = node.call["inputs"]
        found = [f.values.get(index.name) for f in (self.facts, self.other or self.facts)]
        if len(x.shape) != 1:
            return
        pairs = zip(found, self._both(x)[0], strict=True)
        whole = all(i is not None and np.array_equal(np.ravel(i), np.arange(n)) for i, n in pairs)
        if not whole or len(node.output.dynamic) > 1:
            return
        node.kind, node.call = "Reshape", {**new_call("Reshape", [x, index]), "copied": ()}
        self._retarget(node)

    def _copied(self, x: Value, out: Value) -> tuple[int, ...]:
        """Dynamic axes before which, and at which, a reshape changes nothing."""
        found = []
        pairs = zip(self._both(x), self._both(out), strict=False)
        for d, (before, after) in enumerate(pairs):
            if before != after:
                break
            if d in out.dynamic:
                found.append(d)
        return tuple(found)

    def _both(self, value: Value) -> list[tuple[int, int]]:
        shape = value.shape or ()
        other = shape if self.other is None else self.other.shapes.get(value.name, shape)
        return list(zip(shape, other, strict=True))

    def _expand(self, node: Node) -> None:
        """Axes repeated a dynamic number of times get an Expand of their own: numbers then stand alone in another."""
        x, target = node.call["inputs"]
        out, sizes, known = node.output, shape_of(node.output), self._known(node.call["inputs"][1])
        repeated = repeated_axes(x, out)
        loose = [d for d in repeated if d in out.dynamic]
        firm = [n if d in repeated and d not in loose else 1 for d, n in enumerate(sizes)]
        if known is None or (loose and (self.opset < 9 or len(known) != len(sizes))):
            return
        if loose:
            node.call["inputs"][1] = counts = self._counts(node, target, loose)
        if loose and any(n != 1 for n in firm):
            shape = tuple(1 if d in repeated and d not in loose else n for d, n in enumerate(sizes))
            node.call["inputs"][0] = self._insert(
                "Expand", f"{node.name}_wide", [x, counts], shape, out.dtype, out.dynamic
            )
        if not loose or any(n != 1 for n in firm):
            node.call["inputs"][1] = self._literal(f"{node.name}_shape", firm)
        node.call["explicit"] = True

    def _counts(self, node: Node, target: Value, loose: Sequence[int]) -> Value:
        """``target`` where an axis is repeated a dynamic number of times, 1 (as it is) elsewhere."""
        r = len(shape_of(node.output))
        wanted = self._literal(f"{node.name}_dynamic", [d in loose for d in range(r)], np.bool_)
        ones = self._literal(f"{node.name}_ones", [1] * r)
        return self._insert("Where", f"{node.name}_sizes", [wanted, target, ones], (r,), "int64")

    def _resize(self, node: Node) -> None:
        """Computed sizes: those of the axes that pass are read from the input itself, and follow it."""
        x, inputs = node.call["inputs"][0], node.call["inputs"]
        sizes = inputs[3] if len(inputs) > 3 else None
        if sizes is None or sizes in self.constants or node.call["attributes"].get("axes") is not None:
            return
        r, known = len(shape_of(x)), self._known(sizes)
        if known is None or r < 3 or self._both(x)[:2] != self._both(node.output)[:2]:
            return
        here = self._insert("Shape", f"{node.name}_here", [x], None, "symint")
        lead = self._cut(node, here, 0, 2)
        firm = known[2:]
        if any(n is None for n in firm):
            tail = self._cut(node, sizes, 2, r)
        else:
            tail = self._literal(f"{node.name}_spatial", [int(n) for n in firm])
        inputs[3] = self._insert("Concat", f"{node.name}_sizes", [lead, tail], (r,), "int64", axis=0)
        node.call["explicit"] = True

    def _cut(self, node: Node, vector: Value, start: int, stop: int) -> Value:
        name = f"{node.name}_{vector.name}_{start}"
        index = self._literal(f"{name}_at", list(range(start, stop)))
        return self._insert("Gather", name, [vector, index], (stop - start,), "int64", axis=0)

    def _literal(self, name: str, numbers: Any, dtype: Any = np.int64) -> Value:
        value = literal(self.graph, name, np.asarray(numbers, dtype))
        self.constants = self.graph.constants
        return value

    def _insert(
        self,
        op_type: str,
        name: str,
        inputs: Sequence[Value],
        shape: Shape | None,
        dtype: str,
        dynamic: frozenset[int] = frozenset(),
        **attributes: Any,
    ) -> Value:
        """A node of our own before the one being read; arithmetic on sizes unless it is an Expand."""
        out = Value(name, shape, dtype, dynamic)
        made = Node(self._unique(name), "fill", (), (out,), {}, op_type, new_call(op_type, inputs, **attributes))
        if op_type == "Shape":
            made.op, made.attrs = "size", {"dims": ()}
        elif op_type == "Expand":
            made.call["explicit"] = True
            self._describe(made)
        self.nodes.append(made)
        return out

    # ------------------------------------------------------------------ what the emitter needs

    def _source(self) -> dict[str, Any]:
        fixed = {s: n for s, n in self.axes.example.items() if self.varied[s] == n}
        graph = self.model.graph
        return {
            "opset": self.opset,
            "domains": [(o.domain, o.version) for o in self.model.opset_import],
            "ir_version": max(self.model.ir_version, 4),
            "producer": (self.model.producer_name, self.model.producer_version),
            "name": graph.name or "graph",
            "doc": (self.model.doc_string, graph.doc_string),
            "metadata": {p.key: p.value for p in self.model.metadata_props},
            "declared_inputs": [_with_sizes(v, fixed) for v in self.declared],
            "declared_outputs": [_with_sizes(v, fixed) for v in graph.output],
            "fixed_sizes": fixed,
        }


_CARRIED = frozenset(
    {
        AttributeProto.GRAPH,
        AttributeProto.GRAPHS,
        AttributeProto.TENSORS,
        AttributeProto.SPARSE_TENSOR,
        AttributeProto.SPARSE_TENSORS,
        AttributeProto.TYPE_PROTO,
        AttributeProto.TYPE_PROTOS,
    }
)
"""Types of attributes that graphsurgeon does not carry, or would take apart; they pass as they are."""


def _with_sizes(value: onnx.ValueInfoProto, sizes: Mapping[str, int]) -> onnx.ValueInfoProto:
    """A declaration in which symbols that could not be varied have their example size."""
    copy = onnx.ValueInfoProto()
    copy.CopyFrom(value)
    if value.type.HasField("tensor_type"):
        for d, dim in enumerate(copy.type.tensor_type.shape.dim):
            symbol = dim.dim_param or ("" if dim.dim_value > 0 else f"{value.name}.{d}")
            if symbol in sizes:
                dim.dim_value = sizes[symbol]
    return copy


def _complete(declared: onnx.ValueInfoProto, value: Value) -> None:
    """A declaration that says no shape is given what was measured."""
    kind = declared.type.tensor_type
    if not declared.type.HasField("tensor_type") or kind.HasField("shape"):
        return
    kind.shape.SetInParent()
    for d, size in enumerate(value.shape or ()):
        dim = kind.shape.dim.add()
        if d not in value.dynamic:
            dim.dim_value = size


def _inlined(model: ModelProto) -> ModelProto:
    if not model.functions:
        return model
    try:
        inlined: ModelProto = inline_local_functions(model)
        return inlined
    except Exception as error:  # out of C++
        raise ModelError(f"the model's functions cannot be inlined: {_first_line(error)}", hint=_AGAIN) from error


def _is_field(value: Value) -> bool:
    """Floats with axes of their own, such as a parameter repeated: the axes matter, even where sizes say it all."""
    return "float" in value.dtype and len(value.shape or ()) > 1


def _optional_results(proto: NodeProto, version: int) -> set[int]:
    try:
        schema = onnx.defs.get_schema(proto.op_type, version, proto.domain)
    except onnx.defs.SchemaError:
        return set()
    optional = onnx.defs.OpSchema.FormalParameterOption.Optional
    return {k for k, o in enumerate(schema.outputs) if o.option == optional}


class _quiet:  # noqa: N801  reads as a statement
    """Keeps graphsurgeon's warnings off stderr."""

    def __enter__(self) -> None:
        from onnx_graphsurgeon.logger import G_LOGGER

        self.logger, self.severity = G_LOGGER, G_LOGGER.severity
        G_LOGGER.severity = G_LOGGER.CRITICAL

    def __exit__(self, *error: object) -> None:
        self.logger.severity = self.severity


# ---------------------------------------------------------------------- after reading


def _without_unused(graph: Graph) -> Graph:
    """``graph`` without constants that nothing reads (in place): they would count as units."""
    read = {*graph.consumers(), *graph.outputs}
    graph.constants = {v: c for v, c in graph.constants.items() if v in read}
    return graph


def _sizes_read(graph: Graph) -> Graph:
    """State for each Shape which axes its readers take the size of (in place)."""
    readers = graph.consumers()
    for node in graph.nodes:
        if node.op == "size" and "dims" not in node.attrs and node.output not in graph.outputs:
            x = node.call["inputs"][0]
            taken = [_picked(graph, node, reader) for reader in readers.get(node.output, ())]
            if node.kind == "Shape" and x.shape is not None and all(t is not None for t in taken):
                start = node.call["attributes"].get("start", 0)
                start = start + len(x.shape) if start < 0 else start
                stop = node.call["attributes"].get("end", len(x.shape))
                axes = range(len(x.shape))[start:stop]
                node.attrs["dims"] = tuple(sorted({axes[k] for t in taken for k in t or ()}))
    return graph


def _picked(graph: Graph, node: Node, reader: Node) -> list[int] | None:
    """Elements of a shape that a Gather or Slice takes; None for all."""
    inputs = reader.call["inputs"]
    if reader.kind == "Where" and inputs[1] is node.output and inputs[0] in graph.constants:
        return [int(k) for k in np.flatnonzero(graph.constants[inputs[0]].data)]
    if inputs[0] is not node.output or any(v not in graph.constants for v in inputs[1:] if v is not None):
        return None
    data = [None if v is None else np.ravel(graph.constants[v].data) for v in inputs[1:]]
    if reader.kind == "Gather" and data[0] is not None:
        return [int(k) for k in data[0]]
    if reader.kind == "Slice" and len(data) >= 2 and len(data[0]) == 1:  # type: ignore[arg-type]
        shape = node.call["inputs"][0].shape
        step = int(data[3][0]) if len(data) > 3 and data[3] is not None else 1
        return list(range(len(shape or ())))[int(data[0][0]) : int(data[1][0]) : step]  # type: ignore[index]
    return None


def _is_tie(data: Array) -> bool:
    """Whether readers of one stored tensor share it on purpose.

    Exporters store equal tensors once: fresh biases and norms, all zeros or ones.  Tensors with different elements are
    not equal by chance, and large ones are worth keeping once.
    """
    return bool(data.size > _LARGEST_CLONE or data.size < 2 or (data != data.flat[0]).any())


def unshared(graph: Graph, taken: Iterable[str] = ()) -> Graph:
    """``graph`` with small constants that several nodes read by accident cloned for each (in place).

    Nodes that share another constant on purpose (a layer that is called twice) keep sharing these, too.
    """
    names = {*taken, *(v.name for v in graph.values())}
    readers = graph.consumers()
    apart = {v for v, c in graph.constants.items() if len(readers.get(v, ())) > 1 and _is_accident(c)}
    for value in [v for v in graph.constants if v in apart]:
        owners: dict[tuple[str, ...], Value] = {}
        for node in readers[value]:
            companions = tuple(
                v.name for v in dict.fromkeys(values_in(node.call)) if _companion(graph, v, apart, readers)
            )
            key = companions or (node.name,)
            if not owners:
                owners[key] = value
            elif key not in owners:
                owners[key] = _clone(graph, value, names)
            if owners[key] is not value:
                substitute(node, {value: owners[key]})
    return graph


def _is_accident(constant: Constant) -> bool:
    data = constant.data
    if not is_float(data) or not 1 < data.size <= _LARGEST_CLONE:
        return False
    return constant.role == "literal" or not _is_tie(data)


def _companion(graph: Graph, value: Value, apart: set[Value], readers: Mapping[Value, list[Node]]) -> bool:
    constant = graph.constants.get(value)
    return constant is not None and value not in apart and is_float(constant.data) and len(readers.get(value, ())) > 1


def _clone(graph: Graph, value: Value, names: set[str]) -> Value:
    source, k = graph.constants[value], 2
    while f"{value.name}.{k}" in names:
        k += 1
    name = f"{value.name}.{k}"
    names.add(name)
    copy = Value(name, value.shape, value.dtype)
    full_name = f"_literal.{name}" if source.role == "literal" else name
    graph.constants[copy] = Constant((full_name,), source.data, source.role)
    return copy


def _first_line(error: BaseException) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


__all__ = ["BATCH", "Facts", "check", "from_onnx", "load_tensor", "measure", "read_model", "unshared"]
