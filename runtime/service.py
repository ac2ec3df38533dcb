"""The service: requests wait in a bounded queue, workers run them on a portfolio, and the controller looks on.

What goes over a network or through a queue of another kind needs no more than :meth:`Service.submit`.  A full queue
refuses at once, so that those that wait are answered in time.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from ..ir.errors import EnvironmentProblem, UsageError
from .feeds import checked
from .opened import Answer
from .portfolio import Portfolio
from .switcher import Controller

log = logging.getLogger("prunec.service")
_IDLE_S = 0.05
"""How soon a worker that has nothing to do sees that the service ends."""


class Busy(EnvironmentProblem):
    """As many requests wait as may."""


@dataclass(frozen=True)
class _Request:
    inputs: Any
    outputs: Sequence[str] | None
    variant: str | None
    came: float
    future: Future[Answer]


class Service:
    """Answers requests with the variants of ``portfolio``.

    Parameters
    ----------
    controller
        Picks the variant; None: it stays the active one.
    workers
        Requests that run at the same time.
    most_waiting
        Requests that may wait.
    every_s
        Seconds between the controller's looks.

    Raises
    ------
    UsageError
        No worker, or no place to wait.
    """

    def __init__(
        self,
        portfolio: Portfolio,
        controller: Controller | None = None,
        *,
        workers: int = 1,
        most_waiting: int = 64,
        every_s: float = 0.1,
    ) -> None:
        for name, value in (("workers", workers), ("most_waiting", most_waiting)):
            if value < 1:
                raise UsageError(f"a service with {name}={value} answers nobody", hint="1 or more")
        self.portfolio, self.controller = portfolio, controller
        self._queue: queue.Queue[_Request] = queue.Queue(most_waiting)
        self._stopping = threading.Event()
        self._closed = threading.Lock()
        self._every_s = every_s
        self._workers = [threading.Thread(target=self._work, name=f"worker-{k}", daemon=True) for k in range(workers)]
        self._looker = threading.Thread(target=self._look, name="controller", daemon=True)
        for thread in (*self._workers, self._looker):
            thread.start()

    @property
    def depth(self) -> int:
        """Requests that wait."""
        return self._queue.qsize()

    @property
    def switched(self) -> Counter[tuple[str, str]]:
        """How many switches there were, by the variants before and after."""
        return self.portfolio.switched

    def submit(self, inputs: Any, variant: str | None = None, outputs: Sequence[str] | None = None) -> Future[Answer]:
        """A request; its answer comes from the variant that is active when it is run, or from ``variant``.

        Raises
        ------
        Busy
            As many wait as may, or the service ends.
        UsageError
            Inputs, a variant or an output that the portfolio does not have.
        """
        feeds = checked(inputs, self.portfolio.inputs)
        self.portfolio.check_outputs(outputs or ())
        if variant is not None:
            self.portfolio.manifest[variant]
        request = _Request(feeds, outputs, variant, time.monotonic(), Future())
        with self._closed:
            if self._stopping.is_set():
                raise Busy("the service ends", hint="ask another one")
            try:
                self._queue.put_nowait(request)
            except queue.Full:
                raise Busy(f"{self._queue.maxsize} requests wait already", hint="try again in a moment") from None
        if self.controller is not None:
            self.controller.arrived()
        return request.future

    def stop(self, timeout_s: float = 30.0) -> bool:
        """Take no more requests and answer those that wait; False where that was not done after ``timeout_s``.

        What is left then is answered all the same, as long as the program runs.
        """
        with self._closed:
            self._stopping.set()
        until = time.monotonic() + timeout_s
        for thread in (*self._workers, self._looker):
            if thread is not threading.current_thread():
                thread.join(max(until - time.monotonic(), 0.0))
        return not any(thread.is_alive() for thread in self._workers)

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *raised: object) -> None:
        self.stop()

    def _work(self) -> None:
        while True:
            try:
                request = self._queue.get(timeout=_IDLE_S)
            except queue.Empty:
                if self._stopping.is_set():
                    return
                continue
            self._answer(request)
            del request  # it is not to be held until the next one comes

    def _answer(self, request: _Request) -> None:
        if not request.future.set_running_or_notify_cancel():
            return
        try:
            answer = self.portfolio.run(request.inputs, request.outputs, variant=request.variant)
        except BaseException as error:  # it belongs to the one who asked
            request.future.set_exception(error)
            return
        if self.controller is not None:
            self.controller.answered(time.monotonic() - request.came)
        request.future.set_result(answer)

    def _look(self) -> None:
        """Let the controller look, again and again; what goes wrong in a policy or a sensor ends nothing else."""
        said = ""
        while self.controller is not None and not self._stopping.wait(self._every_s):
            try:
                self.controller.step(self.depth)
            except Exception as error:
                if repr(error) != said:  # once, and not at every look
                    said = repr(error)
                    log.exception("the controller failed, and stays on %s", self.portfolio.active)
