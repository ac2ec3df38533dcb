"""Steps in processes of this machine, each started afresh: what one leaves behind, no other sees."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.connection import wait
from types import TracebackType
from typing import Self

from .executor import Outcome
from .worker import Task, perform


class Processes:
    """``slots`` processes at a time.  An interrupt is the caller's business: it ends them; and they end with it."""

    folder: str | None = None

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self._others = set(multiprocessing.active_children())
        spawn = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(slots, spawn, _begun, max_tasks_per_child=1)

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


def _begun() -> None:
    """What each process begins with: deaf to interrupts, and gone as soon as its parent is, however that ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_gone_with_its_parent, daemon=True).start()


def _gone_with_its_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "it was spawned"
    wait([parent.sentinel])
    os._exit(1)
