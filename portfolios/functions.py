"""The user's functions: one trains a network, one says how good it is.

The convention is two names beside the factory of the source, in the same file or module::

    def model(): ...                  # examples/net.py:model
    def fit(model): ...               # trains it, in place; the loop is the user's own
    def evaluate(model): ...          # a number, higher is better

``fit`` may take two keywords more, and gets them where it does: ``start``, how many optimizer steps the network has
behind it, for schedules that go on from there; ``after_epoch``, to be called after each epoch.  Other names, or other
files, are options.  ``fit`` gets a module in training mode, ``evaluate`` one in evaluation mode;
where the source is an ONNX file, the path of one.

Both keep no state between calls.  Random numbers start anew before each (Python's, numpy's and torch's own), but what a
module holds, as a generator that it made when it was imported, goes on from step to step where steps share a process
(``--jobs 1``), and starts anew in a build that goes on.  Make such a thing inside of the function.

Start at :func:`function_at` and :class:`Function`.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from ..ir.errors import BudgetError, ModelError, PrunecError, UsageError, first_line
from ..ir.modules import load_module
from ..ir.words import did_you_mean
from ..sources import ZOOS

FIT, EVALUATE = "fit", "evaluate"
OFFERED = ("start", "after_epoch")
_KEPT = "what is finished is kept, as long as this file stays as it is; --debug shows where it failed"
_COMPACT = (
    "a compact network has parameters and forward alone: write the loss outside of the class, or --of elements; "
    "--debug shows where it failed"
)
_FORM = "FILE.py:function or package.module:function"


@dataclass(frozen=True)
class Function:
    """A function of the user's: ``text`` says where it is from, ``takes`` which of :data:`OFFERED` it takes."""

    text: str
    call: Callable[..., Any]
    takes: frozenset[str] = frozenset()

    def __call__(self, model: Any, **offered: Any) -> Any:
        """What it returns for ``model``, given what it takes of what is ``offered``.

        Raises
        ------
        ModelError
            It failed.
        """
        try:
            return self.call(model, **{name: value for name, value in offered.items() if name in self.takes})
        except (Exception, SystemExit) as error:
            # a budget that cannot be met in there is no end of the levels
            if isinstance(error, PrunecError) and not isinstance(error, BudgetError):
                raise
            raise ModelError(
                f"{self.text} failed: {type(error).__name__}: {first_line(error)}",
                hint=_COMPACT if isinstance(error, AttributeError) and _is_compact(model) else _KEPT,
                function=self.text,
            ) from error

    def measured(self, model: Any) -> float:
        """The finite number that it says of ``model``."""
        said = self(model)
        try:
            number = float(said)
        except (TypeError, ValueError) as error:
            raise UsageError(
                f"{self.text} returned a {type(said).__name__}, no number", hint="return a float"
            ) from error
        if not math.isfinite(number):
            raise UsageError(f"{self.text} returned {number}", hint="return a finite number, higher is better")
        return number


def _is_compact(model: Any) -> bool:
    from torch.fx import GraphModule

    return isinstance(model, GraphModule)


def beside(source: str, name: str) -> str | None:
    """The text of the function ``name`` in the file or module of the factory ``source``; None without one."""
    home, _, factory = source.rpartition(":")
    if not home or not factory or home in ZOOS:
        return None
    there = callable(getattr(_module(home, source), name, None))
    return f"{home}:{name}" if there else None


def function_at(text: str, option: str) -> Function:
    """The function that ``text`` names.

    Raises
    ------
    UsageError
        There is none, or it needs more arguments than the model.
    """
    home, _, name = text.rpartition(":")
    if not home or not name:
        raise UsageError(f"building a portfolio: {option} {text!r} names no function", hint=f"write {_FORM}")
    module = _module(home, text)
    function = getattr(module, name, None)
    if not callable(function):
        known = [n for n, item in vars(module).items() if inspect.isfunction(item)]
        hint = did_you_mean(name, known, f"functions in it: {', '.join(known) or 'none'}")
        raise UsageError(f"building a portfolio: {option}: {home} has no function {name!r}", hint=hint)
    return Function(text, function, _taken(function, text, option))


def _taken(function: Callable[..., Any], text: str, option: str) -> frozenset[str]:
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except ValueError:  # some built-in functions do not tell
        return frozenset()
    required = [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    missing = [name for name in required[1:] if name not in OFFERED]
    if not parameters or missing:
        needs = f"needs {', '.join(missing)} as well" if missing else "takes no argument"
        raise UsageError(
            f"building a portfolio: {option}: {text} {needs}",
            hint=f"it is called with the model alone, and with {' and '.join(OFFERED)} where it takes them",
        )
    return frozenset(p.name for p in parameters[1:] if p.name in OFFERED)


def _module(home: str, text: str) -> ModuleType:
    try:
        return load_module(home)
    except (Exception, SystemExit) as error:
        raise ModelError(
            f"building a portfolio: cannot import {home!r} of {text}: {type(error).__name__}: {first_line(error)}",
            hint=f"give {_FORM}, as found from the current folder; --debug shows where it failed",
        ) from error
