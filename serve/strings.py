"""Tensors of strings as bytes: each element is its length, four bytes little endian, and then its UTF-8."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterable, Iterator
from typing import Any

from .refusal import bad

_LENGTH = struct.Struct("<I")


def unpack(data: memoryview, count: int, name: str) -> list[str]:
    """The ``count`` strings that ``data`` holds, all of it; raises :class:`Refused` (400) where it does not."""
    found = []
    at = 0
    for index in range(count):
        text, at = _element(data, at, index, name)
        found.append(text)
    if at != len(data):
        raise bad(f"input {name!r} has {len(data) - at} bytes behind its {count} strings")
    return found


def _element(data: memoryview, at: int, index: int, name: str) -> tuple[str, int]:
    if at + _LENGTH.size > len(data):
        raise bad(f"string {index} of input {name!r} is missing: {len(data)} bytes end before its length")
    (length,) = _LENGTH.unpack_from(data, at)
    at += _LENGTH.size
    if length > len(data) - at:
        raise bad(
            f"string {index} of input {name!r} has {length:,} bytes by its length, and {len(data) - at:,} are left"
        )
    return _decoded(data[at : at + length], index, name), at + length


def _decoded(data: memoryview, index: int, name: str) -> str:
    try:
        return str(data, "utf-8")
    except UnicodeDecodeError as error:
        raise bad(f"string {index} of input {name!r} is not UTF-8: {error.reason} at byte {error.start}") from error


def check_text(texts: list[str], name: str) -> None:
    """Raise :class:`Refused` (400) for strings that are no text: JSON can escape half a character."""
    try:
        "".join(texts).encode()
    except UnicodeEncodeError as error:
        raise bad(f"a string of input {name!r} is no text: {error.reason}", "surrogates come in pairs") from error


def pack(elements: Iterable[Any]) -> bytes:
    """The bytes of ``elements``, strings or bytes.

    >>> pack(["a", b"bc"])
    b'\\x01\\x00\\x00\\x00a\\x02\\x00\\x00\\x00bc'
    """
    return b"".join(itertools.chain.from_iterable(map(_framed, elements)))


def _framed(element: Any) -> Iterator[bytes]:
    data = element if isinstance(element, bytes) else str(element).encode()
    yield _LENGTH.pack(len(data))
    yield data
