"""ATen overloads and the ops they spell.  Names only: what an op means stands in ``ir/ops``.

``arguments`` are the schema's arguments by name, tensors as values.  ``RESULT`` holds the result's value(s), for kinds
whose attributes follow from its shape.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..errors import Declined
from ..graph import Constant, Graph, Node, Value
from .fx_recurrent import CELLS, LAYERS, make_layer
from .spelling import Arguments, Spelling, axes_of, axis_of, rank, renamed, size, unchanged, whole

RESULT = "<result>"
Table = dict[str, Spelling]


def _conv(a: Arguments) -> dict[str, Any]:
    if rank(a["input"]) != rank(a["weight"]):
        raise Declined("convolution without a batch axis")
    padding = a.get("padding", 0)
    padded = padding == "same" or (not isinstance(padding, str) and any(p != 0 for p in padding))
    return {"groups": a["groups"], "padded": padded}


def _convolution(a: Arguments) -> dict[str, Any]:
    if a["transposed"]:
        raise Declined("a transposed convolution in the general spelling")
    return _conv(a)


def _batch_norm(a: Arguments) -> dict[str, Any]:
    if a.get("training") and a["running_mean"] is not None:
        raise Declined("statistics that change in evaluation")
    return {"eps": a["eps"]} if a["running_mean"] is not None and not a.get("use_input_stats") else {}


def _trailing(a: Arguments) -> dict[str, Any]:
    shape = a["normalized_shape"]
    return {"rank": len(shape), "shape": tuple(shape)}


def _trailing_back(node: Node, changed: Mapping[str, Any]) -> tuple[str, Arguments]:
    return node.kind, {**node.call, "normalized_shape": list(changed["shape"])}


def _attention(a: Arguments) -> dict[str, Any]:
    scale = a["scale"] if a["scale"] is not None else size(a["query"], -1) ** -0.5
    return {"scale": scale, "causal": bool(a["is_causal"])}


def _matmul(a: Arguments) -> dict[str, Any]:
    if min(rank(a[_first(a, "self", "input")]), rank(a[_first(a, "other", "mat2")])) < 2:
        raise Declined("a product with a vector")
    return {}


def _first(a: Arguments, *names: str) -> str:
    return next(n for n in names if n in a)


def _dims(default_keep: bool = False, **fixed: Any) -> Any:
    def read(a: Arguments) -> dict[str, Any]:
        x = a[_first(a, "self", "input")]
        return {**fixed, "dims": axes_of(a.get("dim"), x), "keepdim": bool(a.get("keepdim", default_keep))}

    return read


def _top(a: Arguments) -> dict[str, Any]:
    return {"dims": axes_of(a.get("dim", -1), a["self"]), "keepdim": True, "largest": bool(a.get("largest", True))}


def _one_dim(a: Arguments) -> dict[str, Any]:
    return {"dim": axis_of(a["dim"], a[_first(a, "self", "input")])}


def _result_shape(a: Arguments) -> dict[str, Any]:
    """Sizes of the result; None where a size depends on the input."""
    out: Value = a[RESULT]
    if out.shape is None:
        raise Declined("the shape of the result is not known")
    return {"shape": tuple(None if d in out.dynamic else s for d, s in enumerate(out.shape))}


def _view_back(node: Node, changed: Mapping[str, Any]) -> tuple[str, Arguments]:
    """Any of the reshape family becomes a reshape; a dynamic size keeps the expression that the source had."""
    out, source = node.output, _source_sizes(node)
    sizes: list[Any] = []
    for d, n in enumerate(changed["shape"]):
        sizes.append(source[d] if n is None and source is not None else (-1 if n is None else n))
    if sum(isinstance(s, int) and s == -1 for s in sizes) > 1:
        raise AssertionError(f"{node.name}: more than one size of {out} is left to the runtime")
    return "aten.reshape.default", {"self": node.inputs[0], "shape": sizes}


def _unflatten_back(node: Node, changed: Mapping[str, Any]) -> tuple[str, Arguments]:
    x = node.inputs[0]
    assert x is not None and x.shape is not None
    d, old = int(node.call["dim"]) % len(x.shape), node.call["sizes"]
    sizes = [o if n is None else n for o, n in zip(old, changed["shape"][d : d + len(old)], strict=True)]
    return node.kind, {**node.call, "sizes": sizes}


def _attention_back(node: Node, changed: Mapping[str, Any]) -> tuple[str, Arguments]:
    """The count of key heads follows from the operands; the scale does not."""
    call = dict(node.call)
    if "scale" in changed:
        call["scale"] = changed["scale"]
    return node.kind, call


def _source_sizes(node: Node) -> list[Any] | None:
    for name in ("size", "shape"):
        given = node.call.get(name)
        if isinstance(given, (list, tuple)) and len(given) == len(node.output.shape or ()):
            return list(given)
    return None


def _expand_back(node: Node, changed: Mapping[str, Any]) -> tuple[str, Arguments]:
    given = list(node.call["size"])
    x, out = node.inputs[0], node.output
    assert x is not None and x.shape is not None and out.shape is not None
    lead = len(out.shape) - len(x.shape)
    same = [d >= lead and x.shape[d - lead] == out.shape[d] for d in range(len(given))]
    sizes = [-1 if same[d] else (given[d] if n is None else n) for d, n in enumerate(changed["shape"])]
    return node.kind, {**node.call, "size": sizes}


def _zeros_back(node: Node, changed: Mapping[str, Any]) -> tuple[str, Arguments]:
    sizes = [given if n is None else n for given, n in zip(node.call["size"], changed["shape"], strict=True)]
    return node.kind, {**node.call, "size": sizes}


def _permute(a: Arguments) -> dict[str, Any]:
    return {"dims": tuple(axis_of(d, a["self"]) for d in a["dims"])}


def _move(a: Arguments) -> dict[str, Any]:
    """``source`` axes moved to ``destination``, the others in their order around them."""
    source, destination = (_listed_axes(a[name], a["self"]) for name in ("source", "destination"))
    rest = iter(d for d in range(rank(a["self"])) if d not in source)
    moved = dict(zip(destination, source, strict=True))
    return {"dims": tuple(moved[d] if d in moved else next(rest) for d in range(rank(a["self"])))}


def _listed_axes(dims: Any, value: Any) -> list[int]:
    return [axis_of(d, value) for d in (dims if isinstance(dims, (list, tuple)) else [dims])]


def _swap(first: str, second: str) -> Any:
    def read(a: Arguments) -> dict[str, Any]:
        order = list(range(rank(a["self"])))
        if len(order) > 1:
            i, j = axis_of(a.get(first, 0), a["self"]), axis_of(a.get(second, 1), a["self"])
            order[i], order[j] = order[j], order[i]
        return {"dims": tuple(order)}

    return read


def _last_two(a: Arguments) -> dict[str, Any]:
    lead = rank(a["self"]) - 2
    return {"dims": (*range(lead), lead + 1, lead)}


def _slice(a: Arguments) -> dict[str, Any]:
    x, d = a["self"], axis_of(a["dim"], a["self"])
    n = size(x, d)
    start, stop = a["start"], a["end"]
    if d in x.dynamic and not (start in (0, None) and (stop is None or stop == sys.maxsize)):
        return {"slices": ((d, None, None, 1),)}
    return {"slices": ((d, _bound(start, n, 0), _bound(stop, n, n), whole(a["step"])),)}


def _bound(value: Any, n: int, default: int) -> int | None:
    if value is None:
        return default
    if not isinstance(value, int):
        return None
    return min(max(value + n if value < 0 else value, 0), n)


def _slice_back(node: Node, changed: Mapping[str, Any]) -> tuple[str, Arguments]:
    ((_, start, stop, _),) = changed["slices"]
    return node.kind, {**node.call, "start": start, "end": stop}


def _select(a: Arguments) -> dict[str, Any]:
    d = axis_of(a["dim"], a["self"])
    index = whole(a["index"])
    return {"dim": d, "index": index % size(a["self"], d)}


def _split(a: Arguments) -> dict[str, Any]:
    x = a[_first(a, "self", "input")]
    d = axis_of(a.get("dim", 0), x)
    if d in x.dynamic:
        raise Declined("an axis of dynamic size is split")
    return {"dim": d, "sizes": tuple(size(v, d) for v in a[RESULT])}


def _split_back(node: Node, changed: Mapping[str, Any]) -> tuple[str, Arguments]:
    call = {"self": node.inputs[0], "split_sizes": list(changed["sizes"]), "dim": node.attrs["dim"]}
    return "aten.split_with_sizes.default", call


def _narrow(a: Arguments) -> dict[str, Any]:
    d, start = axis_of(a["dim"], a["self"]), whole(a["start"])
    n = size(a["self"], d)
    if d in a["self"].dynamic:
        return {"slices": ((d, None, None, 1),)}
    start = start + n if start < 0 else start
    return {"slices": ((d, start, start + whole(a["length"]), 1),)}


def _narrow_back(node: Node, changed: Mapping[str, Any]) -> tuple[str, Arguments]:
    ((d, start, stop, _),) = changed["slices"]
    return "aten.slice.Tensor", {"self": node.inputs[0], "dim": d, "start": start, "end": stop, "step": 1}


def _list_dim(a: Arguments) -> dict[str, Any]:
    return {"dim": axis_of(a.get("dim", 0), a[RESULT])}


def _index(a: Arguments) -> dict[str, Any]:
    indices = a["indices"]
    dims = tuple(d for d, v in enumerate(indices) if v is not None)
    if not dims or any(isinstance(v, Value) and v.dtype in ("bool", "uint8") for v in indices):
        raise Declined("indexing by a mask")
    return {"dims": dims}


def _index_select(a: Arguments) -> dict[str, Any]:
    return {"dims": (axis_of(a["dim"], a["self"]),)}


def _pad(a: Arguments) -> dict[str, Any]:
    flat, r = [whole(p) for p in a["pad"]], rank(a["self"])
    pads = [(0, 0)] * r
    for k in range(len(flat) // 2):
        pads[r - 1 - k] = (flat[2 * k], flat[2 * k + 1])
    return {"pads": tuple(pads), "mode": a.get("mode", "constant"), "value": a.get("value") or 0}


def _pad_back(node: Node, changed: Mapping[str, Any]) -> tuple[str, Arguments]:
    flat: list[int] = []
    for before, after in reversed(changed["pads"]):
        flat += [before, after]
    return node.kind, {**node.call, "pad": flat}


def _repeat(a: Arguments) -> dict[str, Any]:
    return {"repeats": tuple(r if isinstance(r, int) else None for r in a[_first(a, "repeats", "dims")])}


def _repeat_each(a: Arguments) -> dict[str, Any]:
    if a.get("dim") is None:
        raise Declined("repeat_interleave of the flattened tensor")
    return {"dim": axis_of(a["dim"], a["self"]), "repeats": whole(a["repeats"])}


def _flip(a: Arguments) -> dict[str, Any]:
    return {"dims": axes_of(a["dims"], a["self"])}


def _take(a: Arguments) -> dict[str, Any]:
    return {"dim": axis_of(a["dim"], a["self"]), "indices": ()}


def _scan(name: str = "dim") -> Any:
    return lambda a: {"dims": axes_of(a[name], a["self"])}


def _matrices(a: Arguments) -> dict[str, Any]:
    return {"dims": axes_of([-2, -1], a["self"])}


def _glu(a: Arguments) -> dict[str, Any]:
    return {"dim": axis_of(a["dim"], a["self"])}


def _pool(spatial: int, function: str = "resample") -> Any:
    return lambda a: {"spatial": spatial, "function": function}


def _average_pool(spatial: int) -> Any:
    def read(a: Arguments) -> dict[str, Any]:
        borders = any(a.get("padding") or ()) or a.get("ceil_mode")
        return {"spatial": spatial, "function": "mean with borders" if borders else "mean"}

    return read


def _size_of(a: Arguments) -> dict[str, Any]:
    return {"dims": (axis_of(a["dim"], a["self"]),)}


def _block(name: str) -> Any:
    return lambda a: {"block": whole(a[name])}


def _weight_dim(a: Arguments) -> dict[str, Any]:
    return {"dim": axis_of(a["dim"], a["v"])}


def _kernel(a: Arguments) -> dict[str, Any]:
    return {"block": math.prod(whole(k) for k in a["kernel_size"])}


def _same(op: str, names: str, *args: Any, overload: str = "default") -> Table:
    return {f"aten.{n}" if "." in n else f"aten.{n}.{overload}": Spelling(op, *args) for n in names.split()}


_SIZED = "view reshape _unsafe_view"
_UNSIZED = "flatten.using_ints squeeze squeeze.dim squeeze.dims unsqueeze"
_REDUCE = {
    "mean": "mean.dim mean",
    "sum": "sum.dim_IntList sum",
    "max": "amax any.dim",
    "min": "amin all.dim",
    "product": "prod.dim_int",
    "deviation": "var.correction std.correction var.dim std.dim",
    "norm": "linalg_vector_norm norm.ScalarOpt_dim",
    "logsumexp": "logsumexp",
}
_PASS = (
    "dropout feature_dropout alpha_dropout native_dropout clone contiguous detach alias lift_fresh_copy _to_copy "
    "to.dtype to.device to.dtype_layout relu relu6 gelu silu mish sigmoid hardswish hardsigmoid "
    "hardtanh tanh leaky_relu elu selu celu softplus softsign clamp clamp_min clamp_max expand_as where.self "
    "where.ScalarOther where.ScalarSelf where.Scalar masked_fill.Scalar masked_fill.Tensor zeros_like ones_like "
    "full_like empty_like zero rand_like fill.Scalar fill.Tensor rsub.Scalar rsub.Tensor copy abs exp log sqrt rsqrt "
    "neg pow.Tensor_Scalar pow.Tensor_Tensor erf sin cos square log_sigmoid hardshrink softshrink "
    "threshold nan_to_num floor_divide true_divide.Tensor true_divide.Scalar divide.Tensor divide.Scalar "
    "multiply.Tensor multiply.Scalar subtract.Tensor subtract.Scalar __and__.Tensor __and__.Scalar __or__.Tensor "
    "__or__.Scalar __xor__.Tensor __xor__.Scalar"
)
_LAYER = ("input", "weight", "bias")
_CONVS = "conv1d conv2d conv3d conv1d.padding conv2d.padding conv3d.padding"
_TRANSPOSED = "conv_transpose1d conv_transpose2d.input conv_transpose3d.input"


def _pools(spatial: int) -> Table:
    maximum = f"max_pool{spatial}d max_pool{spatial}d_with_indices adaptive_max_pool{spatial}d"
    return {
        **_same("pool", f"avg_pool{spatial}d", ("self",), _average_pool(spatial)),
        **_same("pool", f"adaptive_avg_pool{spatial}d", ("self",), _pool(spatial, "mean")),
        **_same("pool", f"lp_pool{spatial}d", ("self",), _pool(spatial, "norm")),
        **_same("pool", maximum, ("self",), _pool(spatial, "max")),
    }


NAMES: Table = {
    **LAYERS,
    **CELLS,
    **_same("conv", _CONVS, _LAYER, _conv, renamed(groups="groups")),
    **_same("conv", "convolution", _LAYER, _convolution, renamed(groups="groups")),
    **_same("conv_transpose", _TRANSPOSED, _LAYER, _conv, renamed(groups="groups")),
    "aten.linear.default": Spelling("linear", _LAYER),
    "aten.addmm.default": Spelling("linear_t", ("mat1", "mat2", "self")),
    "aten.mm.default": Spelling("matmul", ("self", "mat2"), _matmul),
    "aten.bmm.default": Spelling("matmul", ("self", "mat2"), _matmul),
    "aten.matmul.default": Spelling("matmul", ("self", "other"), _matmul),
    "aten.mv.default": Spelling("matvec", ("self", "vec")),
    "aten.baddbmm.default": Spelling("baddbmm", ("batch1", "batch2", "self")),
    "aten.einsum.default": Spelling("einsum", ("tensors",), lambda a: {"equation": a["equation"]}),
    "aten.embedding.default": Spelling("embedding", ("weight", "indices")),
    "aten.batch_norm.default": Spelling(
        "batch_norm", ("input", "weight", "bias", "running_mean", "running_var"), _batch_norm
    ),
    "aten.instance_norm.default": Spelling(
        "batch_norm", ("input", "weight", "bias", "running_mean", "running_var"), _batch_norm
    ),
    "aten.group_norm.default": Spelling(
        "group_norm", _LAYER, lambda a: {"groups": a["num_groups"]}, renamed(groups="num_groups")
    ),
    "aten.layer_norm.default": Spelling("layer_norm", _LAYER, _trailing, _trailing_back),
    "aten.native_layer_norm.default": Spelling("layer_norm", _LAYER, _trailing, _trailing_back),
    "aten.rms_norm.default": Spelling("layer_norm", ("input", "weight"), _trailing, _trailing_back),
    "aten.scaled_dot_product_attention.default": Spelling(
        "attention", ("query", "key", "value", "attn_mask"), _attention, _attention_back
    ),
    "aten.prelu.default": Spelling("prelu", ("self", "weight")),
    "aten.glu.default": Spelling("glu", ("self",), _glu),
    "aten.softmax.int": Spelling("normalise", ("self",), _dims()),
    "aten._softmax.default": Spelling("normalise", ("self",), _dims()),
    "aten.log_softmax.int": Spelling("normalise", ("self",), _dims()),
    "aten._log_softmax.default": Spelling("normalise", ("self",), _dims()),
    "aten.cumsum.default": Spelling("scan", ("self",), _scan()),
    "aten.cumprod.default": Spelling("scan", ("self",), _scan()),
    "aten.roll.default": Spelling("scan", ("self",), _scan("dims")),
    **_same("scan", "tril triu", ("self",), _matrices),
    "aten.sort.default": Spelling("scan", ("self",), _scan()),
    "aten.permute.default": Spelling("permute", ("self",), _permute),
    "aten.transpose.int": Spelling("permute", ("self",), _swap("dim0", "dim1")),
    "aten.swapaxes.default": Spelling("permute", ("self",), _swap("axis0", "axis1")),
    "aten.swapdims.default": Spelling("permute", ("self",), _swap("dim0", "dim1")),
    **_same("permute", "movedim.int movedim.intlist moveaxis.int moveaxis.intlist", ("self",), _move),
    "aten.t.default": Spelling("permute", ("self",), _swap("", "")),
    **_same("permute", "mT mH adjoint", ("self",), _last_two),
    **_same("permute", "numpy_T matrix_H", ("self",), lambda a: {"dims": tuple(reversed(range(rank(a["self"]))))}),
    "aten.unfold.default": Spelling("windows", ("self",), lambda a: {"dim": axis_of(a["dimension"], a["self"])}),
    "aten.slice.Tensor": Spelling("slice", ("self",), _slice, _slice_back),
    "aten.slice_scatter.default": Spelling("slice_scatter", ("self", "src"), _slice, _slice_back),
    "aten.narrow.default": Spelling("slice", ("self",), _narrow, _narrow_back),
    "aten.select.int": Spelling("select", ("self",), _select, renamed(index="index")),
    "aten.chunk.default": Spelling("split", ("self",), _split, _split_back),
    "aten.split.Tensor": Spelling("split", ("self",), _split, _split_back),
    "aten.split.sizes": Spelling("split", ("self",), _split, _split_back),
    "aten.split_with_sizes.default": Spelling("split", ("self",), _split, _split_back),
    "aten.tensor_split.sections": Spelling("split", ("self",), _split, _split_back),
    "aten.unbind.int": Spelling("unbind", ("self",), _one_dim),
    "aten.cat.default": Spelling("cat", ("tensors",), _list_dim),
    "aten.concat.default": Spelling("cat", ("tensors",), _list_dim),
    "aten.stack.default": Spelling("stack", ("tensors",), _list_dim),
    "aten.expand.default": Spelling("expand", ("self",), _result_shape, _expand_back),
    "aten.index.Tensor": Spelling("index", ("self", "indices"), _index),
    "aten._weight_norm.default": Spelling("weight_norm", ("v", "g"), _weight_dim),
    "aten.gather.default": Spelling("gather", ("self", "index"), _one_dim),
    "aten.im2col.default": Spelling("unfold", ("self",), _kernel),
    "aten.col2im.default": Spelling("fold", ("self",), _kernel),
    **_same("convert", "type_as to.other", ("self", "other")),
    "aten.index_select.default": Spelling("index", ("self", "index"), _index_select),
    "aten.pad.default": Spelling("pad", ("self",), _pad, _pad_back),
    "aten.constant_pad_nd.default": Spelling("pad", ("self",), _pad, _pad_back),
    "aten.repeat.default": Spelling("tile", ("self",), _repeat),
    "aten.tile.default": Spelling("tile", ("self",), _repeat),
    "aten.repeat_interleave.self_int": Spelling("repeat_each", ("self",), _repeat_each),
    "aten.flip.default": Spelling("flip", ("self",), _flip),
    "aten.pixel_shuffle.default": Spelling("pixel_shuffle", ("self",), _block("upscale_factor")),
    "aten.pixel_unshuffle.default": Spelling("pixel_unshuffle", ("self",), _block("downscale_factor")),
    "aten.sym_size.int": Spelling("size", ("self",), _size_of),
    **_same("rank_along", "argmax max.dim", ("self",), _dims(largest=True)),
    **_same("rank_along", "argmin min.dim", ("self",), _dims(largest=False)),
    "aten.topk.default": Spelling("rank_along", ("self",), _top),
    **_same("reshape", _SIZED, ("self",), _result_shape, _view_back),
    **_same("reshape", _UNSIZED, ("self",), _result_shape, unchanged),
    **_same("reshape_as", "view_as reshape_as", ("self", "other"), _result_shape, unchanged),
    "aten.unflatten.int": Spelling("reshape", ("self",), _result_shape, _unflatten_back),
    **{k: s for f, names in _REDUCE.items() for k, s in _same("reduce", names, ("self",), _dims(function=f)).items()},
    **_same("elementwise", _PASS),
    **_same("zeros", "zeros new_zeros", ("self",), _result_shape, _zeros_back),
    **_same("fill", "ones full empty arange arange.start arange.start_step linspace eye scalar_tensor rand randn"),
    **_pools(1),
    **_pools(2),
    **_pools(3),
    **_same(
        "pool",
        "upsample_nearest1d.vec upsample_linear1d.vec upsample_nearest1d upsample_linear1d",
        ("input",),
        _pool(1),
    ),
    **_same(
        "pool",
        "upsample_nearest2d.vec upsample_bilinear2d.vec upsample_bicubic2d.vec _upsample_nearest_exact2d.vec "
        "_upsample_bilinear2d_aa.vec _upsample_bicubic2d_aa.vec",
        ("input",),
        _pool(2),
    ),
    **_same("pool", "upsample_nearest2d upsample_bilinear2d upsample_bicubic2d", ("self",), _pool(2)),
    **_same("pool", "upsample_nearest3d.vec upsample_trilinear3d.vec", ("input",), _pool(3)),
    **_same("pool", "reflection_pad1d replication_pad1d", ("self",), _pool(1)),
    **_same("pool", "reflection_pad2d replication_pad2d", ("self",), _pool(2)),
    **_same("pool", "reflection_pad3d replication_pad3d", ("self",), _pool(3)),
}


SHARED = "_"
"""What stands between the name of a parameter and the number of its copy: a dot would make it a part of a parameter."""


def write(graph: Graph, node: Node, changed: Mapping[str, Any]) -> tuple[str, Arguments]:
    """Kind and arguments of ``node`` once attributes changed."""
    if node.op == "take":
        return node.kind, {**node.call, "index": renewed(graph, node.inputs[1], changed["indices"])}
    back = NAMES[node.kind].write
    if back is None:
        raise AssertionError(f"{node.kind} cannot take back {dict(changed)}")
    return back(node, changed)


def make(graph: Graph, op: str, inputs: tuple[Value, ...], attrs: Mapping[str, Any]) -> tuple[str, Arguments]:
    """How this dialect spells an op that a pass inserts: kind and arguments."""
    if op not in _MAKE:
        raise ValueError(f"the fx dialect cannot make op {op!r}")
    return _MAKE[op](inputs, attrs)


Made = tuple[str, Arguments]


def _make_take(inputs: tuple[Value, ...], attrs: Mapping[str, Any]) -> Made:
    return "aten.index_select.default", {"self": inputs[0], "dim": attrs["dim"], "index": inputs[1]}


def _make_pad(inputs: tuple[Value, ...], attrs: Mapping[str, Any]) -> Made:
    flat = [p for pair in reversed(attrs["pads"]) for p in pair]
    return "aten.constant_pad_nd.default", {"self": inputs[0], "pad": flat, "value": 0}


def _make_slice(inputs: tuple[Value, ...], attrs: Mapping[str, Any]) -> Made:
    ((d, start, stop, step),) = attrs["slices"]
    return "aten.slice.Tensor", {"self": inputs[0], "dim": d, "start": start, "end": stop, "step": step}


def _make_cat(inputs: tuple[Value, ...], attrs: Mapping[str, Any]) -> Made:
    return "aten.cat.default", {"tensors": list(inputs), "dim": attrs["dim"]}


def _make_function(inputs: tuple[Value, ...], attrs: Mapping[str, Any]) -> Made:
    """Dropout of one operand, the sum of two."""
    if len(inputs) == 2:
        return "aten.add.Tensor", {"self": inputs[0], "other": inputs[1]}
    return "aten.dropout.default", {"input": inputs[0], "p": attrs["dropout"], "train": False}


_MAKE: dict[str, Callable[[tuple[Value, ...], Mapping[str, Any]], Made]] = {
    "take": _make_take,
    "pad": _make_pad,
    "slice": _make_slice,
    "cat": _make_cat,
    "elementwise": _make_function,
    "recurrent": make_layer,
}


def set_operand(node: Node, k: int, value: Value) -> Arguments:
    """The call of ``node`` with operand ``k`` replaced."""
    names = NAMES[node.kind].operands
    assert names is not None
    return {**node.call, names[k]: value}


def renewed(graph: Graph, index: Value | None, indices: Any) -> Value:
    """The index constant of a ``take`` with other indices; it belongs to that node alone."""
    assert index is not None
    old = graph.constants[index]
    graph.constants[index] = Constant(old.names, constant(np.asarray(indices, np.int64)), old.role)
    return index


def constant(array: Any) -> Any:
    """Data of a new constant."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(array))


