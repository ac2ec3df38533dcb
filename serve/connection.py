"""A connection that no client can hold for long: uvicorn's, and a bound for every wait.

uvicorn waits for ever for the head of a request, for a client that reads slowly, and for the rest of a body that it
has already refused.  Here each of these waits has an alarm; and where too many connections are open, the one that has
waited longest for its client makes room.

The bound for a body that is awaited is in :mod:`.bodies`; what is no good HTTP is refused by :mod:`.http1`.  Start at
:meth:`GuardedConnection._watch`.
"""

from __future__ import annotations

import asyncio
import json
import socket
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, ClassVar

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from .alarm import Alarm
from .http1 import Http1
from .limits import Limits

if TYPE_CHECKING:
    from .app import Readiness


def connection_for(limits: Limits, readiness: Readiness) -> type[GuardedConnection]:
    """The class of the connections of one server."""
    return type("Connection", (GuardedConnection,), {"limits": limits, "readiness": readiness, "waiting": {}})


class GuardedConnection(H11Protocol):
    """One connection; see :func:`connection_for`.

    Attributes
    ----------
    limits
        What the server takes.
    readiness
        Whether the server goes on.
    waiting
        All connections whose client is to send or to read something, the one that has waited longest first.
    """

    limits: ClassVar[Limits]
    readiness: ClassVar[Readiness]
    waiting: ClassVar[dict[GuardedConnection, None]]

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.conn = Http1(self.limits.head_bytes, self.readiness)
        self._head = Alarm(self.loop, self.limits.head_s, self._on_late_head)
        self._rest = Alarm(self.loop, self.limits.linger_s, self._abort)
        self._closing = Alarm(self.loop, self.limits.answer_s, self._abort)
        self._reader = Alarm(self.loop, self.limits.answer_s, self._abort)
        self._first = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, if there is room, or can be."""
        super().connection_made(transport)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._watch()
        if len(self.connections) > self.limits.connections:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        super().connection_lost(exc)
        self.waiting.pop(self, None)
        for alarm in (self._head, self._rest, self._closing, self._reader):
            alarm.off()

    def data_received(self, data: bytes) -> None:
        """Some bytes came."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """An answer is written, though perhaps not read."""
        self._first = False
        super().on_response_complete()
        self._watch()

    def pause_writing(self) -> None:
        """The client does not read as fast as it is answered."""
        super().pause_writing()
        self._reader.run(True)
        self._watch()

    def resume_writing(self) -> None:
        """It has read almost all that was written."""
        super().resume_writing()
        self._watch()

    def eof_received(self) -> None:
        """The client sends no more.  It counts as gone, as it mostly is; where a body is cut off, it is told so."""
        if self.conn.their_state is h11.SEND_BODY and self._in_flight:
            self._refuse(400, "the body ends before it is complete")

    def shutdown(self) -> None:
        """The server stops: close it once nothing is in flight."""
        if self.conn.our_state is h11.ERROR:
            self._abort()
        else:
            super().shutdown()
            self._watch()

    def timeout_keep_alive_handler(self) -> None:
        """Nothing came for a while."""
        super().timeout_keep_alive_handler()
        self._watch()

    def send_400_response(self, msg: str) -> None:
        """What was sent is no HTTP."""
        most = f"its head is larger than {self.limits.head_bytes:,} bytes"
        body = "its body is announced in two ways, or comes in chunks of a few bytes"
        self._refuse(400, f"the request is no HTTP/1.1, or {most}, or {body}")

    @property
    def _in_flight(self) -> bool:
        """Whether a request is to be answered."""
        return self.cycle is not None and not self.cycle.response_complete

    def _watch(self) -> None:
        """Set the alarms by what the connection waits for now."""
        state, closing = self.conn.their_state, self.transport.is_closing()
        self._head.run(state is h11.IDLE and not closing)
        self._rest.run(state is h11.SEND_BODY and not self._in_flight and not closing)
        self._closing.run(closing)
        if not self.flow.write_paused and not self._in_flight:
            self._reader.off()
        if self.flow.write_paused or (state in (h11.IDLE, h11.SEND_BODY) and not closing):
            self.waiting.setdefault(self)
        else:
            self.waiting.pop(self, None)

    def _make_room(self) -> None:
        oldest = next(iter(self.waiting), self)
        if oldest is self:
            self._refuse(503, f"{self.limits.connections} connections are in use", "retry-after: 1")
        else:
            oldest._abort()

    def _abort(self) -> None:
        self.waiting.pop(self, None)
        self.transport.abort()

    def _on_late_head(self) -> None:
        """A client that was answered before, and says nothing, is only closed: it would not expect an answer."""
        if self._first or self.conn.trailing_data[0]:
            self._refuse(408, f"the head of the request was not complete after {self.limits.head_s:g} s")
        else:
            self.timeout_keep_alive_handler()

    def _refuse(self, status: int, message: str, *headers: str) -> None:
        """Answer in place of the application, if it has not begun to, and close."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE) and not self.transport.is_closing():
            self._write(status, json.dumps({"error": message}).encode(), headers)
        if self._in_flight:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()
        self._watch()

    def _write(self, status: int, body: bytes, headers: tuple[str, ...]) -> None:
        said = ("content-type: application/json", f"content-length: {len(body)}", "connection: close", *headers)
        pairs = [(name.encode(), value.encode()) for name, _, value in (h.partition(": ") for h in said)]
        head = h11.Response(status_code=status, headers=pairs, reason=HTTPStatus(status).phrase.encode())
        for event in (head, h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
