"""Child processes that compile hostile files: one that dies or hangs is replaced, and its file is a finding.

Start at :class:`Workers`.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import prunec

HUNG_S = 60.0
"""Seconds after which a file hangs; the healthy ones take a fraction of one, machines may be busy."""

_CHILD = Path(__file__).with_name("compiling.py")
_HOME = str(Path(prunec.__file__).parent.parent)


@dataclass
class Outcome:
    """What became of the file ``job``: ``what`` is compiled, refused, wrong, crashed, memory, died or hung."""

    job: Path
    what: str
    message: str = ""
    code: int = 0
    seconds: float = 0.0
    trace: str = ""


class _Child:
    def __init__(self, number: int) -> None:
        here = os.pathsep.join([_HOME, *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = {**os.environ, "PYTHONPATH": here, "OMP_NUM_THREADS": "1"}
        self.number, self.job, self.started, self.pending = number, None, 0.0, b""
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(_CHILD), str(number)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, bufsize=0,
        )  # fmt: skip

    job: Path | None

    def give(self, job: Path) -> None:
        self.job, self.started = job, time.monotonic()
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(str(job)).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # it has died: the end of its answers says so

    def answer(self) -> Outcome | None:
        """The outcome of the job, None while the answer is not whole."""
        assert self.process.stdout is not None and self.job is not None
        chunk = os.read(self.process.stdout.fileno(), 1 << 20)
        self.pending += chunk
        if not chunk:
            return self._ended("died", f"with signal {-self.process.wait()}")
        if not self.pending.endswith(b"\n"):
            return None
        found, self.pending = json.loads(self.pending), b""
        return self._outcome(found)

    def overdue(self) -> Outcome | None:
        if self.job is None or time.monotonic() - self.started < HUNG_S:
            return None
        return self._ended("hung", f"after {HUNG_S:g} s")

    def _outcome(self, found: dict[str, Any]) -> Outcome:
        assert self.job is not None
        seconds = time.monotonic() - self.started
        job, self.job = self.job, None
        return Outcome(job, found["what"], found["message"], found.get("code", 0), seconds, found.get("trace", ""))

    def _ended(self, what: str, how: str) -> Outcome:
        self.end()
        return self._outcome({"what": what, "message": how})

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


@dataclass
class Workers:
    """So many child processes; a context that ends them."""

    count: int = 2
    children: list[_Child] = field(default_factory=list)

    def __enter__(self) -> Workers:
        self.children = [_Child(k) for k in range(self.count)]
        return self

    def __exit__(self, *error: object) -> None:
        for child in self.children:
            child.end()

    def outcomes(self, jobs: Iterable[Path]) -> Iterator[Outcome]:
        """What became of each file, as it becomes known."""
        waiting = iter(jobs)
        for child in self.children:
            self._next(child, waiting)
        while any(c.job is not None for c in self.children):
            yield from self._turn(waiting)

    def _turn(self, waiting: Iterator[Path]) -> Iterator[Outcome]:
        with selectors.DefaultSelector() as selector:
            for child in self.children:
                if child.job is not None and child.process.stdout is not None:
                    selector.register(child.process.stdout, selectors.EVENT_READ, child)
            ready = [key.data for key, _ in selector.select(timeout=1.0)]
        for k, child in enumerate(self.children):
            found = child.answer() if child in ready else child.overdue()
            if found is None:
                continue
            if child.process.poll() is not None:
                self.children[k] = child = _Child(child.number)
            self._next(child, waiting)
            yield found

    def _next(self, child: _Child, waiting: Iterator[Path]) -> None:
        job = next(waiting, None)
        if job is not None:
            child.give(job)
