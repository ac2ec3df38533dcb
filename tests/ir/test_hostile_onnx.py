"""Hostile ONNX files, one named case each: an error that says what is wrong, or a right result, and soon.

Thousands of random ones: ``tests/fuzz/test_hostile_files.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

import prunec
from prunec import cli
from prunec.ir.analysis import analyse
from prunec.ir.emit import onnx_run
from prunec.ir.errors import ModelError
from prunec.ir.frontends.onnx import from_onnx
from prunec.ir.frontends.onnx_file import in_order, read_model
from prunec.ir.frontends.onnx_tensors import dense
from prunec.models import emit_onnx
from prunec.passes import verify
from prunec.passes.canonicalize import canonical
from prunec.passes.difference import relative_error, run
from prunec.passes.groups import find_groups
from prunec.runtime.session import Session

from ..fuzz import seeds

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
node = helper.make_node


def changed(make: Callable[[], ModelProto], edit: Callable[[ModelProto], Any]) -> ModelProto:
    model = make()
    edit(model)
    return model


def tensor(model: ModelProto, name: str) -> TensorProto:
    found: TensorProto = next(t for t in model.graph.initializer if t.name == name)
    return found


def replace(model: ModelProto, name: str, array: Any) -> None:
    tensor(model, name).CopyFrom(numpy_helper.from_array(np.asarray(array), name))


def compiled(model: ModelProto, **options: Any) -> prunec.api.Result:
    return prunec.compile(model, **{"ratio": 0.5, "measure": False, **options})


# ---------------------------------------------------------------------- refused


def _unknown_input_type(model: ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = 77


def _untyped_input(model: ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = 0


def _tied_names(model: ModelProto) -> None:
    tensor(model, "b1").name = "mean"


def _two_opsets(model: ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("ai.onnx", 13))


def _segment(model: ModelProto) -> None:
    tensor(model, "w1").segment.end = 3


def _argument(model: ModelProto) -> None:
    model.graph.node[0].attribute[0].ref_attr_name = "axis"


def _number(name: str) -> Callable[[ModelProto], None]:
    return lambda model: replace(model, name, np.int64(1 << 40))


def _absurd_reshape(model: ModelProto) -> None:
    replace(model, "heads", np.asarray([0, 5, 2, (1 << 31) - 1]))


def _recursive(model: ModelProto) -> None:
    model.functions[0].node[0].op_type, model.functions[0].node[0].domain = "Layer", "own"


def _own_relu(model: ModelProto) -> None:
    model.functions[0].name, model.functions[0].domain = "Relu", ""


def _doubling(model: ModelProto) -> None:
    """Forty functions, each of which calls the next one twice."""
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    for k in range(40):
        calls = [node(f"F{k + 1}" if k < 39 else "Swish", [a], [b], domain="own") for a, b in (("i", "m"), ("m", "o"))]
        model.functions.append(helper.make_function("own", f"F{k}", ["i"], ["o"], calls, imports))
    model.graph.node[0].output[0] = "first"
    model.graph.node.insert(1, node("F0", ["first"], ["a"], domain="own"))


REFUSED: dict[str, tuple[Callable[[], ModelProto], Callable[[ModelProto], Any], str]] = {
    "an input of an unknown type": (seeds.convolutions, _unknown_input_type, "unknown data type 77"),
    "an input of no type": (seeds.convolutions, _untyped_input, "unknown data type 0"),
    "two tensors of one name": (seeds.convolutions, _tied_names, "two tensors of the model are named 'mean'"),
    "two opsets": (seeds.convolutions, _two_opsets, "has two opsets, 13 and 17"),
    "a segment of a tensor": (seeds.convolutions, _segment, "tensor 'w1' of shape [8, 3, 3, 3] cannot be read"),
    "an argument outside a function": (seeds.convolutions, _argument, "refers to 'axis', the argument of a function"),
    "a range without end": (seeds.sizes, _number("stop"), "'steps' has the absurd shape [1099511627776]"),
    "a reshape to absurd sizes": (seeds.attention, _absurd_reshape, "has the absurd shape [2, 5, 2, 2147483647]"),
    "a recursive function": (seeds.functions, _recursive, "ycle"),
    "a function called like an op": (seeds.functions, _own_relu, "called 'Relu', as an op of ONNX is"),
    "functions that double": (seeds.functions, _doubling, "functions come to"),
}


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_refused(name: str) -> None:
    make, edit, words = REFUSED[name]
    with pytest.raises(ModelError) as error:
        from_onnx(changed(make, edit))
    assert words in error.value.message
    assert error.value.hint


def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(seeds.convolutions().SerializeToString().replace(b"scale", b"sc\xffle"))
    for read in (read_model, from_onnx):
        with pytest.raises(ModelError, match="not UTF-8"):
            read(path)


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"location": "net.data", "offset": "x"}, "'x', which is no number of bytes"),
        ({"location": "net.data", "offset": "-4"}, "'-4', which is no number of bytes"),
        ({"location": "net.data", "offset": str(1 << 62)}, f"at {1 << 62} of net.data, which has 0"),
        ({"location": "net.data", "length": "8"}, "its entry says 8"),
        ({"location": "net\0.data"}, "null"),
        ({"location": "n" * 5000}, "too long"),
        ({"location": "/dev/zero"}, "outside the model's folder"),
        ({"location": "."}, "no such file"),
    ],
)
def test_external_data_that_lies(entries: dict[str, str], words: str, tmp_path: Path) -> None:
    model, data = seeds.external(seeds.convolutions(), "net.data")
    (tmp_path / "net.data").write_bytes(data)
    held = next(t for t in model.graph.initializer if t.data_location == TensorProto.EXTERNAL)
    del held.external_data[:]
    for key, value in entries.items():
        held.external_data.add(key=key, value=value)
    path = tmp_path / "net.onnx"
    path.write_bytes(model.SerializeToString())
    for read in (read_model, from_onnx):
        with pytest.raises(ModelError) as error:
            read(path)
        assert words in error.value.message


def test_a_loop_that_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_run, "LIMIT_S", 0.5)
    with pytest.raises(ModelError, match="did not end within"):
        compiled(changed(seeds.control_flow, _number("trips")))


# ---------------------------------------------------------------------- deep, long, wide


def _around(inner: NodeProto) -> ModelProto:
    nodes = [node("MatMul", ["x", "w1"], ["a"]), inner, node("MatMul", ["z", "w2"], ["y"])]
    inputs = [helper.make_tensor_value_info("x", FLOAT, ["N", 4])]
    outputs = [helper.make_tensor_value_info("y", FLOAT, ["N", 3])]
    weights = [seeds.weight("w1", 4, 8), seeds.weight("w2", 8, 3), seeds.single("cond", np.bool_(True))]
    graph = helper.make_graph(nodes, "g", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def deep(depth: int, branches: int) -> ModelProto:
    """``depth`` levels of If; with two branches the innermost level stands there 2 to the power of ``depth`` times."""
    inner = node("Relu", ["a"], ["z"])
    for _ in range(depth):
        body = helper.make_graph([inner], "b", [], [helper.make_tensor_value_info("z", FLOAT, None)])
        end = helper.make_graph([node("Neg", ["a"], ["z"])], "e", [], [helper.make_tensor_value_info("z", FLOAT, None)])
        inner = node("If", ["cond"], ["z"])
        inner.attribute.append(helper.make_attribute("then_branch", body))
        inner.attribute.append(helper.make_attribute("else_branch", body if branches == 2 else end))
    return _around(inner)


@pytest.mark.parametrize(("depth", "branches"), [(8, 1), (20, 1), (8, 2)])
def test_branches_in_branches_are_compiled(depth: int, branches: int) -> None:
    result = compiled(deep(depth, branches))
    assert result.report["opaque_ops"] == {"If": 8}


def test_branches_hundreds_deep_are_refused(tmp_path: Path) -> None:
    """By hand: no library writes such a file, and none reads it."""
    graph = onnx.GraphProto(name="innermost").SerializeToString()
    for _ in range(300):
        attribute = b"\x0a\x0bthen_branch\x32" + _length(graph) + graph + b"\xa0\x01\x05"
        inner = b"\x22\x02If\x2a" + _length(attribute) + attribute
        graph = b"\x0a" + _length(inner) + inner
    path = tmp_path / "deep.onnx"
    path.write_bytes(b"\x08\x08\x3a" + _length(graph) + graph)
    with pytest.raises(ModelError, match="not an ONNX model"):
        read_model(path)


def _length(data: bytes) -> bytes:
    n, found = len(data), b""
    while n > 0x7F:
        n, found = n >> 7, found + bytes([n & 0x7F | 0x80])
    return found + bytes([n])


def chain(length: int) -> ModelProto:
    """Two layers with ``length`` functions one after the other between them."""
    model = seeds.finished([node("MatMul", ["x", "w1"], ["h0"])], ["N", 4], ["N", 3], [], checked=False)
    model.graph.initializer.extend([seeds.weight("w1", 4, 8), seeds.weight("w2", 8, 3)])
    model.graph.node.extend(node("Neg", [f"h{k}"], [f"h{k + 1}"]) for k in range(length))
    model.graph.node.append(node("MatMul", [f"h{length}", "w2"], ["y"]))
    return model


def wide(width: int) -> ModelProto:
    """Two layers with ``width`` functions beside each other between them, added up."""
    model = chain(0)
    del model.graph.node[1:]
    model.graph.node.extend(node("Neg", ["h0"], [f"r{k}"]) for k in range(width))
    model.graph.node.extend(node("Add", [f"s{k}" if k else "h0", f"r{k}"], [f"s{k + 1}"]) for k in range(width))
    model.graph.node.append(node("MatMul", [f"s{width}", "w2"], ["y"]))
    return model


def sizes_in_a_row(length: int) -> ModelProto:
    """``length`` nodes that hand on a shape, before a reshape to it."""
    model = chain(0)
    del model.graph.node[1:]
    model.graph.node.append(node("Shape", ["h0"], ["s0"]))
    model.graph.node.extend(node("Identity", [f"s{k}"], [f"s{k + 1}"]) for k in range(length))
    model.graph.node.append(node("Reshape", ["h0", f"s{length}"], ["r"]))
    model.graph.node.append(node("MatMul", ["r", "w2"], ["y"]))
    return model


def many_inputs(count: int) -> ModelProto:
    """The sum of ``count`` inputs, in two layers."""
    model = chain(0)
    del model.graph.input[:]
    model.graph.input.extend(helper.make_tensor_value_info(f"x{k}", FLOAT, ["N", 4]) for k in range(count))
    model.graph.node.insert(0, node("Sum", [f"x{k}" for k in range(count)], ["x"]))
    return model


def units(model: ModelProto) -> int:
    groups = find_groups(analyse(canonical(from_onnx(model))))
    return len(groups.prunable)


@pytest.mark.parametrize("make", [chain, wide, sizes_in_a_row, many_inputs])
def test_long_and_wide_graphs(make: Callable[[int], ModelProto]) -> None:
    assert units(make(1500)) == 8


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "n"), [(chain, 100_000), (wide, 50_000), (sizes_in_a_row, 100_000), (many_inputs, 10_000)]
)
def test_a_hundred_thousand_nodes(make: Callable[[int], ModelProto], n: int) -> None:
    """About half a minute each: time grows with the nodes, and nothing recurses over them."""
    assert units(make(n)) == 8


def test_a_long_graph_is_compiled() -> None:
    assert compiled(chain(300)).report["verify"]["ok"]


def test_nodes_in_reverse_order_are_sorted_at_once() -> None:
    graph = chain(20_000).graph
    backwards = list(graph.node)[::-1]
    del graph.node[:]
    graph.node.extend(backwards)
    stored = [t.name for t in graph.initializer]
    assert in_order(graph, stored, "it")[0].output[0] == "h0"


# ---------------------------------------------------------------------- strange and right


def as_the_runtime_has_it(model: ModelProto) -> None:
    """The graph that was read computes what ONNX Runtime makes of the file."""
    x = {"x": np.random.default_rng(0).standard_normal((2, *_sizes(model))).astype(np.float32)}
    expected, found = Session(model).run(x), Session(emit_onnx(from_onnx(model))).run(x)
    assert relative_error(list(expected.values()), list(found.values())) < 1e-5


def _sizes(model: ModelProto) -> list[int]:
    return [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim[1:]]


@pytest.mark.parametrize("name", [n for n in seeds.SEEDS if n != "recurrent"])
def test_healthy_files_are_read_right(name: str) -> None:
    as_the_runtime_has_it(seeds.SEEDS[name]())
    assert compiled(seeds.SEEDS[name]()).report["verify"]["ok"]


def sparse(at: Any, count: int = 3) -> ModelProto:
    model = chain(0)
    del model.graph.initializer[1]
    values = numpy_helper.from_array(np.arange(1, count + 1, dtype=np.float32), "w2")
    places = numpy_helper.from_array(np.asarray(at, np.int64), "")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [8, 3]))
    return model


@pytest.mark.parametrize("at", [[0, 4, 23], [[0, 0], [1, 1], [7, 2]]])
def test_sparse_initialisers_become_dense(at: Any) -> None:
    model = sparse(at)
    as_the_runtime_has_it(model)
    whole = numpy_helper.to_array(dense(model.graph.sparse_initializer[0], "w2"))
    assert [whole[0, 0], whole[1, 1], whole[7, 2]] == [1, 2, 3]
    assert np.count_nonzero(whole) == 3


@pytest.mark.parametrize(
    ("at", "count", "words"),
    [
        ([0, 4, 24], 3, "lie outside"),
        ([-1, 4, 5], 3, "lie outside"),
        ([[0, 0], [1, 3], [2, 2]], 3, "lie outside"),
        ([0, 4, 5], 2, "2 values at positions of shape [3]"),
        ([[0], [1], [2]], 3, "positions of shape [3, 1]"),
    ],
)
def test_sparse_initialisers_that_lie(at: Any, count: int, words: str) -> None:
    with pytest.raises(ModelError) as error:
        from_onnx(sparse(at, count))
    assert words in error.value.message


def test_absurd_sparse_initialiser() -> None:
    model = sparse([0, 4, 5])
    model.graph.sparse_initializer[0].dims[:] = [1 << 20, 1 << 20]
    with pytest.raises(ModelError, match="too large to be made dense"):
        from_onnx(model)


def test_empty_tensors_are_read() -> None:
    """An initialiser of no elements joined to another: nothing is added."""
    model = chain(0)
    model.graph.initializer.append(numpy_helper.from_array(np.zeros((0, 3), np.float32), "none"))
    model.graph.node[1].output[0] = "z"
    model.graph.node.append(node("Concat", ["z", "none"], ["y"], axis=0))
    as_the_runtime_has_it(model)
    assert compiled(model).report["verify"]["ok"]


def test_weights_of_no_channels() -> None:
    model = seeds.convolutions()
    replace(model, "w2", np.zeros((0, 4, 3, 3), np.float32))
    with pytest.raises(ModelError):
        compiled(model)


@pytest.mark.parametrize("dims", [[3, 3, 3, 8], [8, 2, 3, 3], [8, 27]])
def test_a_layer_that_the_analysis_declines_is_not_folded(dims: list[int]) -> None:
    """The runtime refuses it; the fold, which comes before, must not rely on shapes that do not fit."""
    model = seeds.convolutions()
    replace(model, "w1", numpy_helper.to_array(tensor(model, "w1")).reshape(-1)[: int(np.prod(dims))].reshape(dims))
    with pytest.raises(ModelError, match="ONNX Runtime"):
        compiled(model)


def test_an_input_of_size_zero_is_open() -> None:
    """ONNX Runtime takes a declared size of 0 as any size, and so does the frontend."""
    model = chain(0)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 0
    assert from_onnx(model).inputs[0].dynamic == {0}


def test_a_weight_that_is_an_output_stays_as_it_is() -> None:
    """Batch norms are folded into weights, and constants into biases, that nothing else shows."""
    model = seeds.convolutions()
    model.graph.output.append(helper.make_tensor_value_info("w1", FLOAT, [8, 3, 3, 3]))
    result = compiled(model)
    found = Session(result.onnx).run({"x": np.zeros((1, 3, 8, 8), np.float32)})["w1"]
    np.testing.assert_array_equal(found, numpy_helper.to_array(tensor(model, "w1")))


def test_text_is_handed_on() -> None:
    """An output of strings keeps its shape when units go."""
    model = chain(0)
    model.graph.node[1].output[0] = "z"
    names = numpy_helper.from_array(np.asarray(["cat", "dog", "owl"], object), "names")
    model.graph.initializer.append(names)
    model.graph.node.append(node("ArgMax", ["z"], ["best"], axis=1, keepdims=0))
    model.graph.node.append(node("Gather", ["names", "best"], ["word"]))
    model.graph.node.append(node("Identity", ["z"], ["y"]))
    model.graph.output.append(helper.make_tensor_value_info("word", TensorProto.STRING, ["N"]))
    result = compiled(model, verify=False)
    assert result.report["units"]["removed"] == 4
    found = Session(result.onnx).run({"x": np.ones((2, 4), np.float32)})
    assert found["word"].shape == (2,)


def _kind(model: ModelProto) -> None:
    model.graph.input[0].type.CopyFrom(helper.make_sequence_type_proto(helper.make_tensor_type_proto(FLOAT, [2])))


def _far_element(model: ModelProto) -> None:
    replace(model, "zero", np.asarray([7]))


def _far_padding(model: ModelProto) -> None:
    replace(model, "pads", np.asarray([0, 0, 1, 1, 0, 0, 1, 1 << 62]))


@pytest.mark.parametrize(
    ("make", "edit"),
    [(seeds.convolutions, _kind), (seeds.sizes, _far_element), (seeds.movers, _far_padding)],
)
def test_what_the_runtime_refuses_is_no_crash(
    make: Callable[[], ModelProto], edit: Callable[[ModelProto], None]
) -> None:
    """Inputs that are no tensors, elements of a shape that it has not, paddings that no memory has."""
    with pytest.raises(ModelError):
        compiled(changed(make, edit))


def test_a_runtime_that_gives_other_outputs_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """As ONNX Runtime does for a Cast with a strange ``saturate``: nothing can be compared."""
    right, rng = run, np.random.default_rng(0)

    def noisy(*given: Any, **options: Any) -> list[Any]:
        return [y + rng.standard_normal(y.shape) for y in right(*given, **options)]

    monkeypatch.setattr(verify, "run", noisy)
    with pytest.raises(ModelError, match="other outputs each time"):
        compiled(chain(0))


def test_a_node_against_its_schema_is_left_alone() -> None:
    model = seeds.sizes()
    slices = next(n for n in model.graph.node if n.op_type == "Slice")
    slices.input[3] = "rest"  # two axes for one start
    opaque = {n.kind: n.attrs["why"] for n in from_onnx(model).nodes if n.op == "opaque"}
    assert "a form that is not valid" in opaque["Slice"]


# ---------------------------------------------------------------------- by the command


@pytest.mark.parametrize("name", ["cycle", "absurd", "truncated", "missing", "no text"])
def test_the_command_says_so_and_writes_nothing(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = seeds.convolutions()
    if name == "cycle":
        model.graph.node[0].input[0] = "s"
    if name == "absurd":
        model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 1 << 40
    if name == "missing":
        del model.graph.initializer[0]
    data = model.SerializeToString()
    data = data[:-50] if name == "truncated" else data.replace(b"scale", b"sc\xffle") if name == "no text" else data
    (tmp_path / "net.onnx").write_bytes(data)
    for command in (["compile", "net.onnx", "-o", "o.onnx"], ["analyze", "net.onnx"], ["verify", *["net.onnx"] * 2]):
        assert cli.main(command) == 3
        captured = capsys.readouterr()
        assert "prunec: error: " in captured.err and "Traceback" not in captured.err
        assert captured.out == ""
    assert [p.name for p in tmp_path.iterdir()] == ["net.onnx"]
