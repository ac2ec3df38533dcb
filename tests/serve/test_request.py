from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunec.runtime.session import Input
from prunec.serve.limits import Limits
from prunec.serve.refusal import Refused
from prunec.serve.request import AskedOutput, Declared, InferenceRequest, read_request

from .client import DTYPES, as_binary, as_json, tensor
from .serving import random_array

FLOAT = np.dtype(np.float32)
X, Y = np.ones((2, 3), np.float32), np.array([[1], [2]], np.int64)
DECLARED = Declared(
    (Input("x", FLOAT, ("N", 3)), Input("y", np.dtype(np.int64), ("N", 1))),
    (Input("p", FLOAT, ("N", 3)), Input("q", DTYPES["BF16"], ("N",))),
)
BINARY = {"parameters": {"binary_data_output": True}}


def read(body: bytes, header: int | None = None, declared: Declared = DECLARED) -> InferenceRequest:
    view = memoryview(body)
    cut = len(body) if header is None else header
    return read_request(view[:cut], view[cut:], declared, Limits(strings=10))


def document(**fields: Any) -> bytes:
    return json.dumps({"inputs": [tensor("x", X), tensor("y", Y)], **BINARY, **fields}).encode()


def inputs(*items: Any) -> bytes:
    return document(inputs=list(items))


def changed(**fields: Any) -> bytes:
    """A request whose input x has other fields, which do not go with y."""
    return inputs(tensor("x", X, **fields), tensor("y", Y[:1]))


KINDS = st.lists(
    st.tuples(st.sampled_from(sorted(DTYPES)), st.lists(st.integers(1, 3), min_size=1, max_size=3)),
    min_size=1,
    max_size=4,
)


@settings(deadline=None)
@given(KINDS, st.booleans(), st.integers(0, 100))
def test_round_trip(kinds: list[tuple[str, list[int]]], binary: bool, seed: int) -> None:
    arrays = {
        f"i{k}": random_array(DTYPES[kind], shape, seed)
        for k, (kind, shape) in enumerate(kinds)
        if binary or kind != "BF16"
    }
    declared = Declared(tuple(Input(n, a.dtype, (None,) * a.ndim) for n, a in arrays.items()), ())
    if not arrays:
        return
    body, header = as_binary(arrays, id="7") if binary else (as_json(arrays, id="7"), None)
    found = read_request(
        memoryview(body)[: header or len(body)], memoryview(body)[header or len(body) :], declared, Limits()
    )
    assert found.id == "7" and list(found.inputs) == list(arrays)
    for name, array in arrays.items():
        assert found.inputs[name].dtype == array.dtype
        np.testing.assert_array_equal(found.inputs[name], array)


def test_json_and_bytes_may_be_mixed() -> None:
    body, header = as_binary({"y": Y})
    item = json.loads(body[:header])["inputs"][0]
    head = json.dumps({"inputs": [tensor("x", X), item], **BINARY}).encode()
    found = read(head + body[header:], len(head))
    np.testing.assert_array_equal(found.inputs["x"], X)
    np.testing.assert_array_equal(found.inputs["y"], Y)


def test_outputs_are_all_unless_some_are_asked_for() -> None:
    assert read(document()).outputs == (AskedOutput("p", True), AskedOutput("q", True))
    asked = [{"name": "q"}, {"name": "p", "parameters": {"binary_data": False}}]
    assert read(document(outputs=asked)).outputs == (AskedOutput("q", True), AskedOutput("p", False))
    assert read(document(outputs=[{"name": "p"}], parameters={})).outputs == (AskedOutput("p", False),)


def test_a_variant_may_be_asked_for() -> None:
    assert read(document(parameters={"variant": "a", "binary_data_output": True})).variant == "a"
    assert read(document()).variant is None


