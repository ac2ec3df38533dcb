"""One timer that can be set, left running and put off."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Alarm:
    """Calls ``action`` once, so many seconds after it was set; to set it again does not put it off."""

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float, action: Callable[[], None]) -> None:
        self._loop, self._seconds, self._action = loop, seconds, action
        self._timer: asyncio.TimerHandle | None = None

    def run(self, wanted: bool) -> None:
        """Set it where it is ``wanted`` and not yet set; else put it off."""
        if not wanted:
            self.off()
        elif self._timer is None:
            self._timer = self._loop.call_later(self._seconds, self._ring)

    def off(self) -> None:
        """Put it off."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ring(self) -> None:
        self._timer = None
        self._action()
