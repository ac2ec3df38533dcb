"""ONNX op types and the ops they spell.  Names only: what an op means stands in ``ir/ops``.

The call of an ONNX node is a dict: ``op_type`` and ``domain``; ``attributes`` by name; ``inputs``, a list with None
for what is absent; ``results``, the output slots that the node's values fill, of ``slots`` in all; ``outer``, the
values that its subgraphs read by name; ``copied``, for a reshape, the axes whose size is that of the same input
axis; ``explicit``, where the frontend has made computed sizes follow the operands.
A reader sees the call and, besides, :data:`RESULT`, :data:`KNOWN` and :data:`OPSET`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..arrays import to_numpy
from ..errors import Declined
from ..graph import Constant, Graph, Node, Value
from .spelling import Arguments, Read, Spelling, Write, axes_of, axis_of, rank, renamed, size, unchanged, whole

if TYPE_CHECKING:
    from onnx import ModelProto

RESULT = "<result>"
"""The values that the node computes."""

KNOWN = "<known>"
"""A function from a value to what is known of it: an array, None where an element depends on the input's sizes."""

OPSET = "<opset>"
"""The version of the default domain."""

DEFAULT_DOMAINS = ("", "ai.onnx")
"""What the default domain is called."""

Table = dict[str, Spelling]
Sizes = tuple[int | None, ...]
_FAR = 1 << 31
_END = int(np.iinfo(np.int64).max)
"""Where a slice stops that goes to the end of an axis of any size."""


def kind_of(op_type: str, domain: str) -> str:
    """The kind of a node: its op type, with the domain before it unless that is the default one."""
    return op_type if domain in DEFAULT_DOMAINS else f"{domain}::{op_type}"


def opset_of(model: ModelProto, default: int = 1) -> int:
    """The version of the default domain that a model declares; ``default`` where it declares none."""
    return next((int(o.version) for o in model.opset_import if o.domain in DEFAULT_DOMAINS), default)


def operand(a: Arguments, k: int) -> Value | None:
    """Input ``k``, None where it is absent."""
    inputs: list[Value | None] = a["inputs"]
    return inputs[k] if k < len(inputs) else None


def _x(a: Arguments) -> Value:
    found = operand(a, 0)
    if found is None or found.shape is None:
        raise Declined("the first input is absent or of unknown shape")
    return found


def _attribute(a: Arguments, name: str, default: Any) -> Any:
    return a["attributes"].get(name, default)


def integers(a: Arguments, k: int) -> Sizes | None:
    """The integers of input ``k``, None for elements that depend on the input's sizes; None where it is absent.

    Raises
    ------
    Declined
        When the input is computed from data.
    """
    value = operand(a, k)
    if value is None:
        return None
    known = a[KNOWN](value)
    if known is None:
        raise Declined(f"input {k} is computed from data")
    return tuple(None if i is None else int(i) for i in np.ravel(known))


def _either(a: Arguments, name: str, k: int) -> Sizes | None:
    """Integers that older opsets spell as an attribute and newer ones as input ``k``."""
    given = a["attributes"].get(name)
    return tuple(given) if isinstance(given, (list, tuple)) else integers(a, k)


def _numbers(sizes: Sizes) -> tuple[int, ...]:
    return tuple(whole(s) for s in sizes)


def shape_of(value: Value) -> tuple[int, ...]:
    """The example sizes of a value; declines when they are not known."""
    if value.shape is None:
        raise Declined(f"the shape of {value} is not known")
    return value.shape


def _result_sizes(a: Arguments) -> Sizes:
    out: Value = a[RESULT][0]
    return tuple(None if d in out.dynamic else s for d, s in enumerate(shape_of(out)))


# ---------------------------------------------------------------------- layers


def _conv(a: Arguments) -> dict[str, Any]:
    auto = _attribute(a, "auto_pad", "NOTSET")
    padded = any(_attribute(a, "pads", ())) or auto not in ("NOTSET", "VALID")
    return {"groups": int(_attribute(a, "group", 1)), "padded": padded}


def _quantise(a: Arguments) -> dict[str, Any]:
    """Blocks along the axis, if there are any, show in the rank of the scale."""
    scale = operand(a, 1)
    single = scale is None or scale.shape is None or math.prod(scale.shape) == 1
    function = "number" if a["op_type"] == "DequantizeLinear" else "code"
    return {"dim": 0 if single else axis_of(_attribute(a, "axis", 1), _x(a)), "function": function}


def _function(name: str) -> Read:
    return lambda a: {"function": name}


def _gemm_quantised(a: Arguments) -> dict[str, Any]:
    if _attribute(a, "transA", 0):
        raise Declined(_TRANSPOSED)
    return {}


def _transb(a: Arguments) -> bool:
    return bool(_attribute(a, "transB", 0))


_TRANSPOSED = "the first factor is transposed"


def _gemm(a: Arguments) -> dict[str, Any]:
    bias = operand(a, 2)
    if _attribute(a, "transA", 0):
        raise Declined(_TRANSPOSED)
    if bias is not None and rank(bias) > 1 and _transb(a):
        raise Declined("the bias is a matrix")
    scaled = _attribute(a, "alpha", 1.0) != 1.0 or _attribute(a, "beta", 1.0) != 1.0
    return {"scaled": True} if scaled else {}


