"""Bodies of requests, read piece by piece: of bounded size, in bounded time, of bounded size together.

What counts is what was really received: to announce much and send little costs the server nothing.  Start at
:func:`read`; :class:`Held` counts over all requests.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

from .headers import Announced
from .limits import Limits
from .refusal import Refused, bad, busy

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]

_CLOSE = {"connection": "close"}


class Gone(Exception):
    """The client has left; there is nobody to answer."""


class Held:
    """Bytes that all requests in flight hold together.

    Parameters
    ----------
    limit
        Above it a request is refused.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.total = 0

    @contextmanager
    def share(self) -> Iterator[Share]:
        """What one request holds, until the block ends."""
        share = Share(self)
        try:
            yield share
        finally:
            share.hold(0)


class Share:
    """What one request holds of all that is :class:`Held`."""

    def __init__(self, held: Held) -> None:
        self._held, self._own = held, 0

    def hold(self, nbytes: int) -> None:
        """Hold ``nbytes`` from now on, in place of what was held; :class:`Refused` (503) if that is too much."""
        total = self._held.total - self._own + nbytes
        if nbytes > self._own and total > self._held.limit:
            raise busy(f"requests in flight hold {self._held.total:,} bytes, the most are {self._held.limit:,}")
        self._held.total, self._own = total, nbytes


async def read(receive: Receive, body: Announced, share: Share, limits: Limits) -> bytearray:
    """The body of a request.

    Raises
    ------
    Refused
        408 where it is not complete in time, 413 where it is too large, 503 where all requests together are.
    Gone
        The client left meanwhile.
    """
    try:
        async with asyncio.timeout(limits.body_s):
            return await _read(receive, body, share)
    except TimeoutError as error:
        raise Refused(408, f"the body was not complete after {limits.body_s:g} s", headers=_CLOSE) from error


async def _read(receive: Receive, body: Announced, share: Share) -> bytearray:
    found = bytearray()
    more = True
    while more:
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
