"""Does ONNX Runtime run a model, at which sizes of its open axes?  Asked of another process.

Some models crash the runtime, or loop for ever, at inputs that are too small for them or because the file is hostile.
One worker serves the whole program; it is started when it is first needed, and again after a crash.  Where no process
can be started nothing is learned, and the model counts as one that runs.  Start at :func:`trial`.
"""

from __future__ import annotations

import atexit
import json
import math
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from selectors import EVENT_READ, DefaultSelector
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from ..emit import onnx_run
from ..errors import first_line
from .onnx_facts import part_of
from .onnx_file import Tensors, load_tensor
from .onnx_sizes import Sizes
from .onnx_tensors import byte_count

Array = NDArray[Any]

_LARGEST_INPUTS = 1 << 22
_LARGEST_MODEL, _LARGE_MODEL = 1 << 30, 1 << 26
_CRASHES = 0xC0000000
"""Exit codes from here on are crashes on Windows; elsewhere a crash is a signal."""

_SENT = frozenset({"SIGHUP", "SIGINT", "SIGKILL", "SIGTERM"})
"""Signals that come from outside: of those no model is the cause."""

_START_S = 120.0
_WORKER = Path(__file__).with_name("onnx_trial_worker.py")


class Crashed(Exception):
    """The model ended the process that ran it."""


class Endless(Exception):
    """The model ran for longer than :data:`~..emit.onnx_run.LIMIT_S`."""


class _Worker:
    """The process, and one conversation with it at a time."""

    current: ClassVar[_Worker | None] = None
    lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(_WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            text=True,
        )
        self.owner = os.getpid()
        self.opened: Trial | None = None
        if not self._line(_START_S):
            self._end()
            raise OSError("the process for trials did not start")

    @classmethod
    def asked(cls, trial: Trial, sizes: Sizes) -> str | None:
        """What the worker answers: None where the model ran, else what went wrong."""
        with cls.lock:
            worker = cls.current
            if worker is None or worker.owner != os.getpid() or worker.process.poll() is not None:
                worker = cls.current = cls()
            question = {**trial.question(sizes), "open": None if worker.opened is trial else str(trial.model)}
            worker.opened = trial
            return worker._ask(question)

    @classmethod
    def stop(cls) -> None:
        with cls.lock:
            worker, cls.current = cls.current, None
        if worker is not None and worker.owner == os.getpid():
            worker._end()

    def _ask(self, question: Mapping[str, Any]) -> str | None:
        assert self.process.stdin is not None
        answer = ""
        try:
            self.process.stdin.write(json.dumps(question) + "\n")
            self.process.stdin.flush()
            answer = self._line(onnx_run.LIMIT_S)
        except OSError:
            pass  # it is gone: there is no answer
        except BaseException:  # interrupted: the answer still to come is to no later question
            self._end()
            raise
        if answer:
            why: str | None = json.loads(answer)["why"]
            return why
        raise self._cause()

    def _line(self, limit_s: float) -> str:
        """The next line of the process; empty where none comes in time."""
        pipe = self.process.stdout
        assert pipe is not None
        if os.name == "posix":  # elsewhere pipes cannot be waited for
            with DefaultSelector() as selector:
                selector.register(pipe, EVENT_READ)
                if not selector.select(limit_s):
                    return ""
        return pipe.readline()

    def _cause(self) -> Exception:
        """Why there was no answer; an :class:`OSError` for a process that ended by itself, which no model did to it."""
        try:
            code = self.process.wait(1.0)
        except subprocess.TimeoutExpired:
            return Endless()
        finally:
            self._end()
        if 0 <= code < _CRASHES or (code < 0 and signal.Signals(-code).name in _SENT):
            return OSError(f"the process for trials ended with {code}")
        return Crashed((code < 0 and signal.strsignal(-code)) or f"exit code {code}")

    def _end(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()


atexit.register(_Worker.stop)


class Trial:
    """A model in a file, tried at one choice of sizes after the other; without a file it counts as one that runs.

    ``crash`` says how the runtime ended, and at which sizes, where it crashed.
    """

    def __init__(self, model: Path | None, examples: Path | None = None, names: Sequence[str] = ()) -> None:
        self.model = None if model is None else model.resolve()
        self.examples, self.names = examples, list(names)
        self.crash: tuple[str, Sizes] | None = None
        self._failed = False

    def runs(self, sizes: Sizes) -> bool:
        """Whether the model runs on inputs of ``sizes``.

        Inputs that are too large to try count as those that it runs on, unless smaller ones failed.

        Raises
        ------
        Endless
            The run did not end.
        """
        if self.model is None:
            return True
        if sum(map(math.prod, sizes.values())) > _LARGEST_INPUTS:
            return not self._failed
        try:
            ran = _Worker.asked(self, sizes) is None
        except Crashed as ended:
            self.crash, ran = self.crash or (first_line(ended), sizes), False
        except OSError:  # no process can be started: nothing is known
            ran = True
        self._failed |= not ran
        return ran

    def question(self, sizes: Sizes) -> dict[str, Any]:
        """What the worker is asked; see ``onnx_trial_worker.py``."""
        examples = None if self.examples is None else str(self.examples)
        return {"sizes": sizes, "examples": examples, "names": self.names}


@contextmanager
def trial(
    slim: ModelProto, stored: Tensors, path: Path | None, file: Path | None, given: Mapping[str, Array]
) -> Iterator[Trial]:
    """The model whose tensors are ``stored``, ready to be tried.

    ``file`` holds that very model, where there is one; ``path`` is what external tensors lie beside.
    """
    size = sum(byte_count(t, "a tensor") or 0 for t in stored.values())
    if size > _LARGEST_MODEL or not sys.executable or getattr(sys, "frozen", False):  # no Python to run a file with
        yield Trial(None)
        return
    with TemporaryDirectory(prefix="prunec-") as folder:
        try:
            model = file or _written(slim, stored, path, Path(folder))
            plain = {k: x for k, x in given.items() if x.dtype.kind in "biuf"}
            examples = Path(folder, "examples.npz") if plain else None
            if examples is not None:
                np.savez(examples, **{f"x{k}": x for k, x in enumerate(plain.values())})  # type: ignore[arg-type]
            ready = Trial(model, examples, list(plain))
        except OSError:  # no room to write to
            ready = Trial(None)
        yield ready
        if size > _LARGE_MODEL:
            _Worker.stop()  # it holds the weights


def _written(slim: ModelProto, stored: Tensors, path: Path | None, folder: Path) -> Path:
    """The model in a file of its own, tensors and all."""
    whole = part_of(slim, slim.graph.node, {name: load_tensor(tensor, path) for name, tensor in stored.items()})
    whole.graph.input.extend(v for v in slim.graph.input if v.name not in stored)
    whole.graph.output.extend(slim.graph.output)
    file = folder / "model.onnx"
    file.write_bytes(whole.SerializeToString())
    return file
