"""IMP: iterative magnitude pruning with rewinding, of channels or of single elements.

Each level starts from the network of the level before, as it was trained: what matters least goes, down to the level's
density; what stays goes back to its numbers early in the dense training, and is trained again.  So the levels are one
chain; each is compiled while the next one trains.

References
----------
Frankle et al., Linear Mode Connectivity and the Lottery Ticket Hypothesis, ICML 2020; Eccles et al., DNNShifter, FGCS
2024, section 4: single elements.  Cutting channels instead, so that each level is faster, is ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..dense import DENSE, REWIND, TRAINED, TrainDense
from ..job import Job
from ..method import method
from ..step import FACTS, Files, Step, facts_file, facts_of
from ..variant import DENSE_PIPELINE, SPARSE_PIPELINE, CompileVariant


@method("imp")
def imp(job: Job) -> list[Step]:
    """Train, prune the smallest of what remains, rewind the rest to early in the training, train again; and so on."""
    channels = job.of == "channels"
    pipeline = DENSE_PIPELINE if channels else SPARSE_PIPELINE
    steps: list[Step] = [TrainDense(TRAINED, (), job.rewind), CompileVariant(DENSE, (TRAINED,))]
    last = TRAINED
    for name, density in job.levels:
        trained = f"{name}-trained"
        level = ChannelLevel if channels else ElementLevel
        steps += [level(trained, (last,), density), CompileVariant(name, (trained,), pipeline, density)]
        last = trained
    return steps


@dataclass(frozen=True)
class ChannelLevel(Step):
    """Cut channels down to ``density`` of the dense network's parameters, rewind the others and train them."""

    density: float = 1.0

    def run(self, job: Job, before: Mapping[str, Files]) -> Files:
        from .. import tensors
        from ..cut import cut_alike, cut_to
        from ..network import compact, module, saved
        from ..training import train

        (files,) = before.values()
        facts = facts_of(files)
        model, inputs = module(job, files)
        result = cut_to(job, model, inputs, self.density, facts.get("dense_params"))
        network, params = compact(result), result.report["params"]
        rewound = cut_alike(tensors.read(files[REWIND]), result.kept, tensors.copied(network))
        network.load_state_dict(rewound)
        steps = train(job, network, start=facts["rewound_to"])
        now = {"rewound_to": facts["rewound_to"], "steps": steps, "method": "imp", "of": "channels"}
        now["dense_params"] = facts.get("dense_params", params["dense"])
        if params["compact"] == params["dense"]:
            now["notes"] = ["no channel went: the level before is as small as this one was to be"]
        return {**saved(result, network), REWIND: tensors.written(rewound), FACTS: facts_file(now)}


@dataclass(frozen=True)
class ElementLevel(Step):
    """Mask the smallest elements down to ``density`` of all, rewind the others and train them."""

    density: float = 1.0

    def run(self, job: Job, before: Mapping[str, Files]) -> Files:
        from .. import tensors
        from ..masks import MASKS, HeldAtZero, masked_weights, smallest_gone, unmasked
        from ..network import STATE, module
        from ..training import train

        (files,) = before.values()
        facts = facts_of(files)
        model, _ = module(job, files)
        last = tensors.read(files[MASKS]) if MASKS in files else None
        masks = smallest_gone(masked_weights(model), last, self.density)
        model.load_state_dict(tensors.read(files[REWIND]))
        steps = train(job, model, start=facts["rewound_to"], always=HeldAtZero(model, masks))
        now = {"rewound_to": facts["rewound_to"], "steps": steps, "method": "imp", "of": "elements"}
        now["notes"] = unmasked(model)
        state = {STATE: tensors.written(model.state_dict()), MASKS: tensors.written(masks)}
        return {**state, REWIND: files[REWIND], FACTS: facts_file(now)}
