"""Bodies of requests, read piece by piece: of bounded size, in bounded time, of bounded size together.

What counts is what was really received: to announce much and send little costs the server nothing.  To send much and
then nothing does, so that such a body makes room where others need it.  Start at :func:`read`; :class:`HeldBytes`
counts over all requests.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from .headers import Announced
from .limits import Limits
from .refusal import Refused, bad, busy

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]

SMALL = 64 << 10
"""Bytes that a request may hold whatever others hold; the number of connections bounds their sum."""

_CLOSE = {"connection": "close"}
_PATIENCE_S = 1.0
"""How long a client may be silent before its body makes room for others."""


class Gone(Exception):
    """The client has left; there is nobody to answer."""


class HeldBytes:
    """Bytes that all requests in flight hold together.

    Parameters
    ----------
    limit
        Above it a request is refused, unless bodies that stalled make room.
    small
        What a request may hold in any case, so that large ones do not shut small ones out.

    Attributes
    ----------
    awaited
        The bodies that wait for their clients, with the time since when, and what gives them up; the longest first.
    """

    def __init__(self, limit: int, small: int = SMALL) -> None:
        self.limit, self.small = limit, small
        self.total = 0
        self.awaited: dict[Share, tuple[float, Callable[[], None]]] = {}

    @contextmanager
    def share(self) -> Iterator[Share]:
        """What one request holds, until the block ends."""
        share = Share(self)
        try:
            yield share
        finally:
            share.hold(0)

    def has_room(self, nbytes: int) -> bool:
        """Whether ``nbytes`` more fit, for which bodies that stalled are given up."""
        for share, (since, give_up) in list(self.awaited.items()):
            if self.total + nbytes <= self.limit or time.monotonic() - since < _PATIENCE_S:
                break
            if share.own > self.small:
                share.let_go()
                give_up()
        return self.total + nbytes <= self.limit


class Share:
    """What one request holds of all :class:`HeldBytes`.

    Attributes
    ----------
    own
        So many bytes.
    given_up
        Whether its body had to make room.
    """

    def __init__(self, held: HeldBytes) -> None:
        self._held = held
        self.own, self.given_up = 0, False

    def hold(self, nbytes: int) -> None:
        """Hold ``nbytes`` from now on, in place of what was held; :class:`Refused` (503) if that is too much."""
        more = nbytes - self.own
        if more > 0 and nbytes > self._held.small and not self._held.has_room(more):
            raise busy(f"requests in flight hold {self._held.total:,} bytes, the most are {self._held.limit:,}")
        self._held.total += more
        self.own = nbytes

    def hold_also(self, nbytes: int) -> None:
        """Hold ``nbytes`` beside what is held; raises as :meth:`hold` does."""
        self.hold(self.own + nbytes)

    def let_go(self) -> None:
        """Hold nothing, for others need the room."""
        self.given_up = True
        self._held.awaited.pop(self, None)
        self.hold(0)

    @contextmanager
    def awaiting(self, give_up: Callable[[], None]) -> Iterator[None]:
        """The client is to send more until the block ends; ``give_up`` is called if others need the room."""
        self._held.awaited[self] = time.monotonic(), give_up
        try:
            yield
        finally:
            self._held.awaited.pop(self, None)


async def read(receive: Receive, body: Announced, share: Share, limits: Limits) -> bytearray:
    """The body of a request.

    Raises
    ------
    Refused
        408 where it is not complete in time, or stalls while others need the room; 413 where it is too large, 503 where
        all requests together are.
    Gone
        The client left meanwhile.
    """
    try:
        async with asyncio.timeout(limits.body_s) as deadline:
            return await _read(receive, body, share, partial(_expire, deadline))
    except TimeoutError as error:
        late = f"was not complete after {limits.body_s:g} s"
        why = "stalled while others needed the room" if share.given_up else late
        raise Refused(408, f"the body {why}", headers=_CLOSE) from error


def _expire(deadline: asyncio.Timeout) -> None:
    if not deadline.expired():
        deadline.reschedule(0.0)


async def _read(receive: Receive, body: Announced, share: Share, give_up: Callable[[], None]) -> bytearray:
    found = bytearray()
    more = True
    while more:
        with share.awaiting(give_up):
            piece, more = await _piece(receive)
        if len(found) + len(piece) > body.most:
            raise body.too_large
        share.hold(len(found) + len(piece))
        found += piece
    return found


async def _piece(receive: Receive) -> tuple[bytes, bool]:
    message = await receive()
    if message["type"] == "http.disconnect":
        raise Gone
    return message.get("body", b""), message.get("more_body", False)


def parted(body: bytearray, json_bytes: int | None) -> tuple[memoryview, memoryview]:
    """The JSON of a body, and the tensors behind it."""
    view = memoryview(body)
    if json_bytes is None:
        return view, view[len(view) :]
    if json_bytes > len(body):
        raise bad(f"the JSON is announced with {json_bytes:,} bytes, and the whole body has {len(body):,}")
    return view[:json_bytes], view[json_bytes:]


async def gone(receive: Receive) -> None:
    """Return when the client leaves."""
    while (await receive())["type"] != "http.disconnect":
        pass
