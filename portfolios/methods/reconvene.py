"""Reconvene: channels cut before training, each level for itself; then each compact network is trained once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..dense import DENSE, TRAINED, TrainDense
from ..job import Job
from ..method import method
from ..step import FACTS, Files, Step, facts_file
from ..variant import CompileVariant


@method("reconvene", of=("channels",))
def reconvene(job: Job) -> list[Step]:
    """Cut channels at initialisation (recipes/reconvene.toml), then train each compact network once."""
    steps: list[Step] = [TrainDense(TRAINED), CompileVariant(DENSE, (TRAINED,))]
    for name, density in job.levels:
        trained = f"{name}-trained"
        steps += [FreshLevel(trained, (), density), CompileVariant(name, (trained,), density=density)]
    return steps


@dataclass(frozen=True)
class FreshLevel(Step):
    """Cut the source, as it is, down to ``density`` of its parameters, and train what stays."""

    density: float = 1.0

    def run(self, job: Job, before: Mapping[str, Files]) -> Files:
        from ...api import compile
        from ..network import compact, module, saved
        from ..training import train

        model, inputs = module(job, {})
        result = compile(model, inputs, _pipeline(self.density), target=job.target, seed=job.seed, measure=False)
        network = compact(result)
        steps = train(job, network)
        facts = {"method": "reconvene", "of": "channels", "steps": steps, "notes": result.report["notes"]}
        return {**saved(result, network), FACTS: facts_file(facts)}


def _pipeline(density: float) -> str:
    return (
        "score{method=synflow,normalize=none},"
        f"rectify{{params={density!r},rule=reconvene}},eliminate,initialise,verify"
    )
