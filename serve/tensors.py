"""One tensor: from JSON or bytes to an array of what the model declares, and back.

Nothing is converted that would change: a float for an integer, a number beyond the range, a word that is no boolean are
refused.  JSON numbers for floats are rounded to the nearest, as any reader of decimals does; integers among them are
taken, for ``1`` is how many writers write 1.0.  Start at :func:`from_json` and :func:`from_binary`.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..runtime.session import Array, Input
from .datatypes import BF16, BYTES, DTYPES, datatype, little
from .refusal import Refused, bad, shown
from .shapes import elements
from .strings import check_text, pack, unpack

_AS_BINARY = "send it as binary data"
_BLOCK = 8192
"""Elements that are written at a time: between blocks other threads may run."""


def from_json(declared: Input, shape: tuple[int, ...], data: Any) -> Array:
    """The array that ``data`` is: a list in row-major order, flat or nested as ``shape`` says.

    Raises :class:`Refused` (400) where it is not of the declared datatype, or has another number of elements.
    """
    flat = _flat(declared.name, shape, data)
    kind = datatype(declared.dtype)
    if kind == BF16:
        raise bad(f"input {declared.name!r} is BF16, which has no form in JSON", _AS_BINARY)
    _check_kinds(declared.name, kind, flat)
    return _shaped(declared.name, _array(declared.name, kind, flat), shape)


def from_binary(declared: Input, shape: tuple[int, ...], data: memoryview) -> Array:
    """The array that ``data`` holds, without a copy where possible; :class:`Refused` (400) where it does not fit."""
    kind, count = datatype(declared.dtype), elements(shape)
    if kind == BYTES:
        return _shaped(declared.name, _objects(unpack(data, count, declared.name)), shape)
    dtype = DTYPES[kind]
    if len(data) != count * dtype.itemsize:
        raise bad(
            f"input {declared.name!r} has {len(data):,} bytes, and {shown(list(shape))} of {kind} are "
            f"{count * dtype.itemsize:,}"
        )
    _check_booleans(declared.name, kind, data)
    return _shaped(declared.name, np.frombuffer(data, little(dtype)).astype(dtype, copy=False), shape)


def to_binary(array: Array) -> bytes:
    """The elements in row-major order, little endian; strings each with its length."""
    if datatype(array.dtype) == BYTES:
        return pack(array.ravel().tolist())
    return array.astype(little(array.dtype), copy=False).tobytes()


def to_json(name: str, array: Array, limit: int) -> bytes:
    """The elements in row-major order as a JSON list.

    Raises :class:`Refused` (422) where JSON cannot say them (NaN, infinities, bytes that are no text), or the list
    would be longer than ``limit``: the same output is to be had as binary data.
    """
    if 2 * array.size > limit:
        raise _too_long(name, limit, array)
    _check_finite(name, array)
    blocks, length = [], 2
    for block in _blocks(name, array):
        blocks.append(block)
        length += len(block) + 1
        if length > limit:
            raise _too_long(name, limit, array)
    return b"[" + b",".join(blocks) + b"]"


def held_bytes(array: Array) -> int:
    """What an array takes; a string counts as what its object takes, about."""
    return int(array.nbytes) + (64 * array.size if array.dtype.kind == "O" else 0)


def json_bytes(array: Array) -> int:
    """The most that numbers or booleans take as JSON; for strings a guess."""
    width = {"b": 6, "f": 25, "i": 2 + 3 * array.itemsize, "u": 2 + 3 * array.itemsize}
    return 2 + width.get(array.dtype.kind, 64) * array.size


def _flat(name: str, shape: tuple[int, ...], data: Any) -> list[Any]:
    """The elements of a list that is flat, or nested as ``shape`` says."""
    if not isinstance(data, list):
        raise bad(f"input {name!r} has {shown(data)} as data", "data is a list")
    flat = _unnested(name, shape, data) if data and isinstance(data[0], list) else data
    if len(flat) != elements(shape):
        raise bad(
            f"input {name!r} has {len(flat):,} elements, and the shape {shown(list(shape))} has {elements(shape):,}"
        )
    return flat


def _unnested(name: str, shape: tuple[int, ...], data: list[Any]) -> list[Any]:
    """One level after the other, so that no depth is too deep."""
    level, sizes = data, {len(data)}
    for axis, size in enumerate(shape):
        if axis:
            level, sizes = _inner(name, level, axis)
        if sizes - {size}:
            found = ", ".join(map(str, sorted(sizes)[:5]))
            raise bad(f"data of input {name!r} has {found} elements along axis {axis}, and its shape {size}")
    return level


def _inner(name: str, level: list[Any], axis: int) -> tuple[list[Any], set[int]]:
    """What the lists of a level hold, in one list, and how many each of them."""
    if set(map(type, level)) - {list}:
        raise bad(f"data of input {name!r} is nested unevenly at axis {axis}", "or give it as one flat list")
    return list(itertools.chain.from_iterable(level)), set(map(len, level))


def _check_kinds(name: str, kind: str, flat: list[Any]) -> None:
    """Refuse elements that are no such thing; JSON's true is a Python int, so types are held, not isinstance."""
    taken = _TAKEN[_family(kind)]
    wrong = set(map(type, flat)) - taken
    if wrong:
        index, found = next((i, f) for i, f in enumerate(flat) if type(f) not in taken)
        raise bad(f"element {index} of input {name!r} is {shown(found)}, and the model declares {kind}")


