"""A client of the protocol, written apart from the server: it knows numpy, sockets and the specification."""

from __future__ import annotations

import http.client
import json
import socket
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
NAMES: dict[str, str] = {
    "bool": "BOOL", "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64", "int8": "INT8",
    "int16": "INT16", "int32": "INT32", "int64": "INT64", "float16": "FP16", "float32": "FP32", "float64": "FP64",
    "bfloat16": "BF16", "object": "BYTES",
}  # fmt: skip
DTYPES = {name: np.dtype(ml_dtypes.bfloat16 if text == "bfloat16" else text) for text, name in NAMES.items()}
WAIT_S = 30.0


@dataclass(frozen=True)
class Reply:
    """What a server answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        return str(self.json["error"])


def ask(url: str, path: str, *, method: str = "GET", body: bytes | None = None, **headers: str) -> Reply:
    """One request on a connection of its own; ``content_type`` is the header Content-Type."""
    where = urlsplit(url)
    connection = http.client.HTTPConnection(str(where.hostname), where.port, timeout=WAIT_S)
    try:
        connection.request(method, path, body, {k.replace("_", "-"): v for k, v in headers.items()})
        return _reply(connection.getresponse())
    finally:
        connection.close()


def _reply(response: http.client.HTTPResponse) -> Reply:
    return Reply(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())


def infer(url: str, model: str, request: bytes, header: int | None = None, *, variant: str = "") -> Reply:
    """A request for inference; ``header`` is the length of its JSON where tensors follow."""
    path = f"/v2/models/{model}{f'/versions/{variant}' if variant else ''}/infer"
    lengths = {} if header is None else {"inference_header_content_length": str(header)}
    return ask(url, path, method="POST", body=request, **lengths)


def tensor(name: str, array: Array, /, **changes: Any) -> dict[str, Any]:
    """An input with its elements in JSON."""
    data = array.ravel().tolist()
    return {"name": name, "shape": list(array.shape), "datatype": NAMES[str(array.dtype)], "data": data} | changes


def as_json(inputs: Mapping[str, Array], **fields: Any) -> bytes:
    """A request all in JSON."""
    return json.dumps({"inputs": [tensor(n, a) for n, a in inputs.items()], **fields}).encode()


def as_binary(inputs: Mapping[str, Array], **fields: Any) -> tuple[bytes, int]:
    """A request with its tensors as bytes, and the length of its JSON."""
    data = {name: to_bytes(array) for name, array in inputs.items()}
    items = []
    for name, array in inputs.items():
        item = tensor(name, array[:0], shape=list(array.shape), parameters={"binary_data_size": len(data[name])})
        del item["data"]
        items.append(item)
    head = json.dumps({"inputs": items, **fields}).encode()
    return head + b"".join(data.values()), len(head)


def to_bytes(array: Array) -> bytes:
    if array.dtype.kind != "O":
        return array.tobytes()
    return b"".join(struct.pack("<I", len(t.encode())) + t.encode() for t in array.ravel())


def outputs(reply: Reply) -> dict[str, Array]:
    """The outputs of an answer by name, in JSON or behind it."""
    length = int(reply.headers.get("inference-header-content-length", len(reply.body)))
    document, rest = json.loads(reply.body[:length]), reply.body[length:]
    found = {}
    for item in document["outputs"]:
        size = item.get("parameters", {}).get("binary_data_size", 0)
        own, rest = rest[:size], rest[size:]
        found[item["name"]] = _array(item, own)
    assert rest == b""
    return found


def _array(item: Mapping[str, Any], data: bytes) -> Array:
    dtype = DTYPES[item["datatype"]]
    if "data" in item:
        return np.array(item["data"], dtype).reshape(item["shape"])
    if dtype.kind != "O":
        return np.frombuffer(data, dtype).reshape(item["shape"])
    return np.array(list(_strings(data)), object).reshape(item["shape"])


def _strings(data: bytes) -> Iterator[str]:
    while data:
        (length,) = struct.unpack_from("<I", data)
        yield data[4 : 4 + length].decode()
        data = data[4 + length :]


@contextmanager
def connected(url: str) -> Iterator[socket.socket]:
    """A socket for bytes that no client library would send."""
    where = urlsplit(url)
    with socket.create_connection((where.hostname, where.port), timeout=WAIT_S) as found:
        yield found


def received(connection: socket.socket) -> bytes:
    """Everything until the server closes."""
    found = b""
    while piece := connection.recv(1 << 16):
        found += piece
    return found


def replied(connection: socket.socket) -> Reply:
    """The next answer on a connection."""
    response = http.client.HTTPResponse(connection)
    response.begin()
    return _reply(response)


def head(path: str, *headers: str, method: str = "POST") -> bytes:
    """The head of a request."""
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: x", *headers, "", ""]).encode()
