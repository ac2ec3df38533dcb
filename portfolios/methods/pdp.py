"""PDP: the trained network trained sparse, to each level for itself, with soft masks that the weights themselves make.

The training function has to say when an epoch ends (``after_epoch``), for masks change then.  How many epochs there
are is counted in the dense training, which is also the warm-up: in a quarter of them masks come to the whole of what is
asked, in a quarter they become hard, and in the rest what is left trains on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ...ir.errors import UsageError
from ..dense import DENSE, TRAINED, TrainDense
from ..job import Job
from ..method import method
from ..step import FACTS, Files, Step, facts_file, facts_of
from ..variant import SPARSE_PIPELINE, CompileVariant


@method("pdp", takes=("after_epoch",))
def pdp(job: Job) -> list[Step]:
    """Train the trained network with differentiable masks to each level (PDP); `fit` has to call after_epoch."""
    steps: list[Step] = [TrainDense(TRAINED), CompileVariant(DENSE, (TRAINED,))]
    for name, density in job.levels:
        trained = f"{name}-trained"
        steps += [SparseLevel(trained, (TRAINED,), density), CompileVariant(name, (trained,), SPARSE_PIPELINE, density)]
    return steps


def recipe(job: Job, density: float, epochs: int) -> str:
    """The training recipe of a level, over so many epochs.

    A share d of the parameters of a layer is about a share √d of its inputs and of its outputs.
    """
    gone = f"channels={1 - math.sqrt(density)!r}" if job.of == "channels" else f"sparsity={1 - density!r}"
    quarter = max(1, epochs // 4)
    return f"pdp{{{gone},warm=0,rise={quarter},settle={quarter}}}"


@dataclass(frozen=True)
class SparseLevel(Step):
    """Train the trained network sparse, as many epochs as it had."""

    density: float = 1.0

    def run(self, job: Job, before: Mapping[str, Files]) -> Files:
        from ... import api
        from .. import tensors
        from ..masks import unmasked
        from ..network import STATE, module
        from ..training import train

        (files,) = before.values()
        epochs = facts_of(files)["epochs"]
        if not epochs:
            raise UsageError(
                f"training by pdp: {job.train} never called after_epoch", hint="call after_epoch() after each epoch"
            )
        model, inputs = module(job, files)
        chosen = recipe(job, self.density, epochs)
        notes = unmasked(model) if job.of == "elements" else []
        with api.train(model, chosen, inputs, epochs=epochs, progress=False) as sparse:
            steps = train(job, model, after_epoch=sparse.step)
        facts = {"method": "pdp", "of": job.of, "recipe": chosen, "steps": steps, "notes": [*notes, *sparse.notes]}
        return {STATE: tensors.written(model.state_dict()), FACTS: facts_file(facts)}
