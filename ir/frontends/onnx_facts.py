"""What shapes imply: sizes for the open axes of an ONNX model, and all that follows from them.

Shapes are never guessed.  Every axis that the model leaves open has a size (``onnx_sizes.py``); ONNX's shape inference,
and an evaluation of whatever depends on sizes and literals alone, say the rest; what is then still unknown is measured
by one run in ONNX Runtime.  The reader does all of it twice, with other sizes: what differs between the two is dynamic,
what does not is a fact.

Start at :func:`measure`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.shape_inference import infer_shapes

from ..arrays import is_float, random_array
from ..emit.onnx_run import limited
from ..errors import ModelError, first_line
from ..graph import Shape
from .onnx_file import Tensors, disguised, load_tensor, node_reads, subgraphs
from .onnx_names import DEFAULT_DOMAINS, NAMES, kind_of
from .onnx_sizes import Sizes
from .onnx_tensors import AGAIN, LARGEST_AXIS, array_of, numpy_name

Array = NDArray[Any]

_LARGEST_FACT = 1 << 22
_LARGEST_VALUE = 1 << 30
_ROUNDS = 32
_DATA_DEPENDENT = frozenset(
    "RandomNormal RandomUniform RandomNormalLike RandomUniformLike Multinomial Bernoulli Dropout If Loop Scan "
    "QuantizeLinear DequantizeLinear DynamicQuantizeLinear".split()
)


# ---------------------------------------------------------------------- measuring


@dataclass
class Facts:
    """What is known of a model at one choice of input sizes; ``values`` are those that depend on sizes alone."""

    shapes: dict[str, Shape] = field(default_factory=dict)
    dtypes: dict[str, str] = field(default_factory=dict)
    values: dict[str, Array] = field(default_factory=dict)


class Unfit(Exception):
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
        if _evaluate(model, facts, strict):
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
        array = array_of(tensor)
        if not is_float(array) or array.size == 1 or name not in declared:
            found[name] = array
    return found


def _concretise(graph: GraphProto, sizes: Sizes) -> None:
    for value in graph.input:
        if value.name in sizes:
            shape = helper.make_tensor_value_info("", value.type.tensor_type.elem_type, sizes[value.name])
            value.type.CopyFrom(shape.type)
    for value in graph.output:
        value.ClearField("type")
    del graph.value_info[:]


def _infer(model: ModelProto, facts: Facts, strict: bool) -> None:
    ranges = [n for n in model.graph.node if n.op_type == "Range"]
    propagate = all(_is_short(n, facts.values) for n in ranges)  # inference holds each number of a Range as a size
    try:
        inferred = infer_shapes(disguised(model), check_type=False, strict_mode=strict, data_prop=propagate)
    except Exception as error:  # InferenceError, and others out of C++
        if strict:
            raise Unfit(first_line(error)) from error
        return
    graph = inferred.graph
    for value in (*graph.value_info, *graph.input, *graph.output):
        kind = value.type.tensor_type
        if kind.elem_type:
            facts.dtypes[value.name] = numpy_name(kind.elem_type)
        elif value.type.WhichOneof("value") not in (None, "tensor_type"):
            facts.dtypes[value.name] = "object"
        if kind.HasField("shape") and all(d.HasField("dim_value") for d in kind.shape.dim):
            facts.shapes.setdefault(value.name, _sane(value.name, tuple(d.dim_value for d in kind.shape.dim), strict))
    facts.shapes |= {t.name: tuple(t.dims) for t in graph.initializer}


def _is_short(node: NodeProto, values: Mapping[str, Array]) -> bool:
    """Whether a Range is known to give few numbers."""
    known = [values[name].item() for name in node.input if name in values and values[name].size == 1]
    if len(known) < 3:
        return False
    start, stop, step = known
    return bool(step) and (stop - start) / step < _LARGEST_FACT


def _sane(name: str, shape: Shape, strict: bool) -> Shape:
    """``shape``, unless no tensor can have it."""
    if any(not 0 <= d < LARGEST_AXIS for d in shape) or math.prod(shape) > _LARGEST_VALUE:
        if strict:
            raise Unfit(f"the shape of {name}")
        raise ModelError(f"the value {name!r} has the absurd shape {list(shape)}", hint=AGAIN, value=name)
    return shape


def _evaluate(model: ModelProto, facts: Facts, strict: bool) -> bool:
    """Compute what follows from known values; those nodes become initialisers of ``model``.  False: nothing new."""
    ready: list[NodeProto] = []
    known = set(facts.values)
    for node in model.graph.node:
        if _is_computable(node, known, facts):
            ready.append(node)
            known.update(node.output)
    if not ready:
        return False
    try:
        found = _computed(model, ready, facts)
    except Unfit:
        if strict:
            raise
        return False
    facts.values |= found
    rest = [n for n in model.graph.node if not all(o in found for o in n.output if o)]
    stuck = len(rest) == len(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(rest)
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(a), name) for name, a in found.items())
    facts.shapes |= {name: a.shape for name, a in found.items()}
    return not stuck


def _is_computable(node: NodeProto, known: set[str], facts: Facts) -> bool:
    if node.domain not in DEFAULT_DOMAINS or node.op_type in _DATA_DEPENDENT or any(True for _ in subgraphs(node)):
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
    part = part_of(model, nodes, constants)
    names = [o for n in nodes for o in n.output if o]
    part.graph.output.extend(onnx.ValueInfoProto(name=o) for o in names)
    if not names:
        return found
    try:
        results = _session(part).run(names, {})
    except Exception:  # the runtime's exceptions share no base class; the reference knows more types
        results = _by_reference(part, names)
    return found | {k: np.asarray(a) for k, a in zip(names, results, strict=True) if _is_numeric(a)}


def _is_numeric(found: Any) -> bool:
    """An array or number; no text, no sequence, no map, nothing."""
    return isinstance(found, (np.ndarray, np.generic)) and found.dtype.kind not in "OSU"


def _by_reference(part: ModelProto, names: Sequence[str]) -> Sequence[Any]:
    from onnx.reference import ReferenceEvaluator

    try:
        return ReferenceEvaluator(part).run(list(names), {})  # type: ignore[return-value]
    except Exception as error:  # whatever an op of the reference raises
        raise Unfit(first_line(error)) from error


def _size(node: NodeProto, shape: Shape) -> Array:
    if node.op_type == "Size":
        return np.asarray(math.prod(shape), np.int64)
    bounds = {a.name: a.i for a in node.attribute}
    return np.asarray(shape[bounds.get("start", 0) : bounds.get("end", len(shape))], np.int64)


def part_of(model: ModelProto, nodes: Iterable[NodeProto], constants: Mapping[str, Array]) -> ModelProto:
    """A model of some of the nodes of ``model``, without inputs and outputs."""
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
    part = part_of(slim, nodes, weights)
    part.graph.input.extend(v for v in slim.graph.input if v.name in sizes and v.name in read)
    for name in unknown:
        part.graph.node.append(helper.make_node("Shape", [name], [f"{name}/shape"]))
        part.graph.output.append(onnx.ValueInfoProto(name=f"{name}/shape"))
    try:
        feeds = _feeds(part, sizes)
        found = limited(_session(part), None, feeds)
    except ModelError:
        raise
    except Exception:  # the runtime cannot run this model: its shapes stay unknown, its nodes pinned
        return {}
    return {name: tuple(int(n) for n in shape) for name, shape in zip(unknown, found, strict=True)}


def _feeds(part: ModelProto, sizes: Sizes) -> dict[str, Array]:
    rng = np.random.default_rng(0)
    kinds = {v.name: numpy_name(v.type.tensor_type.elem_type) for v in part.graph.input}
    return {name: random_array(rng, sizes[name], kind) for name, kind in kinds.items()}


def _needed(nodes: Sequence[NodeProto], wanted: Iterable[str]) -> list[NodeProto]:
    """The nodes, in order, that the values ``wanted`` depend on."""
    names, kept = set(wanted), []
    for node in reversed(nodes):
        if names.intersection(node.output):
            kept.append(node)
            names.update(node_reads(node))
    return kept[::-1]
