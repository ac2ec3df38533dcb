"""Variants that are open, one of which answers, within a budget of memory.

Two locks: a short one around what is open and which one answers, under which nothing is ever loaded, so that a switch
between open variants waits for nobody; and a long one, so that one variant is loaded at a time.  A variant that is
closed ends once the runs that are on it have ended: each run holds what it began on.  Start at
:meth:`Residents.activate`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from ..ir.errors import UsageError
from .opened import Opened


class Residents:
    """Open variants; those that were used last stand last.

    Parameters
    ----------
    load
        Opens the variant of a name; ``warm`` (its second argument): and runs it once.
    holds
        Private bytes that a variant takes.
    budget
        What they may take together; None: no limit.  While one takes the place of another both are open.
    """

    def __init__(
        self, load: Callable[[str, bool], Opened], holds: Callable[[str], int], budget: int | None = None
    ) -> None:
        self._load, self._holds, self._budget = load, holds, budget
        self._opened: dict[str, Opened] = {}
        self._active: Opened | None = None
        self._now, self._loading = threading.Lock(), threading.Lock()

    @property
    def active(self) -> Opened:
        """The variant that answers."""
        assert self._active is not None, "one is activated before anything is run"
        return self._active

    @property
    def names(self) -> tuple[str, ...]:
        """What is open."""
        with self._now:
            return tuple(self._opened)

    def activate(self, name: str, *, warm: bool = True) -> str:
        """Have ``name`` answer, opened first if it is not; returns the name of the one before.

        Raises
        ------
        UsageError
            It takes more memory than all together may.
        ModelError
            It cannot be opened; the one before goes on answering.
        """
        with self._now:
            if name in self._opened:
                return self._answers(self._opened[name])
        if not self.fits(name):
            raise UsageError(
                f"variant {name} takes {self._holds(name):,} bytes, and {self._budget:,} are allowed",
                hint="allow more, or choose a smaller variant", name=name,
            )  # fmt: skip
        with self._loading:
            opened = self._open(name, warm)
            with self._now:
                before = self._answers(opened)
                self._close_for(0)
            return before

    def get(self, name: str) -> Opened:
        """The variant ``name`` beside the one that answers, opened if it is not; raises as :meth:`activate`."""
        with self._now:
            if name in self._opened:
                return self._last(self._opened[name])
        with self._loading:
            left = None if self._budget is None else self._budget - self._holds(self.active.name)
            if left is not None and self._holds(name) > left and name != self.active.name:
                raise UsageError(
                    f"variant {name} takes {self._holds(name):,} bytes, and {left:,} are left beside "
                    f"{self.active.name}, which answers",
                    hint="switch to it, or allow more", name=name,
                )  # fmt: skip
            opened = self._open(name, False)
            with self._now:
                return self._last(opened)

    def open_if_it_fits(self, name: str) -> None:
        """Open ``name``, and run it once, where no other has to be closed for it."""
        if self._budget is None or sum(map(self._holds, {*self.names, name})) <= self._budget:
            with self._loading:
                opened = self._open(name, True)
                with self._now:
                    self._last(opened)

    def close(self, name: str) -> bool:
        """Close a variant; False where it answers, or is not open.  Runs that are on it go on."""
        with self._now:
            if self._active is not None and self._active.name == name:
                return False
            return self._opened.pop(name, None) is not None

    def fits(self, name: str) -> bool:
        """Whether a variant can be open at all."""
        return self._budget is None or self._holds(name) <= self._budget

    def _open(self, name: str, warm: bool) -> Opened:
        """The variant, which another thread may have opened meanwhile."""
        with self._now:
            if name in self._opened:
                return self._opened[name]
            self._close_for(self._holds(name))
        return self._load(name, warm)

    def _answers(self, opened: Opened) -> str:
        before, self._active = self._active or opened, opened
        self._last(opened)
        return before.name

    def _last(self, opened: Opened) -> Opened:
        self._opened.pop(opened.name, None)
        self._opened[opened.name] = opened
        return opened

    def _close_for(self, more: int) -> None:
        """Close those unused for longest, but for the one that answers, until ``more`` bytes fit beside the others."""
        for name in list(self._opened):
            if self._budget is None or sum(map(self._holds, self._opened)) + more <= self._budget:
                return
            if name != self.active.name:
                del self._opened[name]