_TAKEN: dict[str, set[type]] = {"b": {bool}, "i": {int}, "f": {int, float}, "s": {str}}


def _family(kind: str) -> str:
    if kind == BYTES:
        return "s"
    found = DTYPES[kind].kind
    return "i" if found in "ui" else found


def _array(name: str, kind: str, flat: list[Any]) -> Array:
    if kind == BYTES:
        check_text(flat, name)
        return _objects(flat)
    dtype = DTYPES[kind]
    if dtype.kind == "f":
        return _floats(name, kind, flat)
    if dtype.kind in "ui" and flat:
        _check_range(name, kind, flat)
    return np.array(flat, dtype)


def _check_range(name: str, kind: str, flat: list[int]) -> None:
    known = np.iinfo(DTYPES[kind])
    for found in (min(flat), max(flat)):
        if not known.min <= found <= known.max:
            raise bad(f"input {name!r} has {shown(found)}, and {kind} is {known.min} to {known.max}")


def _floats(name: str, kind: str, flat: list[Any]) -> Array:
    try:
        with np.errstate(over="ignore"):
            found = np.array(flat, np.float64).astype(DTYPES[kind])
    except OverflowError as error:
        raise bad(f"input {name!r} has an integer that no float holds") from error
    if not np.isfinite(found).all():
        beyond = flat[int(np.flatnonzero(~np.isfinite(found))[0])]
        raise bad(f"input {name!r} has {shown(beyond)}, which is beyond {kind}", "infinities travel as binary data")
    return found


def _objects(texts: Sequence[str]) -> Array:
    found = np.empty(len(texts), dtype=object)
    found[:] = texts
    return found


def _shaped(name: str, flat: Array, shape: tuple[int, ...]) -> Array:
    """``flat`` in its shape, aligned as kernels expect it."""
    try:
        return np.require(flat.reshape(shape), requirements="A")
    except ValueError as error:  # nothing in it, and its other axes together beyond what an array has
        raise bad(f"input {name!r} cannot have the shape {shown(list(shape))}", "its axes are too long") from error


def _check_booleans(name: str, kind: str, data: memoryview) -> None:
    if kind == "BOOL" and len(data) and np.frombuffer(data, np.uint8).max() > 1:
        raise bad(f"input {name!r} is BOOL and has a byte that is neither 0 nor 1")


def _check_finite(name: str, array: Array) -> None:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        wrong = ~np.isfinite(array)
        first = [int(i) for i in np.argwhere(wrong)[0]]
        raise _unsaid(name, f"has {wrong.sum():,} elements that are NaN or infinite, the first at {first}", array)


def _blocks(name: str, array: Array) -> Iterator[bytes]:
    flat = array.ravel()
    for start in range(0, flat.size, _BLOCK):
        try:
            yield json.dumps(_plain(flat[start : start + _BLOCK]), separators=(",", ":")).encode()[1:-1]
        except UnicodeDecodeError as error:
            raise _unsaid(name, "has bytes that are no text", array) from error


def _plain(block: Array) -> list[Any]:
    if block.dtype.kind not in "OSU":
        return list(block.tolist())
    return [found.decode() if isinstance(found, bytes) else str(found) for found in block.tolist()]


def _too_long(name: str, limit: int, array: Array) -> Refused:
    return _unsaid(name, f"is longer than {limit:,} bytes as JSON", array)


def _unsaid(name: str, why: str, array: Array) -> Refused:
    return Refused(
        422, f"output {name!r} {why}",
        hint='ask for it as binary data: {"name": …, "parameters": {"binary_data": true}}', shape=array.shape,
    )  # fmt: skip
