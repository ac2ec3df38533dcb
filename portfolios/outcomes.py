"""What came of a build: the variants that its steps made, and notes on what could not be made.

Start at :class:`Outcomes`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..ir.errors import BudgetError
from ..version import __version__
from .built import Built
from .dense import DENSE
from .job import Job
from .step import ENDED, MODEL, Files, Step, facts_of
from .variant import CompileVariant
from .work import Record, Work


def is_made(records: Mapping[str, Record], name: str) -> bool:
    """Whether a step is finished, and has not met the end of what can be made."""
    return name in records and ENDED not in records[name].hashes


@dataclass(frozen=True)
class Outcomes:
    """The steps of a build that ended, with their records, and what is worth a word of each."""

    job: Job
    work: Work
    steps: Mapping[str, Step]
    records: Mapping[str, Record]
    notes: Mapping[str, Sequence[str]]

    def built(self) -> list[Built]:
        """The variants, in order.

        Raises
        ------
        BudgetError
            There is no dense network among them.
        """
        made = [s for s in self.steps.values() if isinstance(s, CompileVariant) and is_made(self.records, s.name)]
        ended = self.ended()
        if DENSE not in {step.name for step in made}:
            raise BudgetError(
                f"building a portfolio: {'; '.join(ended) or 'there is no dense network'}",
                hint="every portfolio has the dense network: a step that makes it meets no budget",
            )
        facts = {step.name: facts_of(self._files(step.name)) for step in made}
        facts[made[-1].name]["notes"] = [*facts[made[-1].name]["notes"], *ended]
        return [self._variant(step, facts[step.name], facts[DENSE]["elements"]) for step in made]

    def ended(self) -> list[str]:
        """A note for each step that met its end, and so for levels that were not begun."""
        return [
            f"{name.removesuffix('-trained')} was not made, nor what follows from it: "
            f"{self._files(name)[ENDED].decode()}"
            for name in self.records
            if not is_made(self.records, name)
        ]

    def _variant(self, step: Step, facts: dict[str, Any], elements: int) -> Built:
        """The variant that a step made; ``elements`` are those of the dense network's weights."""
        chain = [name for name in (*step.after, step.name) if name == step.name or name.startswith(f"{step.name}-")]
        notes = [note for name in chain for note in self.notes.get(name, ())]
        facts = {"method": self.job.method, "of": self.job.of, "level": step.name, "prunec": __version__, **facts}
        facts["notes"] = [*facts["notes"], *notes]
        facts["seconds"] = {name: self.records[name].seconds for name in chain}
        accuracy, density = facts.pop("accuracy"), facts["nonzero"] / max(1, elements)
        return Built(step.name, self.work.path(step.name, MODEL), density, facts["params"], accuracy, facts)

    def _files(self, name: str) -> Files:
        return self.work.files(name, self.records[name])