def test_null_is_what_is_not_there_and_unknown_fields_are_left_alone() -> None:
    found = read(document(id=None, outputs=None, model_name="x"))
    assert found.id is None and len(found.outputs) == 2


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "the request has no JSON; send"),
        (b"{}", "input 'x' is missing; the model has 'x', 'y'"),
        (inputs(tensor("x", X)), "input 'y' is missing"),
        (inputs(tensor("x", X), tensor("y", Y), tensor("z", Y)), "the model has no input 'z'"),
        (inputs(tensor("xx", X)), "no input 'xx'; did you mean 'x'"),
        (inputs(tensor("n" * 10**6, X)), "no input 'nnn"),
        (inputs(tensor("x", X), tensor("x", X), tensor("y", Y)), "input 'x' stands twice"),
        (inputs(1), "inputs holds 1; give a list of objects"),
        (document(inputs={"x": 1}), "inputs is an object"),
        (inputs({"shape": [1]}), "an input has the name null; the model has"),
        (inputs({"name": ["x"]}), r"an input has the name \['x'\]"),
        (changed(datatype="FP64"), "has the datatype 'FP64', and the model declares FP32"),
        (changed(datatype=["FP32"]), "has the datatype"),
        (changed(shape=[3, 2]), r"\[3, 2\], and the model declares \[N, 3\]"),
        (inputs(tensor("x", X), tensor("y", Y[:1])), "N is 2 in another input"),
        (changed(data=None), "neither data nor binary_data_size"),
        (changed(parameters={"binary_data_size": 24}), "both data and binary_data_size"),
        (changed(parameters=[]), r"the parameters of input 'x' are \[\]; give an object"),
        (changed(parameters={"shared_memory_region": "r"}), "shared_memory_region, which this server"),
        (document(id=7), "id is 7; give a string"),
        (document(parameters=1), "the parameters of the request are 1"),
        (document(parameters={"variant": 1}), "variant is 1; give a string"),
        (document(parameters={"binary_data_output": 1}), "binary_data_output is 1; give true or false"),
        (document(parameters={"sequence_id": 3}), "the parameter sequence_id"),
        (document(outputs=1), "outputs is 1"),
        (document(outputs=[{"name": "z"}]), "the model has no output 'z'"),
        (document(outputs=[{"name": "p"}, {"name": "p"}]), "output 'p' stands twice"),
        (document(outputs=[{"name": "p", "parameters": {"binary_data": "yes"}}]), "binary_data is 'yes'"),
        (document(outputs=[{"name": "p", "parameters": {"classification": 3}}]), "the parameter classification"),
        (document(parameters={}), "output 'q' is BF16, which has no form in JSON; ask for it with binary_data: true"),
    ],
)
def test_what_does_not_fit_the_model_is_refused(body: bytes, said: str) -> None:
    with pytest.raises(Refused, match=said) as refused:
        read(body)
    assert refused.value.status == 400


def sized(*sizes: Any) -> tuple[bytes, int]:
    """A request whose inputs say these sizes, before 40 bytes."""
    body, header = as_binary({"x": X, "y": Y}, **BINARY)
    found = json.loads(body[:header])
    for item, size in zip(found["inputs"], sizes):
        item["parameters"]["binary_data_size"] = size
    head = json.dumps(found).encode()
    return head + body[header:], len(head)


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ((-24, 16), "input 'x' has binary_data_size -24; give a number of bytes"),
        ((24.0, 16), "binary_data_size 24.0"),
        ((True, 16), "binary_data_size true"),
        (("24", 16), "binary_data_size '24'"),
        ((10**400, 16), "an integer of 1329 bits bytes by its binary_data_size, 40 are left"),
        ((41, 16), "has 41 bytes by its binary_data_size, 40 are left"),
        ((24, 17), "input 'y' has 17 bytes by its binary_data_size, 16 are left"),
        ((16, 24), r"input 'x' has 16 bytes, and \[2, 3\] of FP32 are 24"),
        ((24, 8), r"input 'y' has 8 bytes, and \[2, 1\] of INT64 are 16"),
    ],
)
def test_sizes_that_lie_are_refused(sizes: tuple[Any, ...], said: str) -> None:
    with pytest.raises(Refused, match=said):
        read(*sized(*sizes))


def test_bytes_that_belong_to_nothing_are_refused() -> None:
    body, header = sized(24, 16)
    with pytest.raises(Refused, match="3 bytes of the body belong to no input; the sizes binary_data_size add up"):
        read(body + b"abc", header)


def test_strings_are_counted_before_they_are_made() -> None:
    declared = Declared((Input("s", np.dtype(object), (None,)),), ())
    item = {"name": "s", "shape": [11], "datatype": "BYTES", "data": ["a"] * 11}
    with pytest.raises(Refused, match="has 11 strings, the most are 10"):
        read(json.dumps({"inputs": [item]}).encode(), declared=declared)


def test_binary_inputs_are_not_copied() -> None:
    body, header = as_binary({"x": X, "y": Y}, id="a" * 8, **BINARY)
    padded = json.dumps(json.loads(body[:header]) | {"id": "a" * (8 + -header % 8)}).encode()
    whole = bytearray(padded + body[header:])
    found = read_request(memoryview(whole)[: len(padded)], memoryview(whole)[len(padded) :], DECLARED, Limits())
    if len(padded) % 8 == 0:
        assert np.shares_memory(found.inputs["x"], np.frombuffer(whole, np.uint8))


@settings(deadline=None)
@given(st.binary(max_size=200), st.integers(0, 200))
def test_no_bytes_at_all_do_more_than_be_refused(data: bytes, cut: int) -> None:
    with pytest.raises(Refused):
        read(data, min(cut, len(data)))


TEXT = st.text("ax1\0é\ud800", max_size=5)
MESSY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT | st.just(10**400),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.sampled_from(["name", "shape", "datatype", "data", "parameters"]), MESSY)
def test_no_value_in_any_field_does_more_than_be_refused(field: str, value: Any) -> None:
    if field != "parameters" or (isinstance(value, dict) and value):
        with pytest.raises(Refused) as refused:
            read(changed(**{field: value}))
        assert refused.value.status == 400 and len(refused.value.text) < 1000


def test_memory_of_inputs_is_known() -> None:
    assert read(document()).nbytes == X.nbytes + Y.nbytes
