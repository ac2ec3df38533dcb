"""Healthy ONNX files made hostile: bytes that are damaged, and protobufs that are well-formed and lie.

Every mutation is a function from a :class:`Victim` to bytes, drawn and repeated by a seed.  Start at :func:`mutated`.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from google.protobuf.descriptor import FieldDescriptor as Field
from google.protobuf.message import DecodeError, Message
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

_INTS = (
    *range(-3, 9), 16, 255, 1000, 65535, 1 << 24, (1 << 31) - 1, 1 << 31, 1 << 40, 1 << 62, (1 << 63) - 1, -(1 << 31),
    -(1 << 62), -(1 << 63),
)  # fmt: skip
_FLOATS = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-38, 1e38, float("inf"), float("-inf"), float("nan"))
_TEXTS = (
    "",
    "x",
    "y",
    "\n",
    "é→名",
    "a" * 5000,
    "../x",
    "/etc/passwd",
    "ai.onnx",
    "own",
    "NOTSET",
    "SAME_LOWER",
    "%s{}",
)
_OPS = sorted({s.name for s in onnx.defs.get_all_schemas() if s.domain == ""})
_LOCATIONS = ("../x.data", "/etc/passwd", "/dev/zero", "/proc/self/mem", "x.data", "", ".", "nothing", "linked.data")
_TYPES = sorted(TensorProto.DataType.values())


@dataclass
class Victim:
    """A healthy model, its siblings for splices, and the source of chance."""

    model: ModelProto
    others: Sequence[ModelProto]
    draw: random.Random

    def nodes(self) -> list[NodeProto]:
        """Nodes at any depth."""
        return list(_within(self.model, NodeProto))

    def names(self) -> list[str]:
        """Names of values, at any depth."""
        return [n for node in self.nodes() for n in (*node.input, *node.output)] + [
            t.name for t in self.model.graph.initializer
        ]


def _messages(message: Message) -> Iterator[Message]:
    yield message
    for field, value in message.ListFields():
        if field.type == Field.TYPE_MESSAGE:
            for item in value if _is_repeated(field) else [value]:
                yield from _messages(item)


def _is_repeated(field: Field) -> bool:
    return bool(field.is_repeated)


def _within(message: Message, kind: type[Any]) -> Iterator[Any]:
    return (m for m in _messages(message) if isinstance(m, kind))


# ---------------------------------------------------------------------- bytes


def _flip(data: bytearray, v: Victim) -> None:
    for _ in range(v.draw.choice((1, 1, 2, 4, 16))):
        data[v.draw.randrange(len(data))] ^= 1 << v.draw.randrange(8)


def _overwrite(data: bytearray, v: Victim) -> None:
    for _ in range(v.draw.choice((1, 1, 2, 8))):
        data[v.draw.randrange(len(data))] = v.draw.choice((0, 1, 0x7F, 0x80, 0xFF, v.draw.randrange(256)))


def _truncate(data: bytearray, v: Victim) -> None:
    del data[v.draw.randrange(len(data)) :]


def _remove(data: bytearray, v: Victim) -> None:
    start = v.draw.randrange(len(data))
    del data[start : start + v.draw.choice((1, 2, 8, 64))]


def _repeat(data: bytearray, v: Victim) -> None:
    start, size, at = v.draw.randrange(len(data)), v.draw.choice((1, 4, 32, 256)), v.draw.randrange(len(data))
    data[at:at] = data[start : start + size]


def _swap(data: bytearray, v: Victim) -> None:
    size = v.draw.choice((1, 4, 32))
    a, b = (v.draw.randrange(len(data)) for _ in range(2))
    data[a : a + size], data[b : b + size] = data[b : b + size], data[a : a + size]


def _splice(data: bytearray, v: Victim) -> None:
    other = v.draw.choice(v.others).SerializeToString()
    data[v.draw.randrange(len(data)) :] = other[v.draw.randrange(len(other)) :]


def _varint(data: bytearray, v: Victim) -> None:
    at = v.draw.randrange(len(data))
    number, encoded = v.draw.choice(_INTS) % (1 << 64), bytearray()
    while number >= 0x80:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    data[at : at + 1] = [*encoded, number]


def _joined(data: bytearray, v: Victim) -> None:
    """Protobufs one behind the other merge: every repeated field of both, the last of every other."""
    data += v.draw.choice([*v.others, v.model]).SerializeToString()


_BYTES = (_flip, _overwrite, _truncate, _remove, _repeat, _swap, _splice, _varint, _joined)


def damaged(v: Victim) -> bytes:
    """The file with bytes changed, cut, moved or spliced."""
    data = bytearray(v.model.SerializeToString())
    for _ in range(v.draw.choice((1, 1, 1, 2, 3))):
        if data:
            v.draw.choice(_BYTES)(data, v)
    return bytes(data)


# ---------------------------------------------------------------------- any field of any message


def _any_field(v: Victim) -> None:
    """A random field of a random message gets another value, loses it, or has it twice."""
    found = list(_messages(v.model))
    kinds = sorted({type(m).__name__ for m in found})
    kind = v.draw.choice(kinds)
    message = v.draw.choice([m for m in found if type(m).__name__ == kind])
    present = [f for f, _ in message.ListFields()]
    anywhere = not present or v.draw.random() < 0.2
    field = v.draw.choice(list(message.DESCRIPTOR.fields) if anywhere else present)
    if v.draw.random() < 0.1:
        message.ClearField(field.name)
    elif _is_repeated(field):
        _change_repeated(getattr(message, field.name), field, v)
    elif field.type == Field.TYPE_MESSAGE:
        donor = v.draw.choice(
            [m for m in found if m.DESCRIPTOR is field.message_type] or [getattr(message, field.name)]
        )
        copy = type(donor)()
        copy.CopyFrom(donor)
        getattr(message, field.name).CopyFrom(copy)
    else:
        setattr(message, field.name, _scalar(field, getattr(message, field.name), v))


def _change_repeated(items: Any, field: Field, v: Victim) -> None:
    """One more, one fewer, two exchanged, or one changed."""
    message = field.type == Field.TYPE_MESSAGE
    way = v.draw.choice(("more", "fewer", "swap", "change", "change"))
    at = v.draw.randrange(len(items)) if len(items) else 0
    if message and not len(items):
        items.add()
    elif not len(items) or way == "more":
        items.append(_twin(items[at]) if message else _scalar(field, None, v))
    elif way == "fewer":
        del items[at]
    elif way == "swap" or message:
        order = list(range(len(items)))
        other = v.draw.randrange(len(items))
        order[at], order[other] = order[other], order[at]
        held = [_twin(i) if message else i for i in items]
        del items[:]
        items.extend(held[k] for k in order)
    else:
        items[at] = _scalar(field, items[at], v)


def _twin(message: Any) -> Any:
    copy = type(message)()
    copy.CopyFrom(message)
    return copy


def _scalar(field: Field, old: Any, v: Victim) -> Any:
    if field.type == Field.TYPE_STRING:
        return v.draw.choice([*_TEXTS, *v.names()[:40], *v.draw.sample(_OPS, 3)])
    if field.type == Field.TYPE_BYTES:
        old = old or b""
        return v.draw.choice([b"", old[:-1], old + b"\0", old[: len(old) // 2], bytes(len(old)), b"\xff" * len(old)])
    if field.type in (Field.TYPE_FLOAT, Field.TYPE_DOUBLE):
        return v.draw.choice(_FLOATS)
    if field.type == Field.TYPE_ENUM:
        return v.draw.choice([x.number for x in field.enum_type.values])
    return _fitting(
        field, v.draw.choice([*_INTS, *_TYPES]) if v.draw.random() < 0.8 else (old or 0) + v.draw.choice((-1, 1))
    )


_WIDTHS = {Field.TYPE_INT32: (32, True), Field.TYPE_UINT32: (32, False), Field.TYPE_UINT64: (64, False)}


def _fitting(field: Field, number: int) -> int:
    """A number in the range of the field's type, around which it wraps."""
    bits, signed = _WIDTHS.get(field.type, (64, True))
    number %= 1 << bits
    return number - (1 << bits) if signed and number >> (bits - 1) else number