_COUNTED = {
    "slice": ("slices", ("start", "end")),
    "slice_scatter": ("slices", ("start", "end")),
    "select": ("index", ("index",)),
}
"""Attributes that may count from the end, and the arguments that hold them."""


def _counted_from_the_end(node: Node, attr: str, names: tuple[str, ...]) -> str:
    """``attr`` when a number in the call counts from the end of an axis that may shrink."""
    negative = any(isinstance(n := node.call.get(name), int) and n < 0 for name in names)
    known = attr == "index" or all(None not in bounds for bounds in node.attrs[attr])
    x = node.inputs[0]
    fixed = attr == "slices" or (x is not None and node.attrs["dim"] not in x.dynamic)
    return attr if negative and known and fixed else ""


def explicit(graph: Graph, node: Node) -> Mapping[str, Any]:
    """Attributes that the source left to the shapes and that must be written down before shapes change."""
    if node.op in ("attention", "attention_grouped"):
        return {"scale": node.attrs["scale"]} if node.call.get("scale") is None else {}
    if node.op in _COUNTED and (attr := _counted_from_the_end(node, *_COUNTED[node.op])):
        return {attr: node.attrs[attr]}
    if node.kind == "aten.squeeze.default":
        x = node.inputs[0]
        assert x is not None and x.shape is not None
        node.kind = "aten.squeeze.dims"
        node.call = {"self": x, "dim": [d for d, s in enumerate(x.shape) if s == 1 and d not in x.dynamic]}
    return {}
