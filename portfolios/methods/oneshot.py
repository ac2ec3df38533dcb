"""One-shot: each level straight from the dense network, each for itself; trained afterwards where there is a function.

What a network with trained weights needs if nobody can train it, and what the other methods have to be better than.
Levels that are nested are prefixes of the dense network, whose channels then stand by score; they share its numbers, so
that none is trained for itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..dense import DENSE, TRAINED, TrainDense
from ..job import Job
from ..method import method
from ..step import FACTS, Files, Step, facts_file
from ..variant import DENSE_PIPELINE, SPARSE_PIPELINE, CompileVariant

_RANKED = "dense-ranked"


@method("oneshot", trains="if it can", nests=True)
def oneshot(job: Job) -> list[Step]:
    """Prune the dense network once for each level; with a training function train it before, and each level after."""
    if job.nested:
        return _nested(job)
    return _trained(job) if job.train else _pruned(job, ())


def _nested(job: Job) -> list[Step]:
    trained: list[Step] = [TrainDense(TRAINED)] if job.train else []
    return [*trained, Ranked(_RANKED, tuple(step.name for step in trained)), *_pruned(job, (_RANKED,))]


def _pruned(job: Job, after: tuple[str, ...]) -> list[Step]:
    """The dense network, and each level pruned from it."""
    levels = (
        CompileVariant(name, after, _pipeline(job, density), density, prunes=True) for name, density in job.levels
    )
    return [CompileVariant(DENSE, after), *levels]


def _pipeline(job: Job, density: float) -> str:
    if job.of == "channels":
        return f"score{{method=lamp}},plan{{params={density!r}}},eliminate,fold,verify"
    return f"score{{method=magnitude}},mask{{sparsity={1 - density!r}}},{SPARSE_PIPELINE}"


def _trained(job: Job) -> list[Step]:
    steps: list[Step] = [TrainDense(TRAINED), CompileVariant(DENSE, (TRAINED,))]
    pipeline = DENSE_PIPELINE if job.of == "channels" else SPARSE_PIPELINE
    for name, density in job.levels:
        tuned = f"{name}-trained"
        steps += [FineTuned(tuned, (TRAINED,), density), CompileVariant(name, (tuned,), pipeline, density)]
    return steps


@dataclass(frozen=True)
class Ranked(Step):
    """Put the channels of the dense network in the order of their scores, so that levels are prefixes."""

    def run(self, job: Job, before: Mapping[str, Files]) -> Files:
        from ...api import compile
        from ..network import opened, saved

        (files,) = before.values() if before else ({},)
        model, inputs = opened(job, files)
        pipeline = "score{method=lamp},rank,verify"
        result = compile(model, inputs, pipeline, target=job.target, seed=job.seed, measure=False)
        return {**saved(result, result.module), FACTS: facts_file({"method": "oneshot", "of": "channels"})}


@dataclass(frozen=True)
class FineTuned(Step):
    """Prune the trained network to ``density`` and train what stays on."""

    density: float = 1.0

    def run(self, job: Job, before: Mapping[str, Files]) -> Files:
        (files,) = before.values()
        return self._channels(job, files) if job.of == "channels" else self._elements(job, files)

    def _channels(self, job: Job, files: Files) -> Files:
        from ..cut import cut_to
        from ..network import compact, module, saved
        from ..training import train

        result = cut_to(job, *module(job, files), self.density)
        network = compact(result)
        steps = train(job, network)
        return {**saved(result, network), FACTS: _facts(job, steps)}

    def _elements(self, job: Job, files: Files) -> Files:
        from .. import tensors
        from ..masks import HeldAtZero, masked_weights, smallest_gone, unmasked
        from ..network import STATE, module
        from ..training import train

        model, _ = module(job, files)
        masks = smallest_gone(masked_weights(model), None, self.density)
        steps = train(job, model, always=HeldAtZero(model, masks))
        return {STATE: tensors.written(model.state_dict()), FACTS: _facts(job, steps, unmasked(model))}


def _facts(job: Job, steps: int, notes: Sequence[str] = ()) -> bytes:
    return facts_file({"method": "oneshot", "of": job.of, "steps": steps, "notes": [*notes]})