# ---------------------------------------------------------------------- lies with a meaning


def _tensor(v: Victim) -> TensorProto:
    found: TensorProto = v.draw.choice([*_within(v.model, TensorProto)] or [v.model.graph.initializer.add()])
    return found


def _node(v: Victim) -> NodeProto:
    found: NodeProto = v.draw.choice(v.nodes() or [v.model.graph.node.add()])
    return found


def _dim(v: Victim) -> None:
    """A declared size, of an input, an output or a value between."""
    dims = [d for m in _within(v.model, onnx.TensorShapeProto) for d in m.dim]
    if dims:
        dim = v.draw.choice(dims)
        if v.draw.random() < 0.2:
            dim.dim_param = v.draw.choice(("N", "M", "", "x.0"))
        else:
            dim.dim_value = v.draw.choice(_INTS)


def _rank(v: Victim) -> None:
    """A declared shape with an axis more, an axis fewer, or none."""
    shape = v.draw.choice([*_within(v.model, onnx.TensorShapeProto)])
    if len(shape.dim) and v.draw.random() < 0.5:
        del shape.dim[v.draw.randrange(len(shape.dim))]
    else:
        shape.dim.add(dim_value=v.draw.choice((0, 1, 2, 3)))


def _kind_of_input(v: Victim) -> None:
    """An input of another type: another element, a sequence, an optional, a map, a sparse tensor."""
    value = v.draw.choice([*v.model.graph.input, *v.model.graph.output])
    inner = value.type.tensor_type
    made = [
        helper.make_tensor_type_proto(v.draw.choice(_TYPES), [2, 3]),
        helper.make_sequence_type_proto(helper.make_tensor_type_proto(1, [2])),
        helper.make_optional_type_proto(helper.make_tensor_type_proto(1, [2])),
        helper.make_sparse_tensor_type_proto(1, [2, 3]),
        helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(1, [2])),
    ]
    if v.draw.random() < 0.5:
        inner.elem_type = v.draw.choice(_TYPES)
    else:
        value.type.CopyFrom(v.draw.choice(made))


