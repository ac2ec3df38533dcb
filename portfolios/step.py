"""One step of a build: a pure function of the job, its own fields and the files of the steps before it.

Whatever a step needs comes in as bytes and whatever it makes goes out as bytes, so that it runs in this process, in
another one or on another machine, and is never done twice.  Nothing in these files is a pickle.  A method is a list of
steps (``method.py``); the fields of a step, with the digests of what it gets, are what it is known by.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from .job import Job

Files = Mapping[str, bytes]
"""Files by name."""

FACTS = "facts.json"
MODEL = "model.onnx"
ENDED = "ended.txt"
"""Why a budget cannot be met: all that such a step makes, and the steps after it are not done."""


@dataclass(frozen=True)
class Step(ABC):
    """A step called ``name``, ``after`` those whose files it gets."""

    name: str
    after: tuple[str, ...] = ()

    evaluates: ClassVar[bool] = False

    @abstractmethod
    def run(self, job: Job, before: Mapping[str, Files]) -> Files:
        """What it makes.

        Raises
        ------
        BudgetError
            A density cannot be reached: an end, and no failure.
        """


def facts_of(files: Files) -> dict[str, Any]:
    """What a step says of what it made."""
    found: dict[str, Any] = json.loads(files[FACTS])
    return found


def facts_file(facts: Mapping[str, Any]) -> bytes:
    """The same as bytes."""
    return (json.dumps(facts, indent=1, sort_keys=True) + "\n").encode()
