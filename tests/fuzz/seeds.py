"""Small ONNX models that between them hold what a file can hold: the healthy files that mutations start from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
Dims = Sequence["int | str"]


def weight(name: str, *shape: int, dtype: type = np.float32) -> TensorProto:
    """A random tensor, the same for the same name and shape."""
    rng = np.random.default_rng([len(name), *name.encode(), *shape])
    return numpy_helper.from_array(rng.standard_normal(shape).astype(dtype), name)


def integers(name: str, *numbers: int) -> TensorProto:
    return numpy_helper.from_array(np.asarray(numbers, np.int64), name)


def single(name: str, number: np.generic) -> TensorProto:
    return numpy_helper.from_array(np.asarray(number), name)


def finished(
    nodes: Sequence[NodeProto],
    x: Dims,
    y: Dims,
    weights: Sequence[TensorProto],
    opset: int = 17,
    functions: Sequence[onnx.FunctionProto] = (),
    checked: bool = True,
) -> ModelProto:
    """A model from the input ``x`` to the output ``y``, healthy unless it is not ``checked``."""
    inputs, outputs = [helper.make_tensor_value_info("x", FLOAT, x)], [helper.make_tensor_value_info("y", FLOAT, y)]
    imports = [helper.make_opsetid("", opset), *([helper.make_opsetid("own", 1)] if functions else [])]
    graph = helper.make_graph(list(nodes), "g", inputs, outputs, list(weights))
    model = helper.make_model(graph, opset_imports=imports, ir_version=8 if opset < 19 else 10, functions=functions)
    if checked:
        onnx.checker.check_model(model)
    return model


node = helper.make_node


def convolutions() -> ModelProto:
    """Convolutions with batch norm, a residual, groups, pools and a head."""
    norm = [weight(n, 8) for n in ("scale", "shift", "mean")]
    variance = numpy_helper.from_array(np.linspace(0.5, 1.5, 8, dtype=np.float32), "var")
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["a"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("BatchNormalization", ["a", "scale", "shift", "mean", "var"], ["n"], epsilon=1e-5),
        node("Relu", ["n"], ["r"]),
        node("Conv", ["r", "w2"], ["d"], kernel_shape=[3, 3], pads=[1, 1, 1, 1], group=2),
        node("Add", ["d", "r"], ["s"]),
        node("MaxPool", ["s"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        node("GlobalAveragePool", ["p"], ["q"]),
        node("Flatten", ["q"], ["f"], axis=1),
        node("Gemm", ["f", "w3", "b3"], ["y"], transB=1),
    ]
    weights = [weight("w1", 8, 3, 3, 3), weight("b1", 8), *norm, variance, weight("w2", 8, 4, 3, 3)]
    return finished(nodes, ["N", 3, 8, 8], ["N", 4], [*weights, weight("w3", 4, 8), weight("b3", 4)])


def attention() -> ModelProto:
    """One block: norm, heads by reshape, softmax, and a feed-forward part."""
    nodes = [
        node("LayerNormalization", ["x", "g1", "b1"], ["n"], axis=-1),
        node("MatMul", ["n", "qkv"], ["h"]),
        node("Split", ["h", "thirds"], ["q", "k", "v"], axis=2),
        *(node("Reshape", [c, "heads"], [f"{c}r"]) for c in "qkv"),
        node("Transpose", ["qr"], ["qt"], perm=[0, 2, 1, 3]),
        node("Transpose", ["kr"], ["kt"], perm=[0, 2, 3, 1]),
        node("Transpose", ["vr"], ["vt"], perm=[0, 2, 1, 3]),
        node("MatMul", ["qt", "kt"], ["s"]),
        node("Div", ["s", "root"], ["t"]),
        node("Softmax", ["t"], ["p"], axis=-1),
        node("MatMul", ["p", "vt"], ["o"]),
        node("Transpose", ["o"], ["ot"], perm=[0, 2, 1, 3]),
        node("Reshape", ["ot", "flat"], ["of"]),
        node("MatMul", ["of", "proj"], ["pr"]),
        node("Add", ["pr", "x"], ["res"]),
        node("MatMul", ["res", "up"], ["u"]),
        node("Relu", ["u"], ["ur"]),
        node("MatMul", ["ur", "down"], ["y"]),
    ]
    weights = [weight("g1", 8), weight("b1", 8), weight("qkv", 8, 24), weight("proj", 8, 8), weight("up", 8, 12)]
    shapes = [integers("heads", 0, 5, 2, 4), integers("flat", 0, 5, 8), integers("thirds", 8, 8, 8)]
    root = numpy_helper.from_array(np.asarray(2.0, np.float32), "root")
    return finished(nodes, ["N", 5, 8], ["N", 5, 8], [*weights, weight("down", 12, 8), *shapes, root])


def sizes() -> ModelProto:
    """Sizes that are computed: Shape, Gather, Concat, Range, ConstantOfShape, Expand, Slice, Where."""
    nodes = [
        node("MatMul", ["x", "w1"], ["a"]),
        node("Shape", ["a"], ["shape"]),
        node("Gather", ["shape", "zero"], ["batch"], axis=0),
        node("Concat", ["batch", "rest"], ["target"], axis=0),
        node("Reshape", ["a", "target"], ["r"]),
        node("Slice", ["r", "zero", "two", "one"], ["s"]),
        node("ConstantOfShape", ["target"], ["zeros"]),
        node("Slice", ["zeros", "zero", "two", "one"], ["z"]),
        node("Add", ["s", "z"], ["t"]),
        node("Expand", ["bias", "two_by_six"], ["e"]),
        node("Add", ["t", "e"], ["u"]),
        node("ReduceMean", ["u"], ["m"], axes=[1], keepdims=0),
        node("Range", ["start", "stop", "step"], ["steps"]),
        node("Cast", ["steps"], ["floats"], to=FLOAT),
        node("Add", ["m", "floats"], ["v"]),
        node("Greater", ["v", "floats"], ["mask"]),
        node("Where", ["mask", "v", "floats"], ["chosen"]),
        node("MatMul", ["chosen", "w2"], ["y"]),
    ]
    scalars = [numpy_helper.from_array(np.asarray(n, np.int64), s) for s, n in (("start", 0), ("stop", 6), ("step", 1))]
    vectors = [integers("zero", 0), integers("one", 1), integers("two", 2)]
    shapes = [integers("rest", 2, 6), integers("two_by_six", 1, 2, 6)]
    weights = [weight("w1", 4, 12), weight("w2", 6, 3), weight("bias", 6), *shapes, *vectors, *scalars]
    return finished(nodes, ["N", 4], ["N", 3], weights)


def recurrent() -> ModelProto:
    """An LSTM and a GRU in a chain."""
    nodes = [
        node("LSTM", ["x", "w", "r", "b"], ["h", "", ""], hidden_size=6),
        node("Squeeze", ["h", "one"], ["hs"]),
        node("GRU", ["hs", "w2", "r2"], ["g"], hidden_size=4, linear_before_reset=1),
        node("Squeeze", ["g", "one"], ["gs"]),
        node("MatMul", ["gs", "out"], ["y"]),
    ]
    weights = [weight("w", 1, 24, 3), weight("r", 1, 24, 6), weight("b", 1, 48), weight("w2", 1, 12, 6)]
    return finished(
        nodes, [5, "N", 3], [5, "N", 2], [*weights, weight("r2", 1, 12, 4), weight("out", 4, 2), integers("one", 1)]
    )


def _body(name: str, nodes: Sequence[NodeProto], inputs: Sequence[onnx.ValueInfoProto], outputs: Dims) -> GraphProto:
    made = [helper.make_tensor_value_info(str(o), onnx.TensorProto.UNDEFINED, None) for o in outputs]
    for value in made:
        value.type.tensor_type.elem_type = TensorProto.BOOL if value.name == "go" else FLOAT
    return helper.make_graph(list(nodes), name, list(inputs), made)


def control_flow() -> ModelProto:
    """If and Loop whose bodies read outer values."""
    then = _body("then", [node("MatMul", ["a", "w2"], ["then_y"])], [], ["then_y"])
    other = _body("else", [node("MatMul", ["a", "w3"], ["else_y"])], [], ["else_y"])
    counters = [helper.make_tensor_value_info("i", INT64, []), helper.make_tensor_value_info("c", TensorProto.BOOL, [])]
    carried = [helper.make_tensor_value_info("v", FLOAT, None)]
    steps = [node("Identity", ["c"], ["go"]), node("Add", ["v", "b"], ["v_next"])]
    loop = _body("body", steps, [*counters, *carried], ["go", "v_next"])
    nodes = [
        node("MatMul", ["x", "w1"], ["a"]),
        node("ReduceSum", ["a"], ["sum"], keepdims=0),
        node("Greater", ["sum", "zero"], ["cond"]),
        node("If", ["cond"], ["z"], then_branch=then, else_branch=other),
        node("Loop", ["trips", "yes", "z"], ["last"], body=loop),
        node("MatMul", ["last", "w4"], ["m"]),
        node("MatMul", ["m", "w5"], ["y"]),
    ]
    fixed = [single("zero", np.float32(0)), single("yes", np.bool_(True))]
    weights = [weight("w1", 4, 6), weight("w2", 6, 6), weight("w3", 6, 6), weight("w4", 6, 8), weight("w5", 8, 3)]
    trips = single("trips", np.int64(3))
    return finished(nodes, ["N", 4], ["N", 3], [*weights, weight("b", 6), *fixed, trips])


def functions() -> ModelProto:
    """A local function that calls another."""
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    inner = helper.make_function(
        "own", "Swish", ["i"], ["o"], [node("Sigmoid", ["i"], ["s"]), node("Mul", ["i", "s"], ["o"])], imports
    )
    outer = helper.make_function(
        "own",
        "Layer",
        ["i", "w"],
        ["o"],
        [node("MatMul", ["i", "w"], ["m"]), node("Swish", ["m"], ["o"], domain="own")],
        imports,
    )
    nodes = [node("Layer", ["x", "w1"], ["a"], domain="own"), node("Layer", ["a", "w2"], ["y"], domain="own")]
    return finished(nodes, ["N", 4], ["N", 3], [weight("w1", 4, 8), weight("w2", 8, 3)], functions=[inner, outer])


def movers() -> ModelProto:
    """Ops that move positions: transposed convolution, resize, pad, shuffle, tile, concat, top-k, gather, einsum."""
    nodes = [
        node("ConvTranspose", ["x", "w1"], ["a"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Pad", ["a", "pads"], ["p"], mode="constant"),
        node("Resize", ["p", "", "scales"], ["r"], mode="nearest"),
        node("DepthToSpace", ["r"], ["d"], blocksize=2),
        node("SpaceToDepth", ["d"], ["s"], blocksize=2),
        node("Concat", ["s", "r"], ["c"], axis=1),
        node("AveragePool", ["c"], ["v"], kernel_shape=[3, 3], strides=[3, 3], auto_pad="SAME_UPPER"),
        node("Conv", ["v", "w2"], ["e"], strides=[2, 2], dilations=[1, 1]),
        node("Clip", ["e", "low", "high"], ["k"]),
        node("Tile", ["k", "ones"], ["t"]),
        node("ReduceMax", ["t"], ["m"], axes=[2, 3], keepdims=0),
        node("Einsum", ["m", "w3"], ["z"], equation="bi,io->bo"),
        node("TopK", ["z", "two"], ["best", "places"], axis=1),
        node("Gather", ["z", "order"], ["o"], axis=1),
        node("Concat", ["o", "best"], ["y"], axis=1),
    ]
    weights = [weight("w1", 2, 8, 2, 2), weight("w2", 6, 16, 1, 1), weight("w3", 6, 4)]
    vectors = [integers("pads", 0, 0, 1, 1, 0, 0, 1, 1), integers("ones", 1, 1, 1, 1), integers("order", 2, 0, 1)]
    scales = numpy_helper.from_array(np.asarray([1, 1, 2, 2], np.float32), "scales")
    bounds = [numpy_helper.from_array(np.asarray(n, np.float32), s) for s, n in (("low", -6), ("high", 6))]
    return finished(nodes, ["N", 2, 4, 4], ["N", 5], [*weights, *vectors, integers("two", 2), scales, *bounds])


def types() -> ModelProto:
    """Types beside float32: half, bfloat16, double, int4, quantised; constants of every spelling; a sparse one."""
    sparse = helper.make_sparse_tensor(weight("", 2), integers("", 1, 3), [6])
    nodes = [
        node("Cast", ["x"], ["h"], to=TensorProto.FLOAT16),
        node("MatMul", ["h", "half"], ["a"]),
        node("Cast", ["a"], ["f"], to=FLOAT),
        node("QuantizeLinear", ["f", "scale", "point"], ["q"]),
        node("DequantizeLinear", ["q", "scale", "point"], ["d"]),
        node("DequantizeLinear", ["four", "scale"], ["w"]),
        node("MatMul", ["d", "w"], ["m"]),
        node("Constant", [], ["c"], value_floats=[0.5, 1.0, -1.0, 2.0, 0.25, 3.0]),
        node("Constant", [], ["one"], value_int=1),
        node("Constant", [], ["text"], value_string="note"),
        node("Constant", [], ["thin"], sparse_value=sparse),
        node("Cast", ["brain"], ["b"], to=FLOAT),
        node("Cast", ["double"], ["e"], to=FLOAT),
        node("Sum", ["m", "c", "b", "e", "thin"], ["s"]),
        node("Unsqueeze", ["s", "axes"], ["u"]),
        node("Squeeze", ["u", "axes"], ["v"]),
        node("MatMul", ["v", "out"], ["y"]),
    ]
    four = helper.make_tensor("four", TensorProto.INT4, [8, 6], [k % 15 - 7 for k in range(48)])
    brain = helper.make_tensor("brain", TensorProto.BFLOAT16, [6], [0.5] * 6)
    scale, point = single("scale", np.float32(0.1)), single("point", np.int8(0))
    weights = [weight("half", 4, 8, dtype=np.float16), weight("double", 6, dtype=np.float64), four, brain]
    typed = helper.make_tensor("out", FLOAT, [6, 3], np.linspace(-1, 1, 18).tolist())
    return finished(nodes, ["N", 4], ["N", 3], [*weights, scale, point, integers("axes", 1), typed], opset=21)


def external(model: ModelProto, location: str) -> tuple[ModelProto, bytes]:
    """``model`` with its large initialisers in a data file called ``location``, and the bytes of that file."""
    data, changed = b"", ModelProto()
    changed.CopyFrom(model)
    for tensor in changed.graph.initializer:
        if len(tensor.raw_data) > 64:
            entries = {"location": location, "offset": str(len(data)), "length": str(len(tensor.raw_data))}
            data += tensor.raw_data
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in entries.items():
                tensor.external_data.add(key=key, value=value)
    return changed, data


SEEDS = {f.__name__: f for f in (convolutions, attention, sizes, recurrent, control_flow, functions, movers, types)}