def _tensor_dims(v: Victim) -> None:
    tensor = _tensor(v)
    way = v.draw.choice(("set", "more", "fewer", "none", "transpose", "fit"))
    if way == "set" and len(tensor.dims):
        tensor.dims[v.draw.randrange(len(tensor.dims))] = v.draw.choice(_INTS)
    elif way == "more":
        tensor.dims.append(v.draw.choice((0, 1, 1, 2)))
    elif way == "fewer" and len(tensor.dims):
        del tensor.dims[-1]
    elif way == "none":
        tensor.ClearField("dims")
    elif way == "fit":
        shape = [v.draw.choice((0, 1, 2, 3)) for _ in range(v.draw.randrange(4))]
        _store(tensor, np.asarray(v.draw.choice(_FLOATS)) * np.ones(shape))
    else:
        dims = list(tensor.dims)[::-1]
        tensor.ClearField("dims")
        tensor.dims.extend(dims)


def _store(tensor: TensorProto, array: np.ndarray[Any, Any]) -> None:
    """``array`` in place of what the tensor holds, under its name and in its type where numpy has that."""
    try:
        dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
        made = numpy_helper.from_array(np.nan_to_num(array, posinf=3, neginf=-3).clip(-3, 3).astype(dtype), tensor.name)
    except (KeyError, ValueError, TypeError, NotImplementedError):  # text, and types that numpy does not have
        made = numpy_helper.from_array(array.astype(np.float32), tensor.name)
    tensor.CopyFrom(made)


