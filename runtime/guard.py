"""The guard of a portfolio that is open: its tensors are mapped from a file, so that who changes the file changes them.

The file's size and time of change are asked before each run, which costs a microsecond; where they are others than when
the tensors were checked, they are checked again.  So a damaged weight is an error and never a wrong answer.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable

from ..ir.errors import ModelError
from .pack import AGAIN, Pack


class Guard:
    """Watches the tensors ``names`` of ``pack``, which it checks at once.

    Raises
    ------
    ModelError
        They are not as they were stored.
    """

    def __init__(self, pack: Pack, names: Iterable[str]) -> None:
        self._pack, self._names = pack, set(names)
        self._lock = threading.Lock()
        try:
            self._file = pack.path.open("rb")
        except OSError as error:
            raise ModelError(f"cannot read {pack.path}: {error.strerror or error}", hint=AGAIN) from error
        self._seen: tuple[int, int] | None = None
        try:
            self.check()
        except ModelError:
            self.close()
            raise

    def check(self) -> None:
        """Raise :class:`ModelError` where the tensors are no longer those that were stored."""
        if self._stamp() == self._seen:
            return
        with self._lock:
            stamp = self._stamp()
            if stamp != self._seen:
                self._pack.check(self._names, self._file)
                self._seen = stamp

    def close(self) -> None:
        """Watch no longer."""
        self._file.close()

    def _stamp(self) -> tuple[int, int]:
        found = os.fstat(self._file.fileno())
        return found.st_size, found.st_mtime_ns
