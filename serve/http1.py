"""HTTP/1.1 as a server speaks it that means to be neither held up nor misled; the bytes are h11's.

Three things differ.  Refused are a body in chunks of a few bytes, which cost more to read than to send, and one that is
announced both by its length and as chunks: whoever stands in front of the server may see it end elsewhere.  A target
with scheme and authority, which a proxy may send, is the path in it.  And once the server stops, every answer tells the
client that no other follows on this connection.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import h11

if TYPE_CHECKING:
    from .app import Readiness

_CHUNKS = 256
_CHUNK_BYTES = 128
_AUTHORITY = re.compile(rb"https?://[^/?#]*", re.IGNORECASE)
_CLOSE = (b"connection", b"close")


class Http1(h11.Connection):
    """The state of one connection.

    Parameters
    ----------
    head_bytes
        The most bytes of the head of a request.
    readiness
        Whether the server goes on.
    """

    def __init__(self, head_bytes: int, readiness: Readiness) -> None:
        super().__init__(h11.SERVER, head_bytes)
        self._readiness = readiness
        self._chunks = self._bytes = 0

    def next_event(self) -> Any:
        """The next event; raises ``h11.RemoteProtocolError`` for what is no HTTP, or is refused."""
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._chunks = self._bytes = 0
            return _taken(event)
        if isinstance(event, h11.Data):
            self._count(event)
        return event

    def send_with_data_passthrough(self, event: h11.Event) -> list[bytes] | None:
        """The bytes of ``event``; ``send`` goes through here as well."""
        if isinstance(event, h11.Response) and not self._readiness.ready and _CLOSE not in event.headers:
            event = h11.Response(
                status_code=event.status_code, headers=[*event.headers, _CLOSE], reason=event.reason
            )  # fmt: skip
        return super().send_with_data_passthrough(event)

    def _count(self, data: h11.Data) -> None:
        self._chunks += data.chunk_start
        self._bytes += len(data.data)
        if self._chunks > _CHUNKS + self._bytes // _CHUNK_BYTES:
            raise h11.RemoteProtocolError("the chunks of the body are too small", 400)


def _taken(request: h11.Request) -> h11.Request:
    """``request`` with the path alone as its target, if its body ends in one place."""
    if {b"content-length", b"transfer-encoding"} <= {name for name, _ in request.headers}:
        raise h11.RemoteProtocolError("there are both Content-Length and Transfer-Encoding", 400)
    found = _AUTHORITY.match(request.target)
    if found is None:
        return request
    path = request.target[found.end() :]
    return h11.Request(
        method=request.method, headers=request.headers, http_version=request.http_version,
        target=path if path.startswith(b"/") else b"/" + path,
    )  # fmt: skip
