"""A model as the bytes of its file, a tensor at a time.

A protobuf that is serialised whole takes its size in memory once more.  Here it is serialised with empty tensors, and
their data is put in while the bytes pass: what each message says of its own length is written anew, all else stays.
The bytes are those of the whole model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import onnx

from ..deferred import forget
from ..errors import ModelError

Piece = bytes | memoryview
_GRAPH, _INITIALIZER, _RAW_DATA = 7, 5, 9
"""Numbers of fields in onnx.proto: of the model, the graph and the tensor."""
_VARINT, _EIGHT, _LENGTH, _FOUR = 0, 1, 2, 5


class Pending:
    """The bytes of an array, read when they are asked for."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def __len__(self) -> int:
        return int(self.data.nbytes)

    def read(self) -> Iterator[memoryview]:
        """The bytes, whose memory is given back once they are used."""
        yield np.ascontiguousarray(np.asarray(self.data)).reshape(-1).view(np.uint8).data
        forget(self.data)


Pieces = list[Piece | Pending]


def pieces(model: onnx.ModelProto, tensors: Mapping[str, Any]) -> Pieces:
    """The serialised ``model`` with the data of ``tensors``, by name, in its initialisers, which are empty in it.

    Raises
    ------
    ModelError
        The initialiser of such a tensor has no raw data, not even empty ones, so that nothing would be put in.
    """

    def tensor(message: memoryview) -> Pieces:
        found = onnx.TensorProto.FromString(bytes(message))
        if found.name not in tensors:
            return [message]
        if not found.HasField("raw_data"):
            raise ModelError(
                f"writing the model: tensor {found.name!r} has no place for its data",
                hint="this is a bug in prunec, nothing was written; please report it with the model",
                tensor=found.name,
            )
        return _rewritten(message, _RAW_DATA, lambda _: [Pending(tensors[found.name])])

    def graph(message: memoryview) -> Pieces:
        return _rewritten(message, _INITIALIZER, tensor)

    return _rewritten(memoryview(model.SerializeToString(deterministic=True)), _GRAPH, graph)


def read(found: Pieces) -> Iterator[Piece]:
    """The bytes of ``pieces``, one tensor in memory at a time."""
    for piece in found:
        yield from piece.read() if isinstance(piece, Pending) else (piece,)


def _rewritten(message: memoryview, number: int, change: Callable[[memoryview], Pieces]) -> Pieces:
    """A message with ``change`` made to the content of each field ``number``."""
    made: Pieces = []
    for found, start, content, stop in _fields(message):
        if found != number:
            made.append(message[start:stop])
            continue
        inner = change(message[content:stop])
        made += [_varint(number << 3 | _LENGTH) + _varint(sum(map(len, inner))), *inner]
    return made


def _fields(message: memoryview) -> Iterator[tuple[int, int, int, int]]:
    """For each field its number, and where it, its content and the next field start."""
    at = 0
    while at < len(message):
        start = at
        key, at = _read_varint(message, at)
        kind, content = key & 7, at
        if kind == _LENGTH:
            length, content = _read_varint(message, at)
            at = content + length
        elif kind == _VARINT:
            _, at = _read_varint(message, at)
        else:
            at += {_EIGHT: 8, _FOUR: 4}[kind]
        yield key >> 3, start, content, at


def _read_varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _varint(value: int) -> bytes:
    made = bytearray()
    while value >= 0x80:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    made.append(value)
    return bytes(made)
