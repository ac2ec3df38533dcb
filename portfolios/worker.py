"""What runs one step, in whichever process: plugins loaded, surroundings set, errors as words.

A task names its step, which may be of a plugin that has to be loaded first.  An error comes back as its kind and its
texts, for what it holds may not exist where it is shown.  Start at :func:`perform`.
"""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass

from ..ir import errors
from ..ir.errors import BudgetError, PrunecError, first_line
from ..plugins import load as load_plugins
from ..version import __version__
from .job import Job
from .method import find_method
from .step import ENDED, Files, Step


@dataclass(frozen=True)
class Task:
    """The step of a job with that name, and the files of those before it; run in ``folder`` (None: wherever it is)."""

    job: Job
    step: str
    before: Mapping[str, Files]
    folder: str | None
    version: str = __version__


@dataclass(frozen=True)
class Done:
    """What a step made, and how long it took."""

    files: Files
    seconds: float


@dataclass(frozen=True)
class Failed:
    """An error: the name of its class, its texts, and where it was raised."""

    kind: str
    message: str
    hint: str
    trace: str

    def error(self) -> PrunecError:
        """The error, to be raised here."""
        found: PrunecError = getattr(errors, self.kind)(self.message, hint=self.hint)
        found.add_note(self.trace)
        return found


def perform(task: Task) -> Done | Failed:
    """Run a step, once the plugins of its job are loaded."""
    name = task.step
    try:
        load_plugins(task.job.plugins)
        (step,) = (s for s in find_method(task.job.method or "").steps(task.job) if s.name == name)
        return _run(task, step)
    except PrunecError as error:
        kind = next(c.__name__ for c in type(error).__mro__ if getattr(errors, c.__name__, None) is c)
        return Failed(kind, f"building {name}: {error.message}", error.hint, traceback.format_exc())
    except Exception as error:
        said = f"building {name}: {type(error).__name__}: {first_line(error)}"
        return Failed("PassError", said, "this is a bug in prunec; --debug shows where", traceback.format_exc())


def _run(task: Task, step: Step) -> Done:
    from .surroundings import surroundings

    if task.version != __version__:
        raise errors.EnvironmentProblem(
            f"prunec is {__version__} here, and {task.version} where the build runs",
            hint="install the same version on all machines",
        )
    start = time.perf_counter()
    with surroundings(task.job):
        if task.folder is not None and os.path.isdir(task.folder):
            os.chdir(task.folder)
        try:
            files = step.run(task.job, task.before)
        except BudgetError as error:
            files = {ENDED: error.message.encode()}
    return Done(files, time.perf_counter() - start)
