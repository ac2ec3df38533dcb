"""The dense network trained: the step that most methods begin with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .job import Job
from .step import FACTS, Files, Step, facts_file

DENSE = "dense"
TRAINED = "dense-trained"
REWIND = "rewind.safetensors"


@dataclass(frozen=True)
class TrainDense(Step):
    """Train the source, count steps and epochs, and keep the state at ``rewind``: a step, a share, or None."""

    rewind: float | None = None

    def run(self, job: Job, before: Mapping[str, Files]) -> Files:
        from . import tensors
        from .network import STATE, module
        from .rewinding import recorder
        from .training import train

        model, _ = module(job, {})
        recorded = None if self.rewind is None else recorder(self.rewind)

        def see(step: int) -> None:
            if recorded is not None:
                recorded.see(step, lambda: tensors.copied(model))

        epochs: list[None] = []
        see(0)
        steps = train(job, model, counted=see, after_epoch=lambda: epochs.append(None))
        files = {STATE: tensors.written(model.state_dict())}
        facts: dict[str, int] = {"steps": steps, "epochs": len(epochs)}
        if recorded is not None:
            facts["rewound_to"], state = recorded.chosen(steps)
            files[REWIND] = tensors.written(state)
        return {**files, FACTS: facts_file(facts)}
