from __future__ import annotations

import asyncio
import threading

from prunec.serve.decoders import LARGE, Decoders

from .serving import WAIT_S


def test_what_is_small_does_not_wait_behind_what_is_large() -> None:
    opened = threading.Event()

    async def main() -> list[object]:
        decoders = Decoders()
        large = [asyncio.ensure_future(decoders.run(LARGE, lambda: opened.wait(WAIT_S))) for _ in range(5)]
        small = await asyncio.wait_for(decoders.run(LARGE - 1, threading.current_thread), WAIT_S)
        opened.set()
        return [small, *await asyncio.gather(*large)]

    small, *large = asyncio.run(main())
    assert small is not threading.current_thread() and large == [True] * 5
