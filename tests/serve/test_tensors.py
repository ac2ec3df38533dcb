from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunec.runtime.session import Input
from prunec.serve import tensors
from prunec.serve.datatypes import DTYPES
from prunec.serve.refusal import Refused
from prunec.serve.tensors import from_binary, from_json, held_bytes, json_bytes, to_binary, to_json

from .client import DTYPES as ALL
from .client import to_bytes
from .serving import random_array

SHAPES = st.lists(st.integers(0, 4), max_size=4).map(tuple)
IN_JSON = st.sampled_from([d for n, d in ALL.items() if n != "BF16"])
SEEDS = st.integers(0, 100)
LIMIT = 1 << 20


def declared(kind: str, name: str = "x") -> Input:
    return Input(name, ALL[kind], ())


@settings(deadline=None)
@given(st.sampled_from(sorted(ALL)), SHAPES, SEEDS)
def test_binary_round_trip(kind: str, shape: tuple[int, ...], seed: int) -> None:
    array = random_array(ALL[kind], shape, seed)
    data = to_binary(array)
    assert data == to_bytes(array)
    found = from_binary(declared(kind), shape, memoryview(data))
    assert found.dtype == array.dtype and found.flags.aligned
    np.testing.assert_array_equal(found, array)


@settings(deadline=None)
@given(IN_JSON, SHAPES, SEEDS, st.booleans())
def test_json_round_trip(dtype: np.dtype[Any], shape: tuple[int, ...], seed: int, nested: bool) -> None:
    array = random_array(dtype, shape, seed)
    data = json.loads(to_json("y", array, LIMIT))
    assert data == array.ravel().tolist()
    if nested and shape:
        data = array.tolist()
    found = from_json(Input("x", dtype, ()), shape, data)
    assert found.dtype == dtype and found.shape == shape
    np.testing.assert_array_equal(found, array)


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_every_float_comes_back_exactly(value: float) -> None:
    array = np.array([value], np.float32)
    np.testing.assert_array_equal(from_json(declared("FP32"), (1,), json.loads(to_json("y", array, LIMIT))), array)


def test_bytes_that_do_not_lie_aligned_are_moved() -> None:
    data = memoryview(b"x" + np.arange(4, dtype=np.float64).tobytes())[1:]
    found = from_binary(declared("FP64"), (4,), data)
    assert found.flags.aligned
    np.testing.assert_array_equal(found, np.arange(4))


def test_many_elements_are_written_in_blocks() -> None:
    array = np.arange(50_000, dtype=np.int32)
    assert json.loads(to_json("y", array, LIMIT)) == list(range(50_000))


def test_integers_are_taken_for_floats() -> None:
    np.testing.assert_array_equal(from_json(declared("FP32"), (2,), [1, 2.5]), np.array([1, 2.5], np.float32))


@pytest.mark.parametrize(
    ("kind", "shape", "data", "said"),
    [
        ("FP32", (2,), "12", "has '12' as data; data is a list"),
        ("FP32", (2,), {}, "has an object as data"),
        ("FP32", (2,), [1.0], r"has 1 elements, and the shape \[2\] has 2"),
        ("FP32", (2,), [1.0] * 3, "has 3 elements"),
        ("FP32", (), [], r"has 0 elements, and the shape \[\] has 1"),
        ("FP32", (1,), [None], "element 0 of input 'x' is null, and the model declares FP32"),
        ("FP32", (1,), ["1"], "is '1'"),
        ("FP32", (1,), [True], "is true"),
        ("FP32", (1,), [10**400], "an integer that no float holds"),
        ("FP32", (1,), [1e39], r"has 1e\+39, which is beyond FP32; infinities travel as binary"),
        ("FP16", (1,), [65520.0], "which is beyond FP16"),
        ("FP64", (1,), [float("inf")], "has Infinity, which is beyond FP64"),
        ("INT32", (2,), [1, 2.0], "element 1 of input 'x' is 2.0, and the model declares INT32"),
        ("INT64", (1,), [True], "is true, and the model declares INT64"),
        ("INT8", (1,), [128], "has 128, and INT8 is -128 to 127"),
        ("UINT8", (1,), [-1], "has -1, and UINT8 is 0 to 255"),
        ("UINT64", (1,), [2**64], "has 18446744073709551616, and UINT64"),
        ("INT64", (1,), [10**400], "has an integer of 1329 bits, and INT64"),
        ("BOOL", (1,), [1], "element 0 of input 'x' is 1, and the model declares BOOL"),
        ("BYTES", (1,), [1], "is 1, and the model declares BYTES"),
        ("BYTES", (1,), ["\ud800"], "no text"),
        ("BF16", (1,), [1.0], "BF16, which has no form in JSON; send it as binary"),
        ("FP32", (2, 2), [[1, 2], [3]], "has 1, 2 elements along axis 1, and its shape 2"),
        ("FP32", (2, 2), [[1, 2], 3], "nested unevenly at axis 1; or give it as one flat list"),
        ("FP32", (2, 2), [[1, 2], [3, 4], [5, 6]], "has 3 elements along axis 0, and its shape 2"),
        ("FP32", (1, 1), [[[1]]], "element 0 of input 'x' is \\[1\\]"),
        ("FP32", (0, 2**31 - 1, 2**31 - 1, 2**31 - 1), [], "cannot have the shape"),
    ],
)
def test_json_that_is_not_the_tensor_is_refused(kind: str, shape: tuple[int, ...], data: Any, said: str) -> None:
    with pytest.raises(Refused, match=said) as refused:
        from_json(declared(kind), shape, data)
    assert refused.value.status == 400


