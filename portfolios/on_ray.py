"""Steps on Ray: on the cores of this machine, or on the machines of a cluster.

Without an address Ray starts here, and steps run in the current folder.  With one (``RAY_ADDRESS``) the
current folder is sent along, so that sources and functions are found as they are here, and prunec has to be installed
on those machines in the same version; files named by absolute paths have to be there already.  A program that has
started Ray itself sees to the files by itself.
"""

from __future__ import annotations

import os
from types import TracebackType
from typing import Any, Self

from ..ir.errors import EnvironmentProblem, first_line
from .executor import Outcome
from .worker import Task, perform

ADDRESS = "RAY_ADDRESS"
_RETRIES = 1
"""A step may be done twice: a machine that is lost costs no more than that."""


class OnRay:
    """As many steps at a time as Ray has cores for, ``threads`` for each."""

    def __init__(self, threads: int) -> None:
        self.ray = _imported()
        self.mine = not self.ray.is_initialized()
        self.folder = None if ADDRESS in os.environ else os.getcwd()
        if self.mine:
            _start(self.ray, self.folder is None)
        cores = int(self.ray.cluster_resources().get("CPU", 1))
        self.slots = max(1, cores // threads)
        options = {"num_cpus": min(threads, cores), "max_retries": _RETRIES, "max_calls": 1}  # a process for each step
        self._perform = self.ray.remote(**options)(perform)
        self._running: list[Any] = []

    def submit(self, task: Task) -> Outcome:
        reference = self._perform.remote(task)
        self._running.append(reference)
        outcome: Outcome = reference.future()
        return outcome

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            for reference in self._running:
                self.ray.cancel(reference, force=True)
        if self.mine:
            self.ray.shutdown()


def _imported() -> Any:
    try:
        import ray
    except ImportError as error:
        raise EnvironmentProblem(
            f"building on Ray: it is not installed: {first_line(error)}",
            hint="pip install 'prunec[ray]'; or leave --on ray away, and give --jobs for processes of this machine",
        ) from error
    return ray


def _start(ray: Any, cluster: bool) -> None:
    here = {"address": "local", "include_dashboard": False}  # not one that somebody else has left running
    there = {"runtime_env": {"working_dir": os.getcwd()}}
    try:
        ray.init(logging_level="warning", **(there if cluster else here))
    except Exception as error:  # whatever stands between here and a cluster
        raise EnvironmentProblem(
            f"building on Ray: it does not start: {type(error).__name__}: {first_line(error)}",
            hint=f"set {ADDRESS} to the address of a cluster (ray start prints it; auto: one that runs here), or unset "
            "it to start Ray here",
        ) from error
