from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunec.serve.refusal import Refused
from prunec.serve.strict_json import LISTS, OBJECTS, parse

TEXT = st.text('a\n"\\é漢😀', max_size=5)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
    max_leaves=20,
)


@settings(deadline=None, max_examples=40)
@given(st.dictionaries(TEXT, VALUES))
def test_what_is_json_is_read_as_it_is(document: dict[str, Any]) -> None:
    assert parse(json.dumps(document).encode()) == document


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "not JSON: Expecting value at character 0"),
        (b"{", "not JSON"),
        (b'{"a": 1} x', "Extra data"),
        (b"[1, 2]", r"the request is \[1, 2\]; a request is an object"),
        (b"null", "the request is null"),
        (b'{"a": NaN}', "NaN is not JSON; send tensors with NaN or infinities as binary data"),
        (b'{"a": -Infinity}', "-Infinity is not JSON"),
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', "has 'c' twice in one object"),
        (b'{"a": "\xff"}', "not UTF-8: invalid start byte at byte 7"),
        (b'{"a": ' + b"9" * 5000 + b"}", "an integer with thousands of digits"),
        (b'{"a": ' + b"[" * 50_000, "nested too deep"),
        (b'{"a": [' + b"[]," * LISTS + b"[]]}", f"more than {LISTS} lists; give data as one flat list"),
        (b'{"a":' * 100_000, "nested too deep"),
        (b'{"a": [' + b"{}," * OBJECTS + b"{}]}", f"more than {OBJECTS} objects"),
    ],
)
def test_what_is_not_is_refused(text: bytes, said: str) -> None:
    with pytest.raises(Refused, match=said) as refused:
        parse(text)
    assert refused.value.status == 400


def test_a_name_that_stands_twice_among_many_is_found() -> None:
    names = ",".join(f'"{k}":0' for k in range(100_000))
    with pytest.raises(Refused, match="has '7' twice"):
        parse(f'{{{names},"7":1}}'.encode())
