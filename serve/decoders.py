"""Threads that parse requests and write answers, so that the event loop only moves bytes.

They hold the interpreter's lock most of the time, so that many of them would gain nothing.  What is large goes through
one thread, one after the other; what is small does not wait behind it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

LARGE = 64 << 10
"""Bytes from which on something is large: a millisecond of parsing."""


class Decoders:
    """The threads of one server; they end when nothing refers to it any more."""

    def __init__(self) -> None:
        self._small = ThreadPoolExecutor(2, thread_name_prefix="prunec-decode")
        self._large = ThreadPoolExecutor(1, thread_name_prefix="prunec-decode-large")

    async def run(self, nbytes: int, function: Callable[[], T]) -> T:
        """What ``function`` returns, which converts so many bytes."""
        lane = self._large if nbytes >= LARGE else self._small
        return await asyncio.get_running_loop().run_in_executor(lane, function)
