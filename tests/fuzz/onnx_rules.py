"""One rule for each thing that an ONNX graph can do to a value; see ``onnx_program.py``.

``g`` is the maker, ``x`` the value that the rule reads.  ``g.node("Relu", x)`` appends a node.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from .onnx_program import Maker, Val, rule
from .program import IMAGE, SEQUENCE, VECTOR, Unfit

# ---------------------------------------------------------------------- layers


@rule(IMAGE)
def conv(g: Maker, x: Val) -> None:
    o, k = g.width(), g.pick((1, 3))
    groups = g.divisor(x.width, o) if g.chance(0.8) else x.width
    o = o if o % groups == 0 else groups
    weight, bias = g.weight(o, x.width // groups, k, k), g.weight(o) if g.chance(0.7) else None
    where = {"auto_pad": "SAME_UPPER"} if g.chance(0.2) else {"pads": [k // 2] * 4}
    operands = [x, weight] if bias is None else [x, weight, bias]
    g.node("Conv", *operands, group=groups, **where)


@rule(IMAGE)
def conv_of_computed_weights(g: Maker, x: Val) -> None:
    weight = g.weight(g.width(), x.width, 1, 1)
    g.node("Conv", x, g.node(g.pick(("Tanh", "Sigmoid")), weight))


@rule(IMAGE)
def conv_transpose(g: Maker, x: Val) -> None:
    o = g.width()
    groups = g.divisor(x.width, o)
    g.node("ConvTranspose", x, g.weight(x.width, o // groups, 2, 2), g.weight(o), group=groups)


@rule()
def linear(g: Maker, x: Val) -> None:
    """A matrix product and a bias, or a Gemm."""
    o = g.width()
    if x.rank == IMAGE:
        x = g.node("Transpose", x, perm=[0, 2, 3, 1])
    if x.rank == VECTOR and g.chance(0.6):
        _gemm(g, x, o)
        return
    y = g.node("MatMul", x, g.weight(x.shape[-1], o))
    y = g.node("Add", *g.pick(((y, g.weight(o)), (g.weight(o), y)))) if g.chance(0.7) else y
    if y.rank == IMAGE:
        g.node("Transpose", y, perm=[0, 3, 1, 2])


def _gemm(g: Maker, x: Val, o: int) -> None:
    transposed = g.chance(0.5)
    weight = g.weight(*((o, x.width) if transposed else (x.width, o)))
    bias = [g.weight(*g.pick(((o,), (1, o), (1,))))] if g.chance(0.8) or g.opset < 11 else []
    scaled = {"alpha": 0.5, "beta": 2.0} if g.chance(0.2) else {}
    g.node("Gemm", x, weight, *bias, transB=int(transposed), **scaled)


@rule(VECTOR)
def gemm_of_computed_weights(g: Maker, x: Val) -> None:
    weight = g.node(g.pick(("Tanh", "Sigmoid")), g.weight(g.width(), x.width))
    g.node("Gemm", x, weight, g.weight(weight.shape[0]), transB=1)


@rule(SEQUENCE)
def linear_over_steps(g: Maker, x: Val) -> None:
    y = g.node("MatMul", g.node("Transpose", x, perm=[0, 2, 1]), g.weight(x.shape[1], g.pick((4, 5))))
    g.node("Transpose", y, perm=[0, 2, 1])


@rule(SEQUENCE, since=12)
def einsum(g: Maker, x: Val) -> None:
    equation, shape = g.pick((
        ("btd,hdk->bthk", (2, x.width, 3)),
        ("btd, de -> bte", (x.width, 5)),
        ("...td,ted->...te", (x.shape[1], 4, x.width)),
    ))  # fmt: skip
    y = g.node("Einsum", x, g.weight(*shape), equation=equation)
    if y.rank == IMAGE:
        g.reshape(y, (0, y.shape[1], y.shape[2] * y.shape[3]))


@rule(VECTOR, since=12)
def einsum_of_two(g: Maker, x: Val) -> None:
    y = g.partner(x, lambda v: v.rank == VECTOR)
    inner = g.pick(("Tanh", "Sigmoid", "Softplus"))
    g.node("Einsum", g.node(inner, x), g.node(inner, y), equation=g.pick(("bi,bj->bij", "bi,bj->bi", "bi,bj->bj")))


@rule(SEQUENCE)
def recurrent(g: Maker, x: Val) -> None:
    op, gates = g.pick((("LSTM", 4), ("GRU", 3), ("RNN", 1)))
    h, sides = g.pick((3, 4)), g.pick((1, 1, 2))
    weights = [g.weight(sides, gates * h, x.width), g.weight(sides, gates * h, h)]
    weights += [g.weight(sides, 2 * gates * h)] if g.chance(0.7) else []
    options = {"linear_before_reset": 1} if op == "GRU" and g.chance(0.5) else {}
    direction = "bidirectional" if sides == 2 else g.pick(("forward", "reverse"))
    steps, last = g.nodes_(
        op, 2, g.node("Transpose", x, perm=[1, 0, 2]), *weights, hidden_size=h, direction=direction, **options
    )
    if g.chance(0.6):
        g.reshape(g.node("Transpose", steps, perm=[2, 0, 1, 3]), (0, x.shape[1], sides * h))
    else:
        g.node("Transpose", last, perm=[1, 0, 2])


# ---------------------------------------------------------------------- norms


@rule(IMAGE)
def batch_norm(g: Maker, x: Val) -> None:
    c = x.width
    g.node("BatchNormalization", x, *(g.weight(c) for _ in range(3)), g.weight(c, low=0.5))


@rule(IMAGE)
def instance_norm(g: Maker, x: Val) -> None:
    if min(x.shape[2:]) < 2:
        raise Unfit("one position has no variance")
    g.node("InstanceNormalization", x, g.weight(x.width), g.weight(x.width), epsilon=0.1)


@rule(IMAGE, since=21)
def group_norm(g: Maker, x: Val) -> None:
    if min(x.shape[2:]) < 2:
        raise Unfit("one position has no variance")
    groups = g.divisor(x.width)
    g.node("GroupNormalization", x, g.weight(x.width), g.weight(x.width), num_groups=groups, epsilon=0.1)


@rule(SEQUENCE, VECTOR, since=17)
def layer_norm(g: Maker, x: Val) -> None:
    bias = [g.weight(x.width)] if g.chance(0.7) else []
    g.node("LayerNormalization", x, g.weight(x.width), *bias, axis=g.pick((-1, x.rank - 1)), epsilon=0.1)


@rule(SEQUENCE, VECTOR, since=23)
def rms_norm(g: Maker, x: Val) -> None:
    g.node("RMSNormalization", x, g.weight(x.width), epsilon=0.1)


@rule(SEQUENCE, VECTOR)
def written_out_layer_norm(g: Maker, x: Val) -> None:
    centred = g.node("Sub", x, g.axes("ReduceMean", x, [-1], 18))
    variance = g.axes("ReduceMean", g.node("Pow", centred, g.stored(2.0)), [-1], 18)
    y = g.node("Div", centred, g.node("Sqrt", g.node("Add", variance, g.stored(0.1))))
    g.node("Add", g.node("Mul", y, g.weight(x.width)), g.weight(x.width))


@rule(IMAGE)
def other_norm(g: Maker, x: Val) -> None:
    g.pick((
        lambda: g.node("LRN", x, size=3),
        lambda: g.node("LpNormalization", x, axis=1),
        lambda: g.node("MeanVarianceNormalization", x, axes=[0, 2, 3]),
    ))()  # fmt: skip


@rule()
def normalised(g: Maker, x: Val) -> None:
    g.node(g.pick(("Softmax", "LogSoftmax")), x, axis=g.pick((1, x.rank - 1, -1)))


# ---------------------------------------------------------------------- functions of elements

_FUNCTIONS = (
    "Relu", "Tanh", "Sigmoid", "Elu", "Softplus", "Cos", "Abs", "Neg", "Sin", "LeakyRelu", "Erf", "HardSigmoid", "Selu",
    "Atan", "Softsign", "Identity", "Ceil", "Sign", "Sinh", "Dropout",
)  # fmt: skip


@rule()
def function(g: Maker, x: Val) -> None:
    newer = [("ThresholdedRelu", 10), ("HardSwish", 14), ("Mish", 18), ("Gelu", 20), ("Round", 11), ("Celu", 12)]
    g.node(g.pick([*_FUNCTIONS, *(n for n, since in newer if g.opset >= since)]), x)


@rule()
def number(g: Maker, x: Val) -> None:
    c = g.stored(g.pick((0.5, -1.5, 2.0)), np.float32)
    if g.chance(0.15):
        low, high = g.stored(-0.5), g.stored(1.5)
        g.node("Clip", x, low, high) if g.opset >= 11 else g.node("Clip", x, min=-0.5, max=1.5)
        return
    op = g.pick(("Add", "Mul", "Sub", "Div", "Max", "Min"))
    g.node(op, *((x, c) if g.chance(0.7) or op == "Div" else (c, x)))


@rule()
def gain(g: Maker, x: Val) -> None:
    """A learned number for each feature, for each element, or for all."""
    form = g.pick((
        [x.width if d == x.feature else 1 for d in range(1, x.rank)],
        list(x.shape[1:]),
        [1],
    ))  # fmt: skip
    g.node(g.pick(("Add", "Mul", "Sub")), *g.pick(((x, w := g.weight(*form)), (w, x))))


@rule()
def with_another(g: Maker, x: Val) -> None:
    y = g.partner(x, lambda v: v.rank == x.rank and all(m in (1, n) for m, n in zip(v.shape, x.shape, strict=True)))
    g.pick((
        lambda: g.node("Add", x, y),
        lambda: g.node("Mul", x, g.node("Sigmoid", y)),
        lambda: g.node("Where", g.node("Greater", x, y), x, g.node("Tanh", y)),
        lambda: g.node("Sum", x, y, x),
        lambda: g.node("Max", x, y),
        lambda: g.node("Mean", x, y),
        lambda: g.node("Mul", x, g.node("Cast", g.node("Less", x, y), to=TensorProto.FLOAT)),
    ))()  # fmt: skip


@rule(since=7)
def sized(g: Maker, x: Val) -> None:
    """Numbers made from sizes: a share of the batch, or what a Range counts."""
    n = g.node("Cast", g.size(x, 0), to=TensorProto.FLOAT)
    if g.opset >= 11 and g.chance(0.5):
        count = g.node("Squeeze", g.size(x, 0))
        g.values.append(made := g.node("Range", g.stored(0, np.int64), count, g.stored(1, np.int64)))
        column = g.reshape(g.node("Cast", made, to=TensorProto.FLOAT), (0, *[1] * (x.rank - 1)))
        g.node("Add", x, column)
    else:
        g.node("Div", x, n)


@rule(IMAGE, VECTOR)
def prelu(g: Maker, x: Val) -> None:
    g.node("PRelu", x, g.weight(*([x.width, 1, 1] if x.rank == IMAGE else [x.width])))


@rule()
def residual(g: Maker, x: Val) -> None:
    if x.rank == IMAGE:
        y = g.node("Conv", x, g.weight(x.width, x.width, 1, 1), g.weight(x.width))
    else:
        y = g.node("MatMul", x, g.weight(x.width, x.width))
    g.node("Add", x, g.node("Relu", y))


@rule(IMAGE, SEQUENCE, since=14)
def triangle(g: Maker, x: Val) -> None:
    g.node("Trilu", x, upper=g.pick((0, 1)))


# ---------------------------------------------------------------------- joins and parts


@rule()
def concat(g: Maker, x: Val) -> None:
    d = x.feature
    y = g.partner(x, lambda v: v.rank == x.rank and v.shape[:d] + v.shape[d + 1 :] == x.shape[:d] + x.shape[d + 1 :])
    g.node("Concat", x, y, axis=g.pick((d, d - x.rank)))


@rule()
def split(g: Maker, x: Val) -> None:
    d, n = x.feature, x.width
    if n < 2:
        raise Unfit("too narrow")
    a = g.integer(1, n - 1)
    if n % 2 == 0 and g.chance(0.4):
        g.nodes_("Split", 2, x, axis=d, **({"num_outputs": 2} if g.opset >= 18 else {}))
    elif g.opset < 13:
        g.nodes_("Split", 2, x, axis=d, split=[a, n - a])
    else:
        g.nodes_("Split", 2, x, g.ints(a, n - a), axis=d)


def cut(g: Maker, x: Val, d: int, start: int, stop: int, step: int = 1) -> Val:
    """A slice in the spelling of the opset."""
    if g.opset < 10:
        return g.node("Slice", x, starts=[start], ends=[stop], axes=[d])
    return g.node("Slice", x, g.ints(start), g.ints(stop), g.ints(d), g.ints(step))


@rule()
def slice_(g: Maker, x: Val) -> None:
    d = g.integer(1, x.rank - 1)
    n = x.shape[d]
    a = g.integer(0, n - 1)
    b = g.integer(a + 1, n)
    start, stop = g.pick(((a, b), (a - n, b), (a, (1 << 63) - 1), (a, b - n if b < n else (1 << 31) - 1)))
    if g.opset >= 10 and g.chance(0.15):
        cut(g, x, d, -1, -(1 << 63), -1)
    else:
        cut(g, x, d, start, stop, g.pick((1, 1, 1, 2)))


@rule()
def swapped_halves(g: Maker, x: Val) -> None:
    d, k = x.feature, max(1, x.width // 2)
    first, rest = cut(g, x, d, 0, k), cut(g, x, d, k, x.width)
    g.node("Concat", g.node("Neg", rest), first, axis=d)


@rule()
def gather(g: Maker, x: Val) -> None:
    d = g.integer(1, x.rank - 1)
    n = x.shape[d]
    index = [g.integer(-n if g.opset >= 11 else 0, n - 1) for _ in range(g.pick((2, 3, 4)))]
    g.pick((
        lambda: g.node("Gather", x, g.ints(*index), axis=d),
        lambda: g.node("Gather", x, g.stored(index[0], np.int64), axis=d),
    ))()  # fmt: skip


@rule()
def indexed(g: Maker, x: Val) -> None:
    """Positions, or rows of a table, by an index that is computed."""
    index = g.node("Cast", g.node("Greater", x, g.stored(0.0)), to=TensorProto.INT64)
    if g.chance(0.5):
        g.axes("ReduceMean", g.node("Gather", g.weight(2, g.width()), index), [1], 18, keepdims=0)
    else:
        y = g.node("Gather", x, g.stored([[0, 1], [1, 0]], np.int64), axis=1)
        g.axes("ReduceSum", y, [1], 13, keepdims=0)


@rule(since=11)
def gather_elements(g: Maker, x: Val) -> None:
    index = g.node("Cast", g.node("Greater", x, g.stored(0.0)), to=TensorProto.INT64)
    g.node("GatherElements", x, index, axis=g.integer(1, x.rank - 1))


@rule()
def opaque(g: Maker, x: Val) -> None:
    """An op that prunec has no declaration for."""
    g.node("Compress", x, g.stored([True, False] * 2, np.bool_), axis=x.feature)


@rule()
def ranked(g: Maker, x: Val) -> None:
    d = g.integer(1, x.rank - 1)
    g.pick((
        lambda: g.nodes_("TopK", 2, x, g.ints(g.integer(1, x.shape[d])), axis=d),
        lambda: g.node("Add", x, g.node("Cast", g.node("ArgMax", x, axis=d), to=TensorProto.FLOAT)),
        lambda: g.node("CumSum", x, g.stored(d, np.int64)),
    ))()  # fmt: skip


@rule()
def expand(g: Maker, x: Val) -> None:
    """A learned row repeated to the size of the input, or a reduced value put back."""
    shape, one = g.node("Shape", x), numpy_helper.from_array(np.ones(1, np.float32))
    g.pick((
        lambda: g.node("Add", x, g.node("Expand", g.weight(*[1] * (x.rank - 1), x.shape[-1]), shape)),
        lambda: g.node("Mul", g.node("Expand", g.axes("ReduceMean", x, [x.feature], 18), shape), x),
        lambda: g.node("Add", x, g.node("ConstantOfShape", shape, value=one)),
        lambda: g.node("Concat", x, g.node("ConstantOfShape", shape), axis=x.feature),
    ))()  # fmt: skip


@rule()
def tile(g: Maker, x: Val) -> None:
    d = g.integer(1, x.rank - 1)
    g.node("Tile", x, g.ints(*(2 if k == d else 1 for k in range(x.rank))))


@rule()
def pad(g: Maker, x: Val) -> None:
    d = g.integer(1, x.rank - 1)
    pads = [0] * (2 * x.rank)
    pads[d], pads[x.rank + d] = g.integer(0, 2), g.integer(0, 2)
    mode = g.pick(("constant", "constant", "edge"))
    if g.opset < 11:
        g.node("Pad", x, pads=pads, mode=mode)
    else:
        g.node("Pad", x, g.ints(*pads), *([g.stored(1.0)] if g.chance(0.4) else []), mode=mode)


@rule()
def reduced(g: Maker, x: Val) -> None:
    d = g.integer(1, x.rank - 1)
    keep = x.rank == VECTOR or g.chance(0.5)
    op = g.pick(
        (
            "ReduceMean",
            "ReduceSum",
            "ReduceMax",
            "ReduceMin",
            "ReduceL2",
            "ReduceL1",
            "ReduceLogSumExp",
            "ReduceSumSquare",
        )
    )
    y = g.axes(op, x, [g.pick((d, d - x.rank))], 13 if op == "ReduceSum" else 18, keepdims=int(keep))
    if keep:
        g.node("Add", x, y)


# ---------------------------------------------------------------------- shapes


@rule(IMAGE, SEQUENCE)
def flatten(g: Maker, x: Val) -> None:
    g.node("Flatten", x, axis=1) if g.chance(0.5) else g.reshape(x, (0, -1))


@rule(IMAGE)
def channel_shuffle(g: Maker, x: Val) -> None:
    _, c, h, w = x.shape
    k = g.divisor(c)
    y = g.node("Transpose", g.reshape(x, (0, k, c // k, h, w)), perm=[0, 2, 1, 3, 4])
    g.reshape(g.node("Relu", y) if g.chance(0.4) else y, (0, c, h, w))


@rule(SEQUENCE, VECTOR)
def regrouped(g: Maker, x: Val) -> None:
    """Features as groups for a moment."""
    k, lead = g.divisor(x.width), x.shape[1:-1]
    y = g.reshape(x, (0, *lead, k, x.width // k))
    y = g.pick((
        lambda: g.node("Softmax", y, axis=y.rank - 1),
        lambda: g.node("Transpose", y, perm=[*range(y.rank - 2), y.rank - 1, y.rank - 2]),
        lambda: g.node("Mul", y, g.weight(k, 1)),
    ))()  # fmt: skip
    g.reshape(y, (0, *lead, x.width))


@rule(IMAGE)
def to_sequence(g: Maker, x: Val) -> None:
    g.node("Transpose", g.reshape(x, (0, x.width, x.shape[2] * x.shape[3])), perm=[0, 2, 1])


@rule(SEQUENCE)
def to_image(g: Maker, x: Val) -> None:
    h = next((h for h in (2, 3, 4, 5, 6) if h * h == x.shape[1]), None)
    if h is None:
        raise Unfit("no square")
    g.reshape(g.node("Transpose", x, perm=[0, 2, 1]), (0, x.width, h, h))


@rule(SEQUENCE)
def to_vector(g: Maker, x: Val) -> None:
    g.pick((
        lambda: g.axes("ReduceMean", x, [1], 18, keepdims=0),
        lambda: g.node("Gather", x, g.stored(0, np.int64), axis=1),
        lambda: g.axes("Squeeze", cut(g, x, 1, 0, 1), [1], 13),
    ))()  # fmt: skip


@rule(VECTOR)
def to_sequence_of_parts(g: Maker, x: Val) -> None:
    k = g.divisor(x.width)
    g.reshape(x, (0, k, x.width // k)) if g.chance(0.5) else g.axes("Unsqueeze", x, [1], 13)


@rule(IMAGE)
def pool(g: Maker, x: Val) -> None:
    if min(x.shape[2:]) < 3:
        raise Unfit("too small")
    g.pick((
        lambda: g.node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]),
        lambda: g.node("AveragePool", x, kernel_shape=[3, 3], pads=[1] * 4),
        lambda: g.node("LpPool", x, kernel_shape=[2, 2]),
    ))()  # fmt: skip


@rule(IMAGE)
def to_vector_by_pooling(g: Maker, x: Val) -> None:
    y = g.node(g.pick(("GlobalAveragePool", "GlobalMaxPool")), x)
    g.pick((
        lambda: g.node("Flatten", y),
        lambda: g.axes("Squeeze", y, [2, 3], 13),
        lambda: g.reshape(y, (0, x.width)),
    ))()  # fmt: skip


@rule(IMAGE)
def resized(g: Maker, x: Val) -> None:
    if max(x.shape[2:]) > 6:
        raise Unfit("too large")
    scales = g.stored([1, 1, 2, 2])
    if g.opset < 10:
        g.node("Upsample", x, scales, mode="nearest")
    elif g.opset < 11:
        g.node("Resize", x, scales, mode="nearest")
    elif g.chance(0.5):
        g.node("Resize", x, None, scales, mode="linear")
    else:
        sizes = g.node("Concat", cut(g, g.node("Shape", x), 0, 0, 2), g.ints(5, 4), axis=0)
        g.node("Resize", x, None, None, sizes, mode="nearest")


@rule(IMAGE)
def depth_and_space(g: Maker, x: Val) -> None:
    if x.width % 4 == 0 and max(x.shape[2:]) < 8:
        g.node("DepthToSpace", x, blocksize=2, **({"mode": g.pick(("DCR", "CRD"))} if g.opset >= 11 else {}))
    elif x.shape[2] % 2 == 0 and x.shape[3] % 2 == 0:
        g.node("SpaceToDepth", x, blocksize=2)
    else:
        raise Unfit("sizes are odd")


# ---------------------------------------------------------------------- blocks


def _heads(g: Maker, x: Val, heads: int, d: int) -> Val:
    y = g.node("MatMul", x, g.weight(x.width, heads * d))
    y = g.node("Add", y, g.weight(heads * d)) if g.chance(0.6) else y
    return g.node("Transpose", g.reshape(y, (0, -1, heads, d)), perm=[0, 2, 1, 3])


@rule(SEQUENCE)
def attention(g: Maker, x: Val) -> None:
    heads, k, v = g.pick((1, 2, 3)), g.pick((2, 4)), g.pick((2, 3))
    y = g.partner(x, lambda o: o.rank == SEQUENCE and o.shape == x.shape)
    q, kk, vv = _heads(g, x, heads, k), _heads(g, y, heads, k), _heads(g, y, heads, v)
    if g.opset >= 23 and g.chance(0.5):
        found = g.node("Attention", q, kk, vv, is_causal=g.pick((0, 1)))
    else:
        scores = g.node("MatMul", q, g.node("Transpose", kk, perm=[0, 1, 3, 2]))
        scale = g.stored(k**-0.5) if g.chance(0.5) else _head_scale(g, q)
        found = g.node("MatMul", g.node("Softmax", g.node("Mul", scores, scale), axis=3), vv)
    g.reshape(g.node("Transpose", found, perm=[0, 2, 1, 3]), (0, x.shape[1], heads * v))


def _head_scale(g: Maker, q: Val) -> Val:
    """1 / sqrt(head size), computed from the shape."""
    size = g.node("Gather", g.node("Shape", q), g.stored(3, np.int64))
    root = helper.make_node("Sqrt", [g.node("Cast", size, to=TensorProto.FLOAT).name], [g.fresh()])
    return _scalar(g, root, np.sqrt(np.float32(q.shape[3])))


def _scalar(g: Maker, root: onnx.NodeProto, value: np.float32) -> Val:
    inverse = helper.make_node("Reciprocal", [root.output[0]], [g.fresh()])
    g.nodes += [root, inverse]
    return Val(inverse.output[0], np.asarray(1 / value, np.float32))


@rule(SEQUENCE, since=23)
def grouped_attention(g: Maker, x: Val) -> None:
    k, times, d = g.pick((1, 2)), g.pick((2, 3)), g.pick((2, 3))
    found = g.node("Attention", _heads(g, x, k * times, d), _heads(g, x, k, d), _heads(g, x, k, d))
    g.reshape(g.node("Transpose", found, perm=[0, 2, 1, 3]), (0, x.shape[1], k * times * d))


@rule(SEQUENCE)
def linear_attention(g: Maker, x: Val) -> None:
    f = g.pick(("Relu", "Tanh", "Softplus"))
    a = g.node(f, x)
    g.node("MatMul", a, g.node("MatMul", g.node("Transpose", g.node(f, x), perm=[0, 2, 1]), x))


@rule(SEQUENCE)
def learned_steps(g: Maker, x: Val) -> None:
    """Learned steps before those of the input, repeated for each element of the batch."""
    n = g.pick((1, 2, 3))
    target = g.node("Concat", g.size(x, 0), g.ints(n, x.width), axis=0)
    y = g.node("Concat", g.node("Expand", g.weight(1, n, x.width), target), x, axis=1)
    g.node("Add", y, g.weight(1, y.shape[1], x.width))


@rule(IMAGE)
def squeeze_excite(g: Maker, x: Val) -> None:
    y = g.node("Relu", g.node("Conv", g.node("GlobalAveragePool", x), g.weight(3, x.width, 1, 1), g.weight(3)))
    g.node("Mul", x, g.node(g.pick(("Sigmoid", "HardSigmoid")), g.node("Conv", y, g.weight(x.width, 3, 1, 1))))


@rule()
def branch(g: Maker, x: Val) -> None:
    """An If whose branches read values and weights from outside."""
    w, condition = g.weight(*[1] * (x.rank - 1), x.shape[-1]), g.stored(g.chance(0.5), np.bool_)
    bodies = []
    for op in ("Add", "Mul"):
        out = helper.make_tensor_value_info(f"{op}_{g.numbered}", TensorProto.FLOAT, None)
        bodies.append(helper.make_graph([helper.make_node(op, [x.name, w.name], [out.name])], op, [], [out]))
    node = helper.make_node("If", [condition.name], [g.fresh()], then_branch=bodies[0], else_branch=bodies[1])
    g.nodes.append(node)
    found = x.array + w.array if bool(condition.array) else x.array * w.array
    g.values.append(Val(node.output[0], found))


@rule()
def loop(g: Maker, x: Val) -> None:
    """A Loop of two rounds that doubles a value."""
    count, go_on = g.stored(2, np.int64), g.stored(True, np.bool_)
    k = g.numbered
    of = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("Identity", [f"go{k}"], [f"on{k}"]),
            helper.make_node("Add", [f"a{k}", f"a{k}"], [f"b{k}"]),
        ],
        "round",
        [of(f"i{k}", TensorProto.INT64, []), of(f"go{k}", TensorProto.BOOL, []), of(f"a{k}", TensorProto.FLOAT, None)],
        [of(f"on{k}", TensorProto.BOOL, []), of(f"b{k}", TensorProto.FLOAT, None)],
    )
    node = helper.make_node("Loop", [count.name, go_on.name, x.name], [g.fresh()], body=body)
    g.nodes.append(node)
    g.values.append(Val(node.output[0], 4 * x.array))