def _matmul(a: Arguments) -> dict[str, Any]:
    if min(rank(operand(a, 0)), rank(operand(a, 1))) < 2:
        raise Declined("a product with a vector")
    return {}


def _batch_norm(a: Arguments) -> dict[str, Any]:
    if _attribute(a, "training_mode", 0) or len(a[RESULT]) > 1:
        raise Declined("batch statistics")
    if a[OPSET] < 9 and not _attribute(a, "spatial", 1):
        raise Declined("statistics for each position")
    return {"eps": float(_attribute(a, "epsilon", 1e-5))}


def _group_norm(a: Arguments) -> dict[str, Any]:
    if a[OPSET] < 21:
        raise Declined("one scale for each group, not for each channel")
    return {"groups": int(a["attributes"]["num_groups"])}


def _trailing(a: Arguments) -> dict[str, Any]:
    """``axis`` to the end is normalised; scale and bias have one element for each position there."""
    x = _x(a)
    first = axis_of(_attribute(a, "axis", -1), x)
    if any(v is not None and v.shape != shape_of(x)[first:] for v in a["inputs"][1:]):
        raise Declined("the scale is broadcast")
    return {"rank": rank(x) - first}


def _along(default: int) -> Read:
    return lambda a: {"dims": (axis_of(_attribute(a, "axis", default), _x(a)),), "keepdim": False}


def _softmax_quantised(a: Arguments) -> dict[str, Any]:
    """A removed position is a code for zero that only the reader of the result knows: the axis is kept."""
    return _softmax({**a, OPSET: _attribute(a, "opset", a[OPSET])})


def _softmax(a: Arguments) -> dict[str, Any]:
    """Before opset 13 the input counts as a matrix: everything from ``axis`` on is one axis."""
    x = _x(a)
    if a[OPSET] >= 13:
        return _along(-1)(a)
    return {"dims": tuple(range(axis_of(_attribute(a, "axis", 1), x), rank(x))), "keepdim": False}


_STILL_ZERO = frozenset({"Relu", "LeakyRelu", "Tanh"})


def _fused(read: Read) -> Read:
    """A layer with a function after it: no constant may be folded into its bias, and zeros have to stay zeros."""

    def with_activation(a: Arguments) -> dict[str, Any]:
        if (name := str(_attribute(a, "activation", "Relu"))) not in _STILL_ZERO:
            raise Declined(f"fused with {name}")
        return {**read(a), "scaled": True}

    return with_activation


def _matmul_fused(a: Arguments) -> dict[str, Any]:
    if any(_attribute(a, name, 0) for name in ("transA", "transBatchA", "transBatchB")):
        raise Declined(_TRANSPOSED)
    return {**_matmul(a), **({"scaled": True} if _attribute(a, "alpha", 1.0) != 1.0 else {})}


def _skip(a: Arguments) -> dict[str, Any]:
    if operand(a, 1) is None or shape_of(_x(a)) != operand(a, 1).shape:  # type: ignore[union-attr]
        raise Declined("what is added is broadcast")
    return {"rank": 1, "results": tuple(a["results"])}


def _embedded(a: Arguments) -> dict[str, Any]:
    return {"rank": 1, "results": tuple(a["results"])}


_PLAIN = frozenset({"num_heads", "unidirectional", "scale", "mask_filter_value", "qkv_hidden_sizes"})