def _tensor_data(v: Victim) -> None:
    """Raw data of a wrong length, typed data beside raw, another type with and without the right length."""
    tensor = _tensor(v)
    way = v.draw.choice(("cut", "more", "both", "type", "retype", "typed", "segment"))
    if way == "cut":
        tensor.raw_data = tensor.raw_data[: v.draw.randrange(len(tensor.raw_data) + 1)]
    elif way == "more":
        tensor.raw_data += bytes(v.draw.choice((1, 4, 100)))
    elif way == "both":
        tensor.float_data.extend([1.0] * v.draw.choice((1, 8)))
    elif way == "type":
        tensor.data_type = v.draw.choice([*_TYPES, 77, -1])
    elif way == "retype":
        tensor.data_type = v.draw.choice(_TYPES)
        with_dims = list(tensor.dims)
        _store(tensor, np.ones([min(max(d, 0), 64) for d in with_dims][:4]))
    elif way == "segment":
        tensor.segment.begin, tensor.segment.end = v.draw.choice(_INTS), v.draw.choice(_INTS)
    else:
        tensor.ClearField("raw_data")
        getattr(tensor, v.draw.choice(("float_data", "int64_data", "int32_data", "double_data"))).extend([1] * 3)


def _external(v: Victim) -> None:
    """Data in another file: beyond its end, before its start, elsewhere."""
    tensor = _tensor(v)
    if tensor.data_location != TensorProto.EXTERNAL:
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
    numbers = ("0", "-1", "1", "16", "4096", str(1 << 62), "9" * 30, "x", "", " 4 ", "1e3", "0x10")
    del tensor.external_data[:]
    tensor.external_data.add(key="location", value=v.draw.choice(_LOCATIONS))
    for key in ("offset", "length", "checksum", "unknown"):
        if v.draw.random() < 0.5:
            tensor.external_data.add(key=key, value=v.draw.choice(numbers))


def _wires(v: Victim) -> None:
    """An input or output of a node gets another name: cycles, doubles, what does not exist, and legal rewiring."""
    node = _node(v)
    names = [*v.names(), "", "nowhere"]
    side = node.output if node.output and v.draw.random() < 0.3 else node.input
    way = v.draw.choice(("set", "set", "more", "fewer", "swap"))
    if way == "more" or not len(side):
        side.append(v.draw.choice(names))
    elif way == "fewer":
        del side[v.draw.randrange(len(side))]
    elif way == "swap":
        a, b = v.draw.randrange(len(side)), v.draw.randrange(len(side))
        side[a], side[b] = side[b], side[a]
    else:
        side[v.draw.randrange(len(side))] = v.draw.choice(names)


def _op(v: Victim) -> None:
    """Another op type, domain or name."""
    node = _node(v)
    way = v.draw.choice(("type", "type", "type", "domain", "name", "overload"))
    if way == "type":
        node.op_type = v.draw.choice([*_OPS, "Nonsense", ""])
    elif way == "domain":
        node.domain = v.draw.choice(("com.microsoft", "ai.onnx.ml", "own", "nowhere", "ai.onnx"))
    else:
        setattr(node, way, v.draw.choice(_TEXTS))


def _attribute(v: Victim) -> None:
    """An attribute of another value, kind or name; one too many; one that refers to a function's argument."""
    node = v.draw.choice([n for n in v.nodes() if n.attribute] or [_node(v)])
    known = onnx.defs.get_schema(node.op_type).attributes if node.op_type in _OPS else {}
    if not node.attribute or v.draw.random() < 0.2:
        node.attribute.append(helper.make_attribute(v.draw.choice([*known, "axis", "nonsense"]), v.draw.choice(_INTS)))
        return
    attribute = v.draw.choice(list(node.attribute))
    way = v.draw.choice(("value", "value", "value", "kind", "name", "refer", "twice", "gone"))
    if way == "value" and attribute.ints:
        attribute.ints[v.draw.randrange(len(attribute.ints))] = v.draw.choice(_INTS)
    elif way == "value" and attribute.type == AttributeProto.INT:
        attribute.i = v.draw.choice(_INTS)
    elif way == "value" and attribute.type == AttributeProto.FLOAT:
        attribute.f = v.draw.choice(_FLOATS)
    elif way == "value" and attribute.type == AttributeProto.STRING:
        attribute.s = v.draw.choice((b"", b"\xff\xfe", b"NOTSET", b"SAME_UPPER", b"reflect", b"bij,bjk->bik", b"..."))
    elif way == "name":
        attribute.name = v.draw.choice([*known, "axis", ""])
    elif way == "refer":
        attribute.ref_attr_name = v.draw.choice(("axis", "nonsense", attribute.name))
    elif way == "twice":
        node.attribute.append(_twin(attribute))
    elif way == "gone":
        node.attribute.remove(attribute)
    else:
        attribute.type = v.draw.choice(AttributeProto.AttributeType.values())


