from __future__ import annotations

import asyncio
from typing import Any

from prunec.serve.alarm import Alarm


def rung(*wanted: bool) -> int:
    """How often an alarm rings that is told these things."""
    calls: list[Any] = []

    async def main() -> None:
        alarm = Alarm(asyncio.get_running_loop(), 0.0, lambda: calls.append(1))
        for said in wanted:
            alarm.run(said)
        await asyncio.sleep(0.05)

    asyncio.run(main())
    return len(calls)


def test_it_rings_once_if_it_is_wanted_to_the_end() -> None:
    assert rung(True) == rung(True, True) == rung(True, False, True) == 1
    assert rung() == rung(False) == rung(True, False) == 0
