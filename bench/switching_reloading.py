"""What one does without a portfolio: a session of a plain file, and another one for another variant."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnxruntime as ort

try:
    from prunec.runtime.portfolio import Portfolio, Switch
except ImportError:  # a bare clone: the root of the repository is the package
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / ".dev"))
    from prunec.runtime.portfolio import Portfolio, Switch

from prunec.runtime.feeds import checked
from prunec.runtime.guard import Guard
from prunec.runtime.manifest import Manifest
from prunec.runtime.opened import Answer


class Reloading(Portfolio):
    """The variants of the portfolio in ``folder``, run from the plain files in ``plain``.

    A switch drops the session and makes another, of ONNX Runtime's defaults but for ``threads``, as many as a portfolio
    has; requests wait meanwhile.
    """

    def __init__(self, folder: Path, plain: Path, first: str, threads: int) -> None:
        manifest = Manifest.read(folder)
        super().__init__(folder, manifest, Guard(manifest.pack, ()), threads, None)
        self._plain, self._turn, self._name = plain, threading.Lock(), first
        self._options = ort.SessionOptions()
        self._options.intra_op_num_threads = threads
        self._session: Any = self._made(first)

    @property
    def active(self) -> str:
        """The variant that answers."""
        return self._name

    def run(self, inputs: Any, outputs: Sequence[str] | None = None, *, variant: str | None = None) -> Answer:
        """Outputs by name of the session that there is."""
        feeds = checked(inputs, self.inputs)
        names = list(outputs or [o.name for o in self.outputs])
        with self._turn:
            start = time.perf_counter()
            found = self._session.run(names, feeds)
            answer = Answer(dict(zip(names, found)), self._name, time.perf_counter() - start)
        self.timings[answer.variant].append((time.monotonic(), answer.seconds))
        return answer

    def switch(self, name: str, *, why: str = "asked for", warm: bool = True) -> Switch:
        """Drop the session, and make one of ``name``; nothing is warm here."""
        with self._turn:
            start, before = time.perf_counter(), self._name
            if name != before:
                self._session = None
                self._session, self._name = self._made(name), name
            done = Switch(time.time(), before, name, time.perf_counter() - start, why)
        if name != before:
            self.switches.append(done)
            self.switched[before, name] += 1
        return done

    def _made(self, name: str) -> Any:
        return ort.InferenceSession(str(self._plain / f"{name}.onnx"), self._options)