@pytest.mark.parametrize(
    ("kind", "shape", "data", "said"),
    [
        ("FP32", (2,), b"1234", r"has 4 bytes, and \[2\] of FP32 are 8"),
        ("FP32", (2**30, 2**30, 2**30), b"", "and .* of FP32 are"),
        ("FP32", (0, 2**31 - 1, 2**31 - 1, 2**31 - 1), b"", "cannot have the shape"),
        ("BOOL", (2,), b"\x01\x02", "a byte that is neither 0 nor 1"),
        ("BYTES", (2,), b"\x00\x00\x00\x00", "string 1 of input 'x' is missing"),
    ],
)
def test_bytes_that_are_not_the_tensor_are_refused(kind: str, shape: tuple[int, ...], data: bytes, said: str) -> None:
    with pytest.raises(Refused, match=said) as refused:
        from_binary(declared(kind), shape, memoryview(data))
    assert refused.value.status == 400


def test_nan_is_taken_as_bytes() -> None:
    array = np.array([np.nan, np.inf], np.float32)
    np.testing.assert_array_equal(from_binary(declared("FP32"), (2,), memoryview(array.tobytes())), array)


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (
            np.array([[1, np.nan], [-np.inf, 2]], np.float32),
            r"2 elements that are NaN or infinite, the first at \[0, 1\]",
        ),
        (np.zeros(LIMIT, np.int8), "is longer than 1,048,576 bytes as JSON"),
        (np.array([b"\xff"], object), "has bytes that are no text"),
    ],
)
def test_what_json_cannot_say_is_to_be_had_as_bytes(array: Any, said: str) -> None:
    with pytest.raises(Refused, match=f"output 'y' .*{said}; ask for it as binary data") as refused:
        to_json("y", array, LIMIT)
    assert refused.value.status == 422
    assert to_binary(array)


def test_what_is_too_long_in_any_case_is_not_written_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(tensors, "_blocks")
    with pytest.raises(Refused, match="is longer than 1,048,576 bytes as JSON"):
        to_json("y", np.zeros(LIMIT, np.int8), LIMIT)


@given(st.sampled_from([np.dtype(c) for c in "?bBhHiIqQefd"]), st.integers(0, 100), SEEDS)
def test_numbers_take_no_more_as_json_than_is_said(dtype: np.dtype[Any], size: int, seed: int) -> None:
    array = random_array(dtype, (size,), seed)
    if dtype.kind == "f":
        array = np.concatenate([array, [np.finfo(dtype).min, -np.finfo(dtype).tiny]]).astype(dtype)
    if dtype.kind in "ui":
        array = np.full(size, np.iinfo(dtype).min, dtype)
    assert len(to_json("y", array, LIMIT)) <= json_bytes(array)


def test_strings_may_be_bytes() -> None:
    array = np.array([b"a", "b"], object)
    assert json.loads(to_json("y", array, LIMIT)) == ["a", "b"]


def test_strings_are_counted_as_objects() -> None:
    assert held_bytes(np.array(["a", "b"], object)) == 2 * (8 + 64) and held_bytes(np.zeros(2, np.float32)) == 8


def test_the_names_are_those_of_the_specification() -> None:
    assert {*DTYPES, "BYTES"} == set(ALL)