def _numbers(v: Victim) -> None:
    """Integers that ops compute with (shapes, axes, pads, splits) become others."""
    tensors = [t for t in _within(v.model, TensorProto) if t.data_type == TensorProto.INT64 and t.raw_data]
    if tensors:
        tensor = v.draw.choice(tensors)
        array = numpy_helper.to_array(tensor).copy()
        if array.size:
            array.flat[v.draw.randrange(array.size)] = v.draw.choice(_INTS)
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def _weights(v: Victim) -> None:
    """Weights that are not finite, huge, or all alike."""
    tensors = [t for t in _within(v.model, TensorProto) if t.data_type == TensorProto.FLOAT and t.raw_data]
    if tensors:
        tensor = v.draw.choice(tensors)
        array = np.full(list(tensor.dims), v.draw.choice(_FLOATS), np.float32)
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def _versions(v: Victim) -> None:
    """Opsets that are missing, huge, negative or twice; a strange IR version."""
    model, way = v.model, v.draw.choice(("opset", "opset", "none", "twice", "ir", "domain"))
    if way == "opset" and model.opset_import:
        model.opset_import[0].version = v.draw.choice([*range(1, 28), *_INTS])
    elif way == "none":
        del model.opset_import[:]
    elif way == "ir":
        model.ir_version = v.draw.choice(_INTS)
    elif way == "domain" and model.opset_import:
        model.opset_import[0].domain = v.draw.choice(("ai.onnx", "ai.onnx.ml", "com.microsoft", "nowhere"))
    else:
        model.opset_import.add(domain=v.draw.choice(("", "own", "ai.onnx.ml")), version=v.draw.choice(_INTS))


def _initialisers(v: Victim) -> None:
    """Initialisers that are missing, twice, listed as inputs, sparse, or named as something else."""
    graph, way = v.model.graph, v.draw.choice(("gone", "twice", "input", "sparse", "rename", "output"))
    tensor = v.draw.choice(list(graph.initializer) or [graph.initializer.add()])
    if way == "gone":
        graph.initializer.remove(tensor)
    elif way == "twice":
        graph.initializer.append(tensor)
    elif way == "input":
        shape = list(tensor.dims) if v.draw.random() < 0.7 else [v.draw.choice(_INTS)]
        kind = tensor.data_type if v.draw.random() < 0.7 else v.draw.choice(_TYPES)
        graph.input.append(helper.make_tensor_value_info(tensor.name, kind, shape))
    elif way == "output":
        graph.output.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    elif way == "rename":
        tensor.name = v.draw.choice([*v.names(), ""])
    else:
        _make_sparse(graph, tensor, v)


def _make_sparse(graph: onnx.GraphProto, tensor: TensorProto, v: Victim) -> None:
    """The tensor as a sparse initialiser; sometimes with positions that lie outside."""
    try:
        array = numpy_helper.to_array(tensor).copy()
    except (ValueError, TypeError, KeyError):
        return
    if array.dtype != np.float32 or not array.size:
        return
    array.flat[::2] = 0
    (at,) = np.nonzero(array.ravel())
    if v.draw.random() < 0.4 and at.size:
        at[v.draw.randrange(at.size)] = v.draw.choice(_INTS)
    values = numpy_helper.from_array(array.ravel()[array.ravel() != 0], tensor.name)
    sparse = helper.make_sparse_tensor(values, numpy_helper.from_array(at.astype(np.int64)), list(array.shape))
    graph.initializer.remove(tensor)
    graph.sparse_initializer.append(sparse)


