"""Where steps run: in this process, in several, or on Ray.  What comes out is the same.

An executor is asked for with :func:`executor_for`, and is a context: at its end nothing of it runs any more.
"""

from __future__ import annotations

from concurrent.futures import Future
from types import TracebackType
from typing import Literal, Protocol, Self

from ..ir.errors import UsageError
from .worker import Done, Failed, Task, perform

On = Literal["processes", "ray"]
Outcome = Future[Done | Failed]


class Executor(Protocol):
    """Runs :func:`~prunec.portfolios.worker.perform`; ``slots`` steps at a time, in ``folder`` (None: as they are)."""

    slots: int
    folder: str | None

    def submit(self, task: Task) -> Outcome:
        """Run a step, now or later; its outcome is an exception where the process died."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop what runs."""
        ...


class InProcess:
    """One step after another, here."""

    slots = 1
    folder: str | None = None

    def submit(self, task: Task) -> Outcome:
        outcome: Outcome = Future()
        outcome.set_result(perform(task))
        return outcome

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


def executor_for(on: On = "processes", jobs: int = 1, threads: int = 1) -> Executor:
    """``jobs`` processes, one of them being this one; or Ray, on which each step asks for ``threads`` cores.

    Raises
    ------
    EnvironmentProblem
        Ray is not installed, or cannot be reached.
    """
    if jobs < 1:
        raise UsageError(f"building a portfolio: --jobs cannot be {jobs}", hint="1 or more")
    if on == "ray":
        from .on_ray import OnRay

        return OnRay(threads)
    if on != "processes":
        raise UsageError(f"building a portfolio: --on cannot be {on!r}", hint="processes, or ray")
    if jobs == 1:
        return InProcess()
    from .processes import Processes

    return Processes(jobs)
