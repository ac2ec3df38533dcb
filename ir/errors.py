"""Every error that prunec raises, and the exit code that the command gives for it.

A message has four parts: what was being done, on what, what was found, what the user can do.  Errors carry
their data as attributes, so that a caller need not parse text.
"""

from __future__ import annotations

import re
from typing import Any


class PrunecError(Exception):
    """The root of all errors that prunec raises on purpose.

    Parameters
    ----------
    message
        What was being done, on what, and what was found.
    hint
        What the user can do about it; printed on its own line.
    data
        Facts behind the message (node, axis, sizes), kept as ``error.data``.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "", **data: Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.data = data

    def __str__(self) -> str:
        return f"{self.message}\n  hint: {self.hint}" if self.hint else self.message


class UsageError(PrunecError):
    """An option, pipeline, recipe or argument that makes no sense (exit code 2)."""

    exit_code = 2


class ModelError(PrunecError):
    """A model that cannot be read or is not supported (exit code 3)."""

    exit_code = 3


class EndlessRun(ModelError):
    """A run of a model that was given up because it did not end in time."""


class VerificationError(PrunecError):
    """The compact graph does not equal the masked dense graph (exit code 4)."""

    exit_code = 4


class BudgetError(PrunecError):
    """No plan meets the budget under the constraints (exit code 5)."""

    exit_code = 5


class PassError(PrunecError):
    """A pass crashed; ``reproducer`` says how to see it again (exit code 6)."""

    exit_code = 6


class EnvironmentProblem(PrunecError):
    """Something outside the model is missing: a package, a folder, a permission (exit code 7)."""

    exit_code = 7


_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def first_line(error: BaseException) -> str:
    """The first line of an error's message that says something, without colours; its type's name where none does."""
    lines = _COLOURS.sub("", str(error)).splitlines()
    return next((line.strip() for line in lines if line.strip()), type(error).__name__)


class Declined(Exception):
    """An op rule that cannot say what happens to the axes: the node is pinned and reported, never guessed."""
