"""What shapes imply: sizes for the open axes of an ONNX model, and all that follows from them.

Shapes are never guessed.  Every axis that the model leaves open gets a size (:class:`Axes`); ONNX's shape inference,
and an evaluation of whatever depends on sizes and literals alone, say the rest; what is then still unknown is measured
by one run in ONNX Runtime.  The reader does all of it twice, with other sizes: what differs between the two is dynamic,
what does not is a fact.

Start at :func:`measure`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.shape_inference import infer_shapes

from ..arrays import is_float
from ..emit.onnx_run import limited
from ..errors import ModelError, first_line
from ..graph import Shape
from ..words import did_you_mean
from .onnx_file import Tensors, disguised, load_tensor, node_reads, subgraphs
from .onnx_names import NAMES, kind_of
from .onnx_tensors import AGAIN, LARGEST_AXIS, array_of, dtype_of

Array = NDArray[Any]

BATCH, SPATIAL, OTHER = 2, 224, 16
LONGER = (128, 1024, 16384)
"""Sizes of axes that the model leaves open: the first, height and width of a 4-D input, any other, which may be too
short for the model; it is tried with longer ones then."""

_STEPS = {BATCH: 1, SPATIAL: 32, OTHER: 8}
_LARGEST_FACT = 1 << 22
_LARGEST_VALUE = 1 << 30
_LARGEST_TRIAL = 1 << 28
_ROUNDS = 32
_DATA_DEPENDENT = frozenset(
    "RandomNormal RandomUniform RandomNormalLike RandomUniformLike Multinomial Bernoulli Dropout If Loop Scan "
    "QuantizeLinear DequantizeLinear DynamicQuantizeLinear".split()
)


# ---------------------------------------------------------------------- sizes of the inputs

Sizes = dict[str, Shape]


@dataclass(frozen=True)
class Declared:
    """An input as the model declares it; an axis of open size has a symbol."""

    name: str
    dtype: str
    axes: tuple[int | str, ...]


def declaration(value: onnx.ValueInfoProto, example: Array | None) -> Declared | None:
    """An input as it is declared; None for what is no tensor."""
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
    """A numpy dtype's name; ``str`` for text, since ``object`` is what is no tensor."""
    return "str" if elem_type == TensorProto.STRING else str(dtype_of(elem_type, "a value"))


def element_type(dtype: str) -> int:
    """ONNX's number for a dtype's name: the inverse of what values are given."""
    return TensorProto.STRING if dtype == "str" else int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


@dataclass
class Axes:
    """Sizes for the symbols of the inputs: an example, and a second one where the symbols differ."""

    inputs: list[Declared]
    example: dict[str, int] = field(default_factory=dict)
    other: dict[str, int] = field(default_factory=dict)
    lengths: list[str] = field(default_factory=list)

    def choose(self, given: Mapping[str, Array]) -> None:
        """Give every symbol its two sizes."""
        leading = {x.axes[0] for x in self.inputs if x.axes}
        for x in self.inputs:
            for d, symbol in enumerate(x.axes):
                if isinstance(symbol, str) and symbol not in self.example:
                    usual = BATCH if symbol in leading else SPATIAL if len(x.axes) == 4 and d > 1 else OTHER
                    wanted = given[x.name].shape[d] if x.name in given else usual
                    self.example[symbol] = max(wanted, BATCH) if symbol in leading else wanted
                    self.other[symbol] = self.example[symbol] + _STEPS[usual]
                    if usual == OTHER and x.name not in given:
                        self.lengths.append(symbol)
        for symbol in [s for s in self.lengths if not s.isidentifier()]:
            self._compute(symbol)
        self.leading = leading

    def _compute(self, symbol: str) -> None:
        """A symbol may be a sum of others (``past + sequence``); it then has the size that this says."""
        for sizes in (self.example, self.other):
            sizes[symbol] = total(symbol, sizes) or sizes[symbol]

    def longer(self, size: int) -> None:
        """Give lengths that nobody chose the size ``size``: audio has more samples than a text has words."""
        for symbol in self.lengths:
            self.example[symbol], self.other[symbol] = size, size + size // 2
        for symbol in [s for s in self.lengths if not s.isidentifier()]:
            self._compute(symbol)

    def attempts(self) -> Iterator[dict[str, int]]:
        """Second sizes to try: all symbols differ, or the leading ones alone."""
        if self.example:
            yield self.other
        if self.example and set(self.example) - self.leading:
            yield {s: self.other[s] if s in self.leading else n for s, n in self.example.items()}

    def sizes(self, symbols: Mapping[str, int]) -> Sizes:
        """The shapes of the inputs once symbols have sizes."""
        return {x.name: tuple(symbols[a] if isinstance(a, str) else a for a in x.axes) for x in self.inputs}


def total(text: str, sizes: Mapping[str, int]) -> int | None:
    """The size that a sum of symbols and numbers says; None for any other text."""
    found = 0
    for sign, term in re.findall(r"([+-]?)\s*([^+-]+)", text):
        size = int(term) if term.strip().isdecimal() else sizes.get(term.strip())
        if size is None:
            return None
        found += -size if sign == "-" else size
    return found


def check_given(inputs: Sequence[Declared], given: Mapping[str, Array]) -> None:
    """Refuse example inputs that the model does not declare."""
    known = {x.name: x for x in inputs}
    for name, array in given.items():
        if name not in known:
            hint = did_you_mean(name, known, f"inputs: {', '.join(known)}")
            raise ModelError(f"the model has no input {name!r}", hint=hint, input=name)
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
            facts.dtypes[value.name] = _dtype(kind.elem_type)
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
        found = limited(_session(part), None, feeds)
    except ModelError:
        raise
    except Exception:  # the runtime cannot run this model: its shapes stay unknown, its nodes pinned
        return {}
    return {name: tuple(int(n) for n in shape) for name, shape in zip(unknown, found, strict=True)}


def runs(slim: ModelProto, stored: Tensors, folder: Path | None, sizes: Sizes) -> bool:
    """Whether ONNX Runtime runs the model on inputs of ``sizes``; granted to a large one, denied to large inputs."""
    if sum(math.prod(t.dims) for t in stored.values()) > _LARGEST_TRIAL:
        return True
    if sum(map(math.prod, sizes.values())) > _LARGEST_FACT:
        return False
    part = _part(slim, slim.graph.node, {k: load_tensor(t, folder) for k, t in stored.items()})
    part.graph.input.extend(v for v in slim.graph.input if v.name in sizes)
    part.graph.output.extend(slim.graph.output)
    rng = np.random.default_rng(0)
    try:
        feeds = {v.name: _random(rng, sizes[v.name], _dtype(v.type.tensor_type.elem_type)) for v in part.graph.input}
        limited(_session(part), None, feeds)
    except Exception:  # the runtime's exceptions share no base class; what is wrong is said when the model is run
        return False
    return True


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
