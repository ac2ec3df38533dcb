"""The guard of a portfolio that is open: its tensors are mapped from a file, so that who changes the file changes them.

The file's size and times of change are asked before and after each run, which costs microseconds; where they are others
than when the tensors were checked, they are checked again.  So a damaged weight is an error and never a wrong answer.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable

from ..ir.errors import ModelError, UsageError
from .pack import AGAIN, Pack, opened_plainly


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
            self._file = opened_plainly(pack.path)
        except OSError as error:
            raise ModelError(f"cannot read {pack.path}: {error.strerror or error}", hint=AGAIN) from error
        self._seen: tuple[int, ...] | None = None
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

    def check_name(self) -> None:
        """Raise :class:`ModelError` where the name of the file stands for another one by now."""
        try:
            same = os.path.samestat(self._pack.path.stat(), os.fstat(self._file.fileno()))
        except OSError:
            same = False
        if not same:
            raise ModelError(
                f"{self._pack.path} is not the file any more that it was when the portfolio was opened",
                hint="another process replaced it: open the portfolio again", path=str(self._pack.path),
            )  # fmt: skip

    def close(self) -> None:
        """Watch no longer."""
        self._file.close()

    def _stamp(self) -> tuple[int, ...]:
        if self._file.closed:
            raise UsageError("the portfolio was closed", hint="open it again")
        found = os.fstat(self._file.fileno())
        return found.st_size, found.st_mtime_ns, found.st_ctime_ns
