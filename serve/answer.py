"""An answer of the portfolio as a response: JSON, and behind it the outputs that were asked for as bytes.

JSON has no NaN and no infinities.  An output that has some is refused as JSON (422), rather than answered with what is
not JSON, or with ``null``, of which nobody knows what it was; as binary data it is answered as it is.

It is sent in pieces, the next one when the client has read the one before; how long that may take is the connection's
to say.  Start at :func:`payload` and :func:`send_payload`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starlette.types import Send

from ..runtime.session import Array
from .datatypes import BYTES, datatype
from .headers import JSON_LENGTH
from .request import BINARY_SIZE, AskedOutput, InferenceRequest
from .tensors import held_bytes, json_bytes, to_binary, to_json

if TYPE_CHECKING:
    from ..runtime.opened import Answer

_PIECE = 256 << 10


@dataclass(frozen=True)
class Payload:
    """The body of a response and the headers that describe it."""

    body: bytes
    headers: Mapping[str, str]


def payload(answer: Answer, request: InferenceRequest, model: str, json_limit: int) -> Payload:
    """The response to ``request``; raises :class:`Refused` (422) for an output that JSON cannot say."""
    outputs = [_Output(asked, answer[asked.name], json_limit) for asked in request.outputs]
    head = b"".join(_head(model, answer.variant, request.id, outputs))
    behind = [o.data for o in outputs if o.asked.binary]
    if not behind:
        return Payload(head, {"content-type": "application/json"})
    headers = {"content-type": "application/octet-stream", JSON_LENGTH: str(len(head))}
    return Payload(b"".join([head, *behind]), headers)


async def send_payload(payload: Payload, send: Send) -> None:
    """Send ``payload`` with status 200."""
    headers = {**payload.headers, "content-length": str(len(payload.body))}
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": 200, "headers": raw})
    for start in range(0, len(payload.body), _PIECE):
        await _send_piece(payload.body, start, send)


async def _send_piece(body: bytes, start: int, send: Send) -> None:
    end = start + _PIECE
    await send({"type": "http.response.body", "body": body[start:end], "more_body": end < len(body)})


def answer_bytes(answer: Answer, asked: Sequence[AskedOutput], json_limit: int) -> int:
    """What an answer takes at most until it is written: its arrays, and what they become."""
    arrays = [(answer[output.name], output.binary) for output in asked]
    return sum(held_bytes(a) + (held_bytes(a) if binary else min(json_limit, json_bytes(a))) for a, binary in arrays)


def converted_bytes(answer: Answer, asked: Sequence[AskedOutput]) -> int:
    """Of the outputs that are written element by element; the others are only copied."""
    arrays = [(answer[output.name], output.binary) for output in asked]
    return sum(held_bytes(a) for a, binary in arrays if not binary or datatype(a.dtype) == BYTES)


class _Output:
    """One output, its elements written."""

    def __init__(self, asked: AskedOutput, array: Array, json_limit: int) -> None:
        self.asked, self.array = asked, array
        self.data = to_binary(array) if asked.binary else to_json(asked.name, array, json_limit)

    def written(self) -> bytes:
        found: dict[str, Any] = {
            "name": self.asked.name, "shape": list(self.array.shape), "datatype": datatype(self.array.dtype),
        }  # fmt: skip
        if self.asked.binary:
            return _json({**found, "parameters": {BINARY_SIZE: len(self.data)}})
        return _json(found)[:-1] + b',"data":' + self.data + b"}"


def _head(model: str, variant: str, id: str | None, outputs: list[_Output]) -> Iterator[bytes]:
    said = {"model_name": model, "model_version": variant} | ({} if id is None else {"id": id})
    yield _json(said)[:-1]
    yield b',"outputs":['
    yield b",".join(o.written() for o in outputs)
    yield b"]}"


def _json(found: Any) -> bytes:
    return json.dumps(found, separators=(",", ":")).encode()
