"""The state to rewind to: that after step k of a training, where k may be a share of steps that nobody has counted.

A step that is given is simply kept.  For a share f of the steps, states are kept at steps that grow by a constant
factor, and those that can no longer be nearest to f of the steps so far are let go: about 16 are held at a time,
however long the training, and the one that is taken is within about 7 % of the step asked for (f = 0.1).  The step that
it really is stands in the facts.  Start at :func:`recorder`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ..ir.errors import UsageError
from .tensors import State

_HELD = 16
"""Snapshots in the part of the training in which the step may still lie."""


class Recorder(Protocol):
    """Sees the state after each step, step 0 too, and says in the end which one was to be kept."""

    def see(self, step: int, state: Callable[[], State]) -> None:
        """``step`` is over; ``state`` gives a copy."""
        ...

    def chosen(self, total: int) -> tuple[int, State]:
        """The step and its state, now that there were ``total`` steps."""
        ...


def recorder(rewind: float) -> Recorder:
    """What keeps the state of ``rewind``: a step, or a share of the steps below 1."""
    return AtShare(rewind) if 0 < rewind < 1 else AtStep(int(rewind))


class AtStep:
    """Keeps the state after one step."""

    def __init__(self, step: int) -> None:
        self.step = step
        self.state: State | None = None

    def see(self, step: int, state: Callable[[], State]) -> None:
        if step == self.step:
            self.state = state()

    def chosen(self, total: int) -> tuple[int, State]:
        """As in :class:`Recorder`; raises :class:`UsageError` where the training was too short."""
        if self.state is None:
            raise UsageError(
                f"rewinding to step {self.step}: the dense training took {total} optimizer steps",
                hint=f"--rewind 0.1 (a share of the steps), or a step from 0 to {total}",
            )
        return self.step, self.state


class AtShare:
    """Keeps states of which one is near ``share`` of the steps, however many there will be."""

    def __init__(self, share: float) -> None:
        self.share = share
        self.factor = (1 / share) ** (1 / _HELD)
        self.states: dict[int, State] = {}

    def see(self, step: int, state: Callable[[], State]) -> None:
        if step and self.states and step < max(self.states) * self.factor:
            return
        self.states[step] = state()
        below = [k for k in self.states if k <= self.share * step]
        for k in below[:-1]:
            del self.states[k]

    def chosen(self, total: int) -> tuple[int, State]:
        step = min(self.states, key=lambda k: (abs(k - self.share * total), k))
        return step, self.states[step]
