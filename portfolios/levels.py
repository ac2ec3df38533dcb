"""The levels of a job: steps run as soon as what they need is there, each outcome is kept at once, and none done twice.

Start at :func:`build_levels`.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, wait
from dataclasses import asdict
from pathlib import Path

from ..ir.errors import EnvironmentProblem, first_line
from .built import Built
from .executor import Executor, Outcome
from .identity import digested, identity
from .job import Job
from .method import find_method
from .outcomes import Outcomes, is_made
from .resolve import resolved
from .step import Files, Step
from .work import Record, Work
from .worker import Failed, Task

Tell = Callable[[str, str], None]
"""Progress: gets the name of a step and what is the matter with it; ``note`` for what is worth a word."""


def build_levels(job: Job, work: Path, executor: Executor, progress: Tell | None = None) -> list[Built]:
    """Build ``dense`` and the levels of ``job`` in the folder ``work``, and return those that could be made, in order.

    What is finished in ``work``, by this job or by one with other levels, is taken from there.
    ``executor`` is used up.

    Raises
    ------
    UsageError, ModelError, VerificationError, PassError, EnvironmentProblem
        The job makes no sense, a step failed, a file changed meanwhile, or a process died; what was finished before is
        kept.
    BudgetError
        Not even the dense network could be made.
    """
    with executor:
        job, folder = resolved(job), Work(work)
        with folder.locked():
            return Build(job, folder, executor, progress or (lambda stage, detail: None)).run()


class Build:
    """One build while it runs.

    ``records`` are the finished steps by name; ``notes`` what is worth a word of each.
    """

    def __init__(self, job: Job, work: Work, executor: Executor, tell: Tell) -> None:
        self.job, self.work, self.executor, self.tell = job, work, executor, tell
        self.steps = {step.name: step for step in find_method(job.method or "").steps(job)}
        self.records: dict[str, Record] = {}
        self.notes: dict[str, list[str]] = {}
        self._identities = {evaluates: identity(job, evaluates=evaluates) for evaluates in (False, True)}
        self._running: dict[Outcome, Step] = {}
        self._met: set[str] = set()

    def run(self) -> list[Built]:
        """Do what is not done."""
        self._start()
        while self._running:
            ended = wait(self._running, return_when=FIRST_COMPLETED).done
            failures = [found for outcome in ended if (found := self._finish(self._running.pop(outcome), outcome))]
            if failures:
                raise failures[0]
            self._start()
        outcomes = Outcomes(self.job, self.work, self.steps, self.records, self.notes)
        for note in outcomes.ended():
            self.tell("note", note)
        return outcomes.built()

    def _start(self) -> None:
        """Take from the work folder what is there, and start what can be, as long as there is room."""
        while (step := self._next()) is not None:
            self._met.add(step.name)
            held = self.work.held(step.name, self._key(step))
            if isinstance(held, Record):
                self.tell(step.name, "is there already")
                self.records[step.name] = held
                continue
            if held is not None:
                self._note(step.name, held)
            self.tell(step.name, "starts")
            self._running[self.executor.submit(self._task(step))] = step

    def _next(self) -> Step | None:
        """The first step that can start now."""
        if len(self._running) >= self.executor.slots:
            return None
        open_ = (step for step in self.steps.values() if step.name not in self._met)
        return next((step for step in open_ if all(map(self._is_made, step.after))), None)

    def _task(self, step: Step) -> Task:
        before = {name: self._files(name) for name in step.after}
        return Task(self.job, step.name, before, self.executor.folder)

    def _finish(self, step: Step, outcome: Outcome) -> Exception | None:
        """Keep what a step made, or return its error."""
        if (error := outcome.exception()) is not None:
            return self._died(step, error)
        found = outcome.result()
        if isinstance(found, Failed):
            return found.error()
        if (changed := self._changed(step)) is not None:
            return changed
        self.records[step.name] = self.work.keep(step.name, self._key(step), found.files, found.seconds)
        self.tell(step.name, f"took {found.seconds:.1f} s")
        return None

    def _changed(self, step: Step) -> Exception | None:
        """The error for a step during which a file changed: nobody knows which state of it was loaded."""
        try:
            same = identity(self.job, evaluates=step.evaluates) == self._identities[step.evaluates]
        except EnvironmentProblem as error:
            return error
        return None if same else EnvironmentProblem(
            f"building {step.name}: a file that it is made from changed meanwhile",
            hint="start again; what was finished is kept, as far as it does not depend on that file",
        )  # fmt: skip

    def _died(self, step: Step, error: BaseException) -> Exception:
        """The error for a step that no process finished, one of those that ran."""
        names = ", ".join(sorted({step.name, *(other.name for other in self._running.values())}))
        return EnvironmentProblem(
            f"building {names}: a process ended in the middle of it: {first_line(error)}",
            hint="it was killed, for want of memory perhaps, or a function of yours ends it (os._exit); what is "
            "finished is kept, and --jobs 1 shows what happens. A script needs: if __name__ == '__main__':",
        )

    def _key(self, step: Step) -> str:
        """What a step is known by: all that its outcome depends on."""
        return digested({
            "identity": self._identities[step.evaluates],
            "step": f"{type(step).__module__}.{type(step).__qualname__}",
            "fields": asdict(step),
            "before": {name: dict(self.records[name].hashes) for name in step.after},
        })  # fmt: skip

    def _is_made(self, name: str) -> bool:
        return is_made(self.records, name)

    def _files(self, name: str) -> Files:
        return self.work.files(name, self.records[name])

    def _note(self, name: str, note: str) -> None:
        self.notes.setdefault(name, []).append(note)
        self.tell("note", note)
