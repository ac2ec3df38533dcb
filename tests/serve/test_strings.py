from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunec.serve.refusal import Refused
from prunec.serve.strings import check_text, pack, unpack

TEXT = st.text('a\n"\\é漢😀\0', max_size=5)


@given(st.lists(TEXT))
def test_what_is_packed_is_unpacked(texts: list[str]) -> None:
    assert unpack(memoryview(pack(texts)), len(texts), "x") == texts


@pytest.mark.parametrize(
    ("data", "count", "said"),
    [
        (b"", 1, "string 0 of input 'x' is missing: 0 bytes end before its length"),
        (b"\x01\x00", 1, "string 0 .* is missing"),
        (b"\x01\x00\x00\x00ab", 1, "1 bytes behind its 1 strings"),
        (b"\x01\x00\x00\x00a", 0, "5 bytes behind its 0 strings"),
        (b"\x02\x00\x00\x00a", 1, "string 0 .* has 2 bytes by its length, and 1 are left"),
        (b"\xff\xff\xff\xff", 1, "has 4,294,967,295 bytes by its length, and 0 are left"),
        (b"\x01\x00\x00\x00\xff", 1, "string 0 .* is not UTF-8: invalid start byte at byte 0"),
    ],
)
def test_lengths_that_lie_are_refused(data: bytes, count: int, said: str) -> None:
    with pytest.raises(Refused, match=said):
        unpack(memoryview(data), count, "x")


def test_half_a_character_is_no_text() -> None:
    check_text(["ä", "漢"], "x")
    with pytest.raises(Refused, match="a string of input 'x' is no text"):
        check_text(["\ud800"], "x")