def _functions(v: Victim) -> None:
    """Local functions: recursive, named like an op, called with too much, doubling at each of many levels."""
    model, way = v.model, v.draw.choice(("recursive", "pair", "shadow", "laughs", "overload"))
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    if not any(o.domain == "own" for o in model.opset_import):
        model.opset_import.append(helper.make_opsetid("own", 1))
    bodies = {
        "recursive": [("F", [helper.make_node("F", ["i"], ["o"], domain="own")])],
        "pair": [(a, [helper.make_node(b, ["i"], ["o"], domain="own")]) for a, b in ("FG", "GF")],
        "shadow": [("Relu", [helper.make_node("Neg", ["i"], ["o"])])],
        "overload": [("F", [helper.make_node("Relu", ["i"], ["m"]), helper.make_node("F", ["m"], ["o"])])],
        "laughs": [_doubling(k) for k in range(v.draw.choice((3, 12, 40)))],
    }[way]
    for name, nodes in bodies:
        domain = "" if way == "shadow" else "own"
        model.functions.append(helper.make_function(domain, name, ["i"], ["o"], nodes, imports))
    node = _node(v)
    node.op_type, node.domain = bodies[0][0], "" if way == "shadow" else "own"
    del node.attribute[:]
    if v.draw.random() < 0.7:
        del node.input[1:], node.output[1:]


def _doubling(k: int) -> tuple[str, list[NodeProto]]:
    name = "F" if k == 0 else f"F{k}"
    call = [helper.make_node(f"F{k + 1}", [a], [b], domain="own") for a, b in (("i", "m"), ("m", "o"))]
    return name, call


def _graphs(v: Victim) -> None:
    """Subgraphs where none belongs, deep ones, training information, and outputs of subgraphs that do not exist."""
    way = v.draw.choice(("training", "deep", "attribute", "outer", "empty"))
    if way == "training":
        v.model.training_info.add().algorithm.CopyFrom(v.draw.choice(v.others).graph)
    elif way == "empty":
        v.draw.choice([*_within(v.model, onnx.GraphProto)]).ClearField(
            v.draw.choice(("node", "output", "input", "name"))
        )
    elif way == "attribute":
        attribute = helper.make_attribute("body", v.draw.choice(v.others).graph)
        _node(v).attribute.append(attribute)
    elif way == "outer":
        inner = v.draw.choice([*_within(v.model, onnx.GraphProto)])
        for value in inner.output:
            value.name = v.draw.choice(v.names() or [""])
    else:
        _deepen(v)


def _deepen(v: Victim) -> None:
    """A node becomes an If within an If within an If."""
    node = _node(v)
    for _ in range(v.draw.choice((2, 8, 25, 40))):
        inner = _twin(node)
        made = [helper.make_tensor_value_info(o, TensorProto.FLOAT, None) for o in inner.output]
        body = helper.make_graph([inner], "deep", [], made)
        node.CopyFrom(helper.make_node("If", [v.draw.choice(v.names())], list(inner.output)))
        node.attribute.extend(
            helper.make_attribute(f"{b}_branch", body) for b in ("then", "else")[: v.draw.choice((1, 2))]
        )
        if node.ByteSize() > 1 << 18:
            return


_LIES: tuple[Callable[[Victim], None], ...] = (
    _any_field, _any_field, _any_field, _dim, _rank, _kind_of_input, _tensor_dims, _tensor_data, _external, _wires,
    _wires, _op, _attribute, _attribute, _numbers, _weights, _versions, _initialisers, _functions, _graphs,
)  # fmt: skip


def lying(v: Victim) -> bytes:
    """A file that is a protobuf and no honest model."""
    for _ in range(v.draw.choice((1, 1, 1, 2, 4))):
        with contextlib.suppress(DecodeError, ValueError):  # an earlier lie leaves no room for this one
            v.draw.choice(_LIES)(v)
    return bytes(v.model.SerializeToString())


def mutated(seeds: Sequence[ModelProto], number: int) -> bytes:
    """Mutation ``number`` of one of the models, the same bytes every time."""
    draw = random.Random(number)
    model = ModelProto()
    model.CopyFrom(seeds[number % len(seeds)])
    victim = Victim(model, seeds, draw)
    return damaged(victim) if draw.random() < 0.3 else lying(victim)