def _attention_packed(a: Arguments) -> dict[str, Any]:
    """Query, key and value from one weight, all of one size."""
    weight, sizes = operand(a, 1), _attribute(a, "qkv_hidden_sizes", None) or [0]
    options = {k for k, v in a["attributes"].items() if v} - _PLAIN
    if options or len(set(sizes)) > 1 or len(a[RESULT]) > 1 or any(v is not None for v in a["inputs"][4:]):
        raise Declined("attention with a cache, a bias of scores, or sizes of its own")
    heads = int(a["attributes"]["num_heads"])
    scale = _attribute(a, "scale", 0.0) or (size(weight, 1) // 3 // heads) ** -0.5
    return {"heads": heads, "scale": scale}


def _attention_packed_back(node: Node, changed: Mapping[str, Any]) -> tuple[str, Arguments]:
    """Sizes follow from the weight; the scale does not."""
    named = {"num_heads" if k == "heads" else k: v for k, v in changed.items()}
    return node.kind, with_attributes(node.call, {**named, "qkv_hidden_sizes": None})


def _mean_variance(a: Arguments) -> dict[str, Any]:
    """All axes count: ONNX Runtime adds no epsilon, so a channel of zeros is 0 / 0 and stands for no removed one."""
    return {"dims": tuple(range(rank(_x(a)))), "keepdim": False}


def _attention(a: Arguments) -> dict[str, Any]:
    q, k = _x(a), operand(a, 1)
    if rank(q) != 4 or len(a[RESULT]) > 1 or any(v is not None for v in a["inputs"][4:]):
        raise Declined("attention with a cache, or on packed heads")
    if operand(a, 3) is not None and size(q, 1) != size(k, 1):
        raise Declined("grouped queries with a mask")
    scale = a["attributes"].get("scale")
    causal = bool(_attribute(a, "is_causal", 0))
    attrs: dict[str, Any] = {"scale": size(q, 3) ** -0.5 if scale is None else scale, "causal": causal}
    return attrs if size(q, 1) == size(k, 1) else {**attrs, "kv_heads": size(k, 1)}


def _attention_back(node: Node, changed: Mapping[str, Any]) -> tuple[str, Arguments]:
    """The count of key heads follows from the operands; the scale does not."""
    return node.kind, with_attributes(node.call, {"scale": changed["scale"]} if "scale" in changed else {})


def _recurrent(gates: int) -> Read:
    def read(a: Arguments) -> dict[str, Any]:
        directions = 2 if _attribute(a, "direction", "forward") == "bidirectional" else 1
        if _attribute(a, "layout", 0):
            raise Declined("the batch comes first")
        return {
            "gates": gates,
            "directions": directions,
            "hidden": int(_attribute(a, "hidden_size", size(operand(a, 2), 2))),
            "results": tuple(a["results"]),
            "silent": _silent(_attribute(a, "activations", None) or (), directions),
        }

    return read


def _silent(activations: Sequence[str], directions: int) -> bool:
    """Whether a unit without weights and state stays zero: all functions but those of gates are 0 at 0."""
    each = len(activations) // directions
    return all(f.lower() in _ZERO_AT_ZERO for k, f in enumerate(activations) if each == 1 or k % each)


# ---------------------------------------------------------------------- shapes


def _reshape(a: Arguments) -> dict[str, Any]:
    sizes = _result_sizes(a)
    if a.get("explicit"):
        return {"shape": sizes}
    integers(a, 1)
    rest = [d for d, s in enumerate(sizes) if s is None and d not in a.get("copied", ())]
    if len(rest) > 1:
        raise Declined("more than one size depends on the input and is no copy of the same input axis")
    return {"shape": sizes}


def reshape_target(shape: Sequence[int | None], copied: Sequence[int]) -> NDArray[np.int64]:
    """The second input of a Reshape: 0 copies a size, -1 leaves one to the runtime."""
    loose = [None if s is None or s < 0 else s for s in shape]
    target = [s if s is not None else 0 if d in copied else -1 for d, s in enumerate(loose)]
    if target.count(-1) > 1:
        raise AssertionError(f"shape {tuple(shape)} leaves more than one size to the runtime")
    return np.asarray(target, np.int64)


def _unsized(a: Arguments) -> dict[str, Any]:
    return {"shape": _result_sizes(a)}


def _expand(a: Arguments) -> dict[str, Any]:
    _x(a)
    if not a.get("explicit"):
        raise Declined("sizes that are computed from data, or in a way that is not understood")
    return {"shape": _result_sizes(a)}


def repeated_axes(x: Value, out: Value) -> list[int]:
    """Axes of ``out`` that an Expand makes: new ones, and those that were one position."""
    before, after = shape_of(x), shape_of(out)
    lead = len(after) - len(before)
    return [d for d, n in enumerate(after) if d < lead or before[d - lead] != n]


def _permute(a: Arguments) -> dict[str, Any]:
    r = rank(_x(a))
    return {"dims": tuple(d % r for d in _attribute(a, "perm", None) or reversed(range(r)))}


def _slice(a: Arguments) -> dict[str, Any]:
    x = _x(a)
    starts, stops = _either(a, "starts", 1), _either(a, "ends", 2)
    if starts is None or stops is None:
        raise Declined("bounds are absent")
    axes, steps = _either(a, "axes", 3) or tuple(range(len(starts))), integers(a, 4) or (1,) * len(starts)
    cuts = [_cut(x, axis_of(d, x), *bounds) for d, *bounds in zip(axes, starts, stops, steps, strict=True)]
    if len(cuts) > 1 and any(start is None for _, start, _, _ in cuts):
        raise Declined("several axes are cut, one of them at bounds that depend on the input")
    return {"slices": tuple(cuts)}


Cut = tuple[int, int | None, int | None, int]


def _cut(x: Value, d: int, start: int | None, stop: int | None, step: int | None) -> Cut:
    n, step = size(x, d), whole(step)
    if d in x.dynamic and not (start == 0 and stop is not None and stop >= _FAR - 1):
        return d, None, None, step
    if start is None or stop is None or step < 1:
        return d, None, None, step
    return d, _bound(start, n), _bound(stop, n), step


def _bound(value: int, n: int) -> int:
    return min(max(value + n if value < 0 else value, 0), n)


def _split(a: Arguments) -> dict[str, Any]:
    x = _x(a)
    d = axis_of(_attribute(a, "axis", 0), x)
    if d in x.dynamic:
        raise Declined("an axis of dynamic size is split")
    return {"dim": d, "sizes": tuple(size(v, d) for v in a[RESULT])}


def _cat(a: Arguments) -> dict[str, Any]:
    return {"dim": axis_of(_attribute(a, "axis", 1), a[RESULT][0])}


def _gather(a: Arguments) -> dict[str, Any]:
    """One position, a constant vector of positions, or any tensor of indices."""
    x = _x(a)
    d, known = axis_of(_attribute(a, "axis", 0), x), a[KNOWN](operand(a, 1))
    fixed = known is not None and not any(i is None for i in np.ravel(known))
    if not fixed or d in x.dynamic or np.ndim(known) > 1:
        return {"dims": (d,)}
    positions = tuple(int(i) % size(x, d) for i in np.ravel(known))
    return {"dim": d, "indices": positions} if np.ndim(known) else {"dim": d, "index": positions[0]}


def _gather_nd(a: Arguments) -> dict[str, Any]:
    """The last axis of the indices counts the axes of the value that they point into."""
    indices = operand(a, 1)
    assert indices is not None
    if _attribute(a, "batch_dims", 0) or rank(indices) - 1 in indices.dynamic:
        raise Declined("indices that differ from one example to the next")
    return {"dims": tuple(range(size(indices, rank(indices) - 1)))}


def _gather_elements(a: Arguments) -> dict[str, Any]:
    return {"dim": axis_of(_attribute(a, "axis", 0), _x(a))}


def _gather_op(a: Arguments, attrs: Mapping[str, Any]) -> str:
    if "dims" not in attrs:
        return "take" if "indices" in attrs else "select"
    return "embedding" if attrs["dims"] == (0,) and rank(_x(a)) == 2 else "index"


def _tile(a: Arguments) -> dict[str, Any]:
    repeats = integers(a, 1)
    if repeats is None or a[OPSET] < 6:
        raise Declined("repeats of opset 1")
    return {"repeats": repeats}


def _pad(a: Arguments) -> dict[str, Any]:
    x = _x(a)
    mode = str(_attribute(a, "mode", "constant"))
    return {"pads": _pairs(a, x), "mode": mode, "value": _fill(a)}


def _fill(a: Arguments) -> float:
    """What is padded with; NaN where that is computed."""
    value = operand(a, 2)
    if value is None:
        return float(_attribute(a, "value", 0.0))
    known = a[KNOWN](value)
    return math.nan if known is None or known.size != 1 or known.item() is None else float(known.item())


def _pairs(a: Arguments, x: Value) -> tuple[tuple[int, int], ...]:
    flat = _either(a, "pads", 1)
    if flat is None or a[OPSET] < 2:
        raise Declined("paddings of opset 1")
    numbers, given = _numbers(flat), integers(a, 3)
    axes = [axis_of(d, x) for d in given] if given is not None else range(rank(x))
    half = len(numbers) // 2
    pairs = {d: (numbers[k], numbers[half + k]) for k, d in enumerate(axes)}
    return tuple(pairs.get(d, (0, 0)) for d in range(rank(x)))


def _block(a: Arguments) -> dict[str, Any]:
    return {"block": int(a["attributes"]["blocksize"])}


# ---------------------------------------------------------------------- pools, reductions, the rest


def _pool(function: str) -> Read:
    return lambda a: {"spatial": rank(_x(a)) - 2, "function": function}


def _average_pool(a: Arguments) -> dict[str, Any]:
    auto = _attribute(a, "auto_pad", "NOTSET") not in ("NOTSET", "VALID")
    borders = any(_attribute(a, "pads", ())) or auto or _attribute(a, "ceil_mode", 0)
    return {"spatial": rank(_x(a)) - 2, "function": "mean with borders" if borders else "mean"}


def _pool_quantised(a: Arguments) -> dict[str, Any]:
    if _attribute(a, "channels_last", 0):
        raise Declined("channels come last")
    return _average_pool(a)


def _resize(a: Arguments) -> dict[str, Any]:
    """Sizes and scales name every axis; ``sizes`` is kept only where it must follow the channels."""
    x, out = _x(a), a[RESULT][0]
    before, after = shape_of(x), shape_of(out)
    changed = [d for d, (m, n) in enumerate(zip(before, after, strict=True)) if m != n]
    spatial = len(before) - min([2, *changed])
    if operand(a, 3) is None or a["attributes"].get("axes") is not None or a.get("explicit"):
        return {"spatial": spatial, "function": "resample"}
    return {"spatial": spatial, "function": "resample", "sizes": _numbers(integers(a, 3) or ())}


def _reduce(function: str) -> Read:
    def read(a: Arguments) -> dict[str, Any]:
        axes = _either(a, "axes", 1)
        if not axes and _attribute(a, "noop_with_empty_axes", 0):
            return {"function": function, "dims": (), "keepdim": True}
        dims, keep = axes_of(axes, _x(a)), bool(_attribute(a, "keepdims", 1))
        return {"function": function, "dims": dims, "keepdim": keep}

    return read


def _extremum(largest: bool) -> Any:
    def read(a: Arguments) -> dict[str, Any]:
        dims = (axis_of(_attribute(a, "axis", 0), _x(a)),)
        return {"dims": dims, "keepdim": bool(_attribute(a, "keepdims", 1)), "largest": largest}

    return read


def _top(a: Arguments) -> dict[str, Any]:
    dims = (axis_of(_attribute(a, "axis", -1), _x(a)),)
    return {"dims": dims, "keepdim": True, "largest": bool(_attribute(a, "largest", 1))}


def _scan(a: Arguments) -> dict[str, Any]:
    axes = integers(a, 1)
    if axes is None or len(axes) != 1:
        raise Declined("the axis is absent")
    return {"dims": (axis_of(axes[0], _x(a)),)}


def _matrices(a: Arguments) -> dict[str, Any]:
    return {"dims": axes_of([-2, -1], _x(a))}


def _one_result(a: Arguments) -> dict[str, Any]:
    if len(a[RESULT]) > 1:
        raise Declined("a second result is used")
    return {}


def _einsum(a: Arguments) -> dict[str, Any]:
    return {"equation": a["attributes"]["equation"]}


# ---------------------------------------------------------------------- writing back


def with_attributes(call: Arguments, attributes: Mapping[str, Any]) -> Arguments:
    """``call`` with some attributes replaced, removed where None."""
    merged = {**call["attributes"], **attributes}
    return {**call, "attributes": {k: v for k, v in merged.items() if v is not None}}


def _with_input(graph: Graph, node: Node, k: int, array: Any, suffix: str, **attributes: Any) -> tuple[str, Arguments]:
    """``node`` reading a new integer constant as input ``k``; the constant belongs to it alone."""
    inputs = list(node.call["inputs"])
    inputs += [None] * (k + 1 - len(inputs))
    inputs[k] = literal(graph, f"{node.name}_{suffix}", np.asarray(array, np.int64))
    return node.kind, {**with_attributes(node.call, attributes), "inputs": inputs}


def literal(graph: Graph, name: str, array: NDArray[Any]) -> Value:
    """A new constant that belongs to no parameter; it takes the place of one of that name that no other node reads."""
    earlier = next((v for v, c in graph.constants.items() if v.name == name and c.role == "literal"), None)
    if earlier is not None and len(graph.consumers().get(earlier, ())) > 1:
        return literal(graph, f"{name}_2", array)
    if earlier is not None:
        del graph.constants[earlier]
    value = Value(name, array.shape, str(array.dtype))
    graph.constants[value] = Constant((f"_literal.{name}",), constant(array), "literal")
    return value


def _new_literal(graph: Graph, name: str, array: NDArray[Any]) -> Value:
    """A constant that takes the place of none."""
    taken = {v.name for v in graph.constants}
    while name in taken:
        name += "_"
    return literal(graph, name, array)


Put = Callable[[Graph, Node, Mapping[str, Any]], tuple[str, Arguments]]


def _reshape_back(graph: Graph, node: Node, changed: Mapping[str, Any]) -> tuple[str, Arguments]:
    if node.call.get("explicit"):
        return node.kind, node.call  # it leaves what may change to the runtime
    target = reshape_target(changed["shape"], node.call.get("copied", ()))
    return _with_input(graph, node, 1, target, "shape", allowzero=None, shape=None)


def _expand_back(graph: Graph, node: Node, changed: Mapping[str, Any]) -> tuple[str, Arguments]:
    """A target of 1 keeps the size that is there, so only repeated axes need a number."""
    x = node.inputs[0]
    assert x is not None
    repeated = repeated_axes(x, node.output)
    sizes = [n if d in repeated else 1 for d, n in enumerate(changed["shape"])]
    if any(n is None or n < 0 for n in sizes):
        return node.kind, node.call  # the frontend gave dynamic axes an Expand of their own
    return _with_input(graph, node, 1, sizes, "shape")


def _slice_back(graph: Graph, node: Node, changed: Mapping[str, Any]) -> tuple[str, Arguments]:
    x = node.inputs[0]
    assert x is not None
    axes, starts, stops, steps = zip(*changed["slices"], strict=True)
    stops = tuple(_END if d in x.dynamic else stop for d, stop in zip(axes, stops, strict=True))
    if opset(graph) < 10:
        return node.kind, with_attributes(node.call, {"starts": starts, "ends": stops, "axes": axes})
    node.call = _with_input(graph, node, 1, starts, "starts")[1]
    node.call = _with_input(graph, node, 2, stops, "ends")[1]
    node.call = _with_input(graph, node, 3, axes, "axes")[1]
    return _with_input(graph, node, 4, steps, "steps")


def _split_back(graph: Graph, node: Node, changed: Mapping[str, Any]) -> tuple[str, Arguments]:
    if opset(graph) < 13:
        return node.kind, with_attributes(node.call, {"split": list(changed["sizes"])})
    return _with_input(graph, node, 1, changed["sizes"], "sizes", num_outputs=None)


def _gather_back(graph: Graph, node: Node, changed: Mapping[str, Any]) -> tuple[str, Arguments]:
    index = changed["indices"] if node.op == "take" else changed["index"]
    return _with_input(graph, node, 1, index, "indices")


def _pad_back(graph: Graph, node: Node, changed: Mapping[str, Any]) -> tuple[str, Arguments]:
    flat = [p[0] for p in changed["pads"]] + [p[1] for p in changed["pads"]]
    if opset(graph) < 11:
        return node.kind, with_attributes(node.call, {"pads": flat})
    node.call = {**node.call, "inputs": node.call["inputs"][:3]}  # all axes are named
    return _with_input(graph, node, 1, flat, "pads")


def _resize_back(graph: Graph, node: Node, changed: Mapping[str, Any]) -> tuple[str, Arguments]:
    return _with_input(graph, node, 3, changed["sizes"], "sizes")


_PUT: dict[str, Put] = {
    "Reshape": _reshape_back,
    "Expand": _expand_back,
    "Slice": _slice_back,
    "Split": _split_back,
    "Gather": _gather_back,
    "Pad": _pad_back,
    "Resize": _resize_back,
}


# ---------------------------------------------------------------------- the table

_TENSORS = (
    "Abs Acos Acosh Add And Asin Asinh Atan Atanh BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Cast "
    "Ceil Celu Clip Cos Cosh Div Elu Equal Erf Exp Floor Gelu Greater GreaterOrEqual HardSigmoid HardSwish Identity "
    "IsInf IsNaN LeakyRelu Less LessOrEqual Log Max Mean Min Mish Mod Mul Neg Not Or Pow Reciprocal Relu Round Selu "
    "Shrink Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Sub Sum Swish Tan Tanh ThresholdedRelu Where Xor "
    "com.microsoft::Gelu com.microsoft::QuickGelu com.microsoft::BiasGelu com.microsoft::FastGelu"
)
_ZERO_AT_ZERO = frozenset("tanh relu leakyrelu thresholdedrelu scaledtanh elu softsign".split())
_POOLS = {"max": "MaxPool GlobalMaxPool", "mean": "GlobalAveragePool", "norm": "LpPool GlobalLpPool"}
_REDUCE = {
    "mean": "ReduceMean",
    "sum": "ReduceSum",
    "max": "ReduceMax",
    "min": "ReduceMin",
    "product": "ReduceProd",
    "norm": "ReduceL1 ReduceL2 ReduceSumSquare",
    "logsum": "ReduceLogSum",
    "logsumexp": "ReduceLogSumExp",
}


def _first(count: int) -> tuple[str, ...]:
    return tuple(str(k) for k in range(count))


def _same(op: str, names: str, *rest: Any) -> Table:
    return {n: Spelling(op, *rest) for n in names.split()}


def _by_function(op: str, names: Mapping[str, str], read: Callable[[str], Read]) -> Table:
    """Kinds of ``op`` that differ in their ``function``: ``names`` has the kinds of each."""
    return {k: s for function, kinds in names.items() for k, s in _same(op, kinds, _first(1), read(function)).items()}


NAMES: Table = {
    "Conv": Spelling("conv", _first(3), _conv, renamed(groups="group")),
    "ConvTranspose": Spelling("conv_transpose", _first(3), _conv, renamed(groups="group")),
    "Gemm": Spelling("linear", _first(3), _gemm),
    "MatMul": Spelling("matmul", _first(2), _matmul),
    "Einsum": Spelling("einsum", None, _einsum),
    "BatchNormalization": Spelling("batch_norm", _first(5), _batch_norm),
    "InstanceNormalization": Spelling("batch_norm", _first(3)),
    "GroupNormalization": Spelling("group_norm", _first(3), _group_norm, renamed(groups="num_groups")),
    "LayerNormalization": Spelling("layer_norm", _first(3), _trailing),
    "RMSNormalization": Spelling("layer_norm", _first(2), _trailing),
    "LpNormalization": Spelling("normalise", _first(1), _along(-1)),
    "MeanVarianceNormalization": Spelling("normalise", _first(1), _mean_variance),
    "SimplifiedLayerNormalization": Spelling("layer_norm", _first(2), _trailing),
    "com.microsoft::SkipLayerNormalization": Spelling("layer_norm_of_sum", _first(5), _skip),
    "com.microsoft::SkipSimplifiedLayerNormalization": Spelling("layer_norm_of_sum", ("0", "1", "2", "", "3"), _skip),
    "com.microsoft::EmbedLayerNormalization": Spelling("layer_norm_of_tables", tuple("23456"), _embedded),
    "com.microsoft::Attention": Spelling("attention_packed", _first(3), _attention_packed, _attention_packed_back),
    "com.microsoft::FusedConv": Spelling("conv", _first(3), _fused(_conv), renamed(groups="group")),
    "com.microsoft::FusedGemm": Spelling("linear", _first(3), _fused(_gemm)),
    "com.microsoft::FusedMatMul": Spelling("matmul", _first(2), _matmul_fused),
    "LRN": Spelling("local_response_norm", _first(1)),
    "Attention": Spelling("attention", _first(4), _attention, _attention_back),
    **_same("quantise", "QuantizeLinear DequantizeLinear", _first(3), _quantise),
    **_same("quantise", "com.microsoft::QuantizeLinear com.microsoft::DequantizeLinear", _first(3), _quantise),
    "DynamicQuantizeLinear": Spelling("quantise_dynamic", _first(1)),
    "QLinearConv": Spelling("conv_quantised", tuple("038124567"), _conv, renamed(groups="group")),
    "ConvInteger": Spelling("conv_quantised", ("0", "1", "", "", "2", "", "3"), _conv, renamed(groups="group")),
    "QLinearMatMul": Spelling("matmul_quantised", ("0", "3", "", *"124567")),
    "MatMulInteger": Spelling("matmul_quantised", ("0", "1", "", "", "2", "", "3")),
    "com.microsoft::MatMulIntegerToFloat": Spelling("matmul_quantised", tuple("0162435")),
    "com.microsoft::QGemm": Spelling("linear_quantised", tuple("036124578"), _gemm_quantised),
    "com.microsoft::QLinearAdd": Spelling("elementwise_quantised", _first(8), _function("sum")),
    "com.microsoft::QLinearMul": Spelling("elementwise_quantised", _first(8), _function("product")),
    "com.microsoft::QLinearSigmoid": Spelling("activation_quantised", _first(5), _function("sigmoid")),
    "com.microsoft::QLinearLeakyRelu": Spelling("activation_quantised", _first(5), _function("leaky_relu")),
    "com.microsoft::QLinearSoftmax": Spelling("softmax_quantised", _first(5), _softmax_quantised),
    "com.microsoft::QLinearConcat": Spelling("cat_quantised", None, _cat),
    "com.microsoft::QLinearGlobalAveragePool": Spelling("pool_quantised", _first(5), _pool_quantised),
    "com.microsoft::QLinearAveragePool": Spelling("pool_quantised", _first(5), _pool_quantised),
    "LSTM": Spelling("recurrent_stacked", _first(8), _recurrent(4), renamed(hidden="hidden_size")),
    "GRU": Spelling("recurrent_stacked", _first(6), _recurrent(3), renamed(hidden="hidden_size")),
    "RNN": Spelling("recurrent_stacked", _first(6), _recurrent(1), renamed(hidden="hidden_size")),
    "PRelu": Spelling("elementwise", _first(2)),  # a slope is broadcast from the right
    "Dropout": Spelling("elementwise", _first(1), _one_result),
    "Reshape": Spelling("reshape", _first(1), _reshape),
    "Transpose": Spelling("permute", _first(1), _permute),
    "Concat": Spelling("cat", None, _cat),
    "Split": Spelling("split", _first(1), _split),
    "Slice": Spelling("slice", _first(1), _slice),
    "Gather": Spelling("index", _first(2), _gather),
    "GatherND": Spelling("index", _first(2), _gather_nd),
    "GatherElements": Spelling("gather", _first(2), _gather_elements),
    "Expand": Spelling("expand", _first(1), _expand),
    "Tile": Spelling("tile", _first(1), _tile),
    "Pad": Spelling("pad", _first(1), _pad),
    "DepthToSpace": Spelling("depth_to_space", _first(1), _block),
    "SpaceToDepth": Spelling("space_to_depth", _first(1), _block),
    "Resize": Spelling("pool", _first(1), _resize),
    "Upsample": Spelling("pool", _first(1), _resize),
    "CumSum": Spelling("scan", _first(1), _scan),
    "Trilu": Spelling("scan", _first(1), _matrices),
    "TopK": Spelling("rank_along", _first(1), _top),
    **_same("normalise", "Softmax LogSoftmax Hardmax", _first(1), _softmax),
    "ArgMax": Spelling("rank_along", _first(1), _extremum(True)),
    "ArgMin": Spelling("rank_along", _first(1), _extremum(False)),
    **_same("reshape", "Flatten Squeeze Unsqueeze", _first(1), _unsized, unchanged),
    **_by_function("reduce", _REDUCE, _reduce),
    **_by_function("pool", _POOLS, _pool),
    "AveragePool": Spelling("pool", _first(1), _average_pool),
    **_same("elementwise", _TENSORS, None, _one_result),
    **_same("fill", "ConstantOfShape EyeLike Range RandomNormal RandomUniform"),
}


def spell(kind: str, a: Arguments) -> tuple[str, tuple[Value | None, ...], dict[str, Any]]:
    """Op, operands and attributes of a node; raises :class:`Declined` where no declaration fits."""
    spelling = NAMES.get(kind)
    if spelling is None:
        raise Declined("no declaration for this op")
    attrs = spelling.read(a) if spelling.read else {}
    op, names = _variant(kind, spelling, a, attrs)
    return op, tuple(a["inputs"] if names is None else (operand(a, int(n)) if n else None for n in names)), attrs


def _variant(
    kind: str, spelling: Spelling, a: Arguments, attrs: Mapping[str, Any]
) -> tuple[str, tuple[str, ...] | None]:
    """Some op types spell one op or another, as their attributes say."""
    if kind == "com.microsoft::FusedMatMul" and _transb(a):
        return "matmul_t", spelling.operands
    if kind in ("Gemm", "com.microsoft::FusedGemm") and not _transb(a):
        return "linear_t", spelling.operands
    if kind == "com.microsoft::QGemm" and not _transb(a):
        return "matmul_quantised", spelling.operands
    if kind == "Gather":
        op = _gather_op(a, attrs)
        return op, _first(1) if op == "select" else spelling.operands
    if kind == "Attention" and "kv_heads" in attrs:
        return "attention_grouped", _first(3)
    if kind == "DepthToSpace" and _attribute(a, "mode", "DCR") == "CRD":
        return "pixel_shuffle", spelling.operands
    return spelling.op, spelling.operands


# ---------------------------------------------------------------------- what passes call


def opset(graph: Graph) -> int:
    """The version of the default domain that ``graph`` is written in."""
    return int(graph.source["opset"])


def write(graph: Graph, node: Node, changed: Mapping[str, Any]) -> tuple[str, Arguments]:
    """Kind and call of ``node`` once its attributes changed."""
    put = _PUT.get(node.kind)
    if put is not None:
        return put(graph, node, {**node.attrs, **changed})
    back: Write | None = NAMES[node.kind].write
    if back is None:
        raise AssertionError(f"{node.kind} cannot take back {dict(changed)}")
    if back in (_attention_back, _attention_packed_back, unchanged):
        return back(node, changed)
    inner = Node(node.name, node.op, node.inputs, node.outputs, node.attrs, node.kind, node.call["attributes"])
    kind, attributes = back(inner, changed)
    return kind, {**node.call, "attributes": attributes}


SHARED = "."
"""What stands between the name of an initialiser and the number of its copy (``unshared``)."""


def make(graph: Graph, op: str, inputs: tuple[Value, ...], attrs: Mapping[str, Any]) -> tuple[str, Arguments]:
    """How this dialect spells an op that a pass inserts: kind and call."""
    if op == "take":
        return "Gather", new_call("Gather", list(inputs), axis=attrs["dim"])
    if op == "cat":
        return "Concat", new_call("Concat", list(inputs), axis=attrs["dim"])
    if op == "slice":
        ((d, start, stop, _),) = attrs["slices"]
        if opset(graph) < 10:
            return "Slice", new_call("Slice", list(inputs), starts=[start], ends=[stop], axes=[d])
        bounds = [_new_literal(graph, f"{inputs[0].name}_at_{n}", np.asarray([n], np.int64)) for n in (start, stop, d)]
        return "Slice", new_call("Slice", [*inputs, *bounds])
    if op == "pad":
        flat = [p[0] for p in attrs["pads"]] + [p[1] for p in attrs["pads"]]
        if opset(graph) < 11:
            return "Pad", new_call("Pad", list(inputs), pads=flat)
        sizes = literal(graph, f"{inputs[0].name}_pads", np.asarray(flat, np.int64))
        return "Pad", new_call("Pad", [inputs[0], sizes, *inputs[1:]])
    if op == "elementwise" and len(inputs) == 2:
        return "Add", new_call("Add", list(inputs))
    raise ValueError(f"the onnx dialect cannot make op {op!r}")


def set_operand(node: Node, k: int, value: Value) -> Arguments:
    """The call of ``node`` with operand ``k`` replaced."""
    inputs: list[Value | None] = [*node.call["inputs"], *[None] * (k + 1 - len(node.call["inputs"]))]
    inputs[k] = value
    return {**node.call, "inputs": inputs}


def new_call(op_type: str, inputs: Sequence[Value | None], slots: int = 1, **attributes: Any) -> Arguments:
    """The call of a node of the default domain with all its results."""
    return {
        "op_type": op_type,
        "domain": "",
        "attributes": attributes,
        "inputs": list(inputs),
        "results": tuple(range(slots)),
        "slots": slots,
    }


def constant(array: Any) -> NDArray[Any]:
    """Data of a new constant."""
    return np.ascontiguousarray(array) if np.ndim(array) else np.asarray(array)


def explicit(graph: Graph, node: Node) -> Mapping[str, Any]:
    """Attributes that the source left to the shapes and that must be written down before shapes change."""
    if node.op in ("attention", "attention_grouped", "attention_packed") and "scale" not in node.call["attributes"]:
        return {"scale": node.attrs["scale"]}
    if node.op == "split" and "split" not in node.call["attributes"] and len(node.call["inputs"]) < 2:
        return {"sizes": node.attrs["sizes"]}
    if node.kind == "Squeeze" and node.op == "reshape":
        _name_squeezed(graph, node)
    attr = _POSITIONS.get((node.kind, node.op))
    return {attr: node.attrs[attr]} if attr is not None and _follows_the_size(graph, node) else {}


_POSITIONS = {("Slice", "slice"): "slices", ("Gather", "select"): "index", ("Gather", "take"): "indices"}
"""Attributes that hold positions on an axis."""


def _follows_the_size(graph: Graph, node: Node) -> bool:
    """Whether fixed positions are written so that they move with the size of the axis: from the end, or computed."""
    if node.op == "slice" and any(None in cut for cut in node.attrs["slices"]):
        return False
    given = node.call["inputs"][1 : 3 if node.op == "slice" else 2]
    if any(v not in graph.constants for v in given):
        return True
    written = [to_numpy(graph.constants[v].data) for v in given]
    written += [np.asarray(_attribute(node.call, name, ())) for name in ("starts", "ends")]
    return any(bool((positions < 0).any()) for positions in written)


def _name_squeezed(graph: Graph, node: Node) -> None:
    """A bare Squeeze drops whatever has one position, which pruning may leave."""
    x = node.inputs[0]
    if "axes" in node.call["attributes"] or len(node.call["inputs"]) > 1 or x is None or x.shape is None:
        return
    axes = [d for d, s in enumerate(x.shape) if s == 1 and d not in x.dynamic]
    if opset(graph) < 13:
        node.call = with_attributes(node.call, {"axes": axes})
    else:
        node.call = _with_input(graph, node, 1, axes, "axes")[1]
