"""Steps in processes of this machine, each started afresh: what one leaves behind, no other sees."""

from __future__ import annotations

import multiprocessing
import signal
from concurrent.futures import ProcessPoolExecutor
from types import TracebackType
from typing import Self

from .executor import Outcome
from .worker import Task, perform


class Processes:
    """``slots`` processes.  An interrupt is the caller's business: it ends them."""

    folder: str | None = None

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self._others = set(multiprocessing.active_children())
        spawn = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(slots, spawn, _deaf_to_interrupts)

    def submit(self, task: Task) -> Outcome:
        """As in :class:`~prunec.portfolios.executor.Executor`."""
        return self._pool.submit(perform, task)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            for process in set(multiprocessing.active_children()) - self._others:
                process.terminate()
        self._pool.shutdown(cancel_futures=True)


def _deaf_to_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
