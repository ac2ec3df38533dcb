"""The registry of methods: how the levels of a portfolio are made.

A method is a function from a job to its steps; decorate it with :func:`method` and it is known to the command and in
its help.  Its docstring is that help.  Methods are in ``methods/``, one a file.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ..ir.errors import UsageError
from ..ir.words import did_you_mean
from .job import Job, Of
from .step import Step

Trains = Literal["always", "if it can"]


@dataclass(frozen=True)
class Method:
    """A way to make levels.

    Attributes
    ----------
    steps
        The steps of a job, each after those that it needs.
    of
        What it can prune.
    trains
        Whether it needs a training function.
    takes
        Keywords that the training function has to take.
    nests
        Whether it can make levels that are prefixes of the dense network.
    """

    name: str
    steps: Callable[[Job], list[Step]]
    of: tuple[Of, ...]
    trains: Trains
    takes: tuple[str, ...]
    nests: bool

    @property
    def help(self) -> str:
        """What it does."""
        return inspect.getdoc(self.steps) or ""


METHODS: dict[str, Method] = {}


def method(
    name: str,
    *,
    of: tuple[Of, ...] = ("channels", "elements"),
    trains: Trains = "always",
    takes: tuple[str, ...] = (),
    nests: bool = False,
) -> Callable[[Callable[[Job], list[Step]]], Callable[[Job], list[Step]]]:
    """Enter a method into the registry; raises ``ValueError`` for a name that is taken."""

    def enter(steps: Callable[[Job], list[Step]]) -> Callable[[Job], list[Step]]:
        if name in METHODS:
            raise ValueError(f"two methods are named {name!r}")
        METHODS[name] = Method(name, steps, of, trains, takes, nests)
        return steps

    return enter


def find_method(name: str) -> Method:
    """The method called ``name``; raises :class:`UsageError` that lists the known ones."""
    if name not in METHODS:
        known = f"known methods: {', '.join(sorted(METHODS))}"
        raise UsageError(f"building a portfolio: unknown method {name!r}", hint=did_you_mean(name, METHODS, known))
    return METHODS[name]
