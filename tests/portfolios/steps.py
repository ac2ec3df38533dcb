"""A plugin: a method whose steps make no network, and tell of the process that they run in.

What a step does is in its density: 0.4 dies and leaves word, 0.3 writes down its process and sleeps.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from prunec.portfolios.job import Job
from prunec.portfolios.method import method
from prunec.portfolios.step import FACTS, MODEL, Files, Step, facts_file
from prunec.portfolios.variant import CompileVariant

RAN: list[str] = []
PID = "process.txt"


@method("telling", trains="if it can")
def telling(job: Job) -> list[Step]:
    """Steps that tell of their process."""
    return [Telling("dense"), *(Telling(name, ("dense",), density=density) for name, density in job.levels)]


@dataclass(frozen=True)
class Telling(CompileVariant):
    """Tells how many steps have run in its process."""

    def run(self, job: Job, before: Mapping[str, Files]) -> Files:
        RAN.append(self.name)
        if self.density == 0.4:
            Path(PID).write_text(",".join(RAN))
            os._exit(3)
        if self.density == 0.3:
            Path(PID).write_text(str(os.getpid()))
            time.sleep(60)
        facts = {"params": 1, "elements": 1, "nonzero": 1, "accuracy": None, "notes": RAN}
        return {MODEL: b"", FACTS: facts_file(facts)}
