"""An answer of the portfolio as the body of a response: JSON, and behind it the outputs that were asked for as bytes.

JSON has no NaN and no infinities.  An output that has some is refused as JSON (422), rather than answered with what is
not JSON, or with ``null``, of which nobody knows what it was; as binary data it is answered as it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..runtime.session import Array
from .datatypes import datatype
from .headers import JSON_LENGTH
from .request import BINARY_SIZE, AskedOutput, InferenceRequest
from .tensors import to_binary, to_json

if TYPE_CHECKING:
    from ..runtime.opened import Answer


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
