from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from prunec.runtime.opened import Answer
from prunec.serve.answer import answer_bytes, converted_bytes, payload
from prunec.serve.request import AskedOutput, InferenceRequest

from .client import DTYPES, Reply, outputs
from .serving import random_array

LIMIT = 1 << 20
KINDS = st.lists(
    st.tuples(st.sampled_from(sorted(DTYPES)), st.lists(st.integers(0, 3), max_size=3), st.booleans()), max_size=4
)


def answered(answer: Answer, *asked: AskedOutput, id: str | None = None) -> Reply:
    found = payload(answer, InferenceRequest(id, None, {}, asked), "m", LIMIT)
    return Reply(200, found.headers, found.body)


@settings(deadline=None)
@given(KINDS, st.integers(0, 100))
def test_round_trip(kinds: list[tuple[str, list[int], bool]], seed: int) -> None:
    arrays = {f"o{k}": random_array(DTYPES[kind], shape, seed) for k, (kind, shape, _) in enumerate(kinds)}
    asked = [AskedOutput(f"o{k}", binary or kind == "BF16") for k, (kind, _, binary) in enumerate(kinds)]
    found = outputs(answered(Answer(arrays, "v", 0.0), *asked))
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape
        np.testing.assert_array_equal(found[name], array)


def test_it_says_which_variant_computed_it() -> None:
    answer = Answer({"y": np.ones(2, np.float32)}, "small", 0.1)
    assert answered(answer, AskedOutput("y", False), id="7").json == {
        "model_name": "m",
        "model_version": "small",
        "id": "7",
        "outputs": [{"name": "y", "shape": [2], "datatype": "FP32", "data": [1.0, 1.0]}],
    }
    assert "id" not in answered(answer, AskedOutput("y", False)).json


def test_only_what_is_asked_for_is_written_in_the_order_of_asking() -> None:
    answer = Answer({n: np.ones(1, np.float32) for n in "abc"}, "v", 0.0)
    assert list(outputs(answered(answer, AskedOutput("c", True), AskedOutput("a", False)))) == ["c", "a"]


def test_names_are_escaped() -> None:
    name: Any = 'a"\\\né'
    answer = Answer({name: np.ones(1, np.float32)}, "v", 0.0)
    assert answered(answer, AskedOutput(name, False)).json["outputs"][0]["name"] == name


def test_what_it_takes_is_said_before_it_is_written() -> None:
    answer = Answer({"y": np.ones(1000, np.float32), "s": np.array(["a"], object)}, "v", 0.0)
    as_bytes, as_json, strings = AskedOutput("y", True), AskedOutput("y", False), AskedOutput("s", True)
    assert answer_bytes(answer, [as_bytes], LIMIT) == 8000
    assert answer_bytes(answer, [as_json], LIMIT) == 4000 + 25_002
    assert answer_bytes(answer, [as_json, as_bytes], 5000) == 4000 + 5000 + 8000
    assert converted_bytes(answer, [as_bytes]) == 0
    assert converted_bytes(answer, [as_json, strings]) == 4000 + 72


def test_the_type_of_the_body_is_said() -> None:
    answer = Answer({"y": np.ones(1, np.float32)}, "v", 0.0)
    assert answered(answer, AskedOutput("y", False)).headers == {"content-type": "application/json"}
    binary = answered(answer, AskedOutput("y", True))
    assert binary.headers["content-type"] == "application/octet-stream"
    assert binary.body[int(binary.headers["inference-header-content-length"]) :] == b"\x00\x00\x80?"
