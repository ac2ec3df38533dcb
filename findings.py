"""What ``prunec analyze`` finds: for each group its layers, scores, costs and what is pinned beside it, and why.

Everything here is data that JSON can hold; ``console.py`` prints it and ``draw`` draws it.  Start at :func:`findings`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from types import MappingProxyType
from typing import Any

import numpy as np

from .ir.analysis import Analysis
from .ir.errors import ModelError
from .ir.pins import Pin, pins
from .passes import verify as verification
from .passes.base import State
from .passes.groups import Group, Groups
from .passes.meter import Meter
from .passes.score.scoring import Score, Scores
from .passes.target import Target
from .report import batch
from .wording import layer_of

SPREAD = {"min": 0, "lower": 25, "median": 50, "upper": 75, "max": 100}
"""The figures of a spread of scores, and the percentiles that they are."""


def findings(
    groups: Groups,
    target: Target,
    method: str | None = None,
    seed: int = 0,
    given: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Any]:
    """Groups, units, what is pinned and what is not understood, as JSON-serialisable data.

    ``method`` is the criterion whose scores are described, None the default one; ``given`` is the context of its state.

    Raises
    ------
    UsageError, ModelError
        The criterion that was asked for is not known, or cannot score this model.
    """
    analysis = groups.analysis
    held, costs = pins(analysis), analysis.opaque_costs()
    scores, notes = _scores(groups, target, method, seed, given)
    return {
        "groups": _Describing(groups, held, scores).all(),
        "criterion": method or Score().method,
        "units": int(groups.prunable.size),
        "macs": groups.cost.macs(groups.all_alive()) / batch(groups),
        "params": groups.cost.params(groups.all_alive()),
        "pinned": analysis.pinned_units(),
        "pins": [asdict(pin) for pin in held],
        "opaque": _opaque(analysis, held, costs),
        "opaque_ops": costs,
        "opaque_reasons": sorted({f"{o.kind}: {o.why}" for o in analysis.opaque}),
        "conflicts": analysis.solution.conflicts,
        "norm_tied": int(verification.norm_tied(groups).size),
        "atoms": analysis.atoms.count,
        "nodes": len(analysis.graph.nodes),
        "notes": notes,
    }


def _scores(
    groups: Groups, target: Target, method: str | None, seed: int, given: Mapping[str, Any]
) -> tuple[Scores | None, list[str]]:
    """Scores as the criterion gives them; none, with a note, where nobody asked and the weights cannot be ranked."""
    graph = groups.analysis.graph
    step = Score(method=method or Score().method, normalize="none")
    try:
        return step.run(State(graph, graph, target, seed, facts={"groups": groups}, context=dict(given))), []
    except ModelError as error:
        if method is not None:
            raise
        return None, [f"no scores: {error.message}"]


class _Describing:
    """Groups as JSON."""

    def __init__(self, groups: Groups, held: list[Pin], scores: Scores | None) -> None:
        self.groups, self.held, self.scores = groups, held, scores
        self.meter = Meter(groups, ("macs", "params"), np.zeros(0, np.int64))
        self.whole = dict(self.meter.totals)
        self.batch = batch(groups)

    def all(self) -> list[dict[str, Any]]:
        return [self.one(group) for group in self.groups.groups]

    def one(self, group: Group) -> dict[str, Any]:
        return {
            "name": group.name,
            "units": len(group),
            "span": group.span,
            "ops": list(group.ops),
            "layers": list(dict.fromkeys(layer_of(name) for name, _ in group.places)),
            "parameters": [[name, axis] for name, axis in group.places],
            "scores": None if self.scores is None else spread(self.scores[group.units]),
            "cost": self._cost(group),
            "pins": [k for k, pin in enumerate(self.held) if set(pin.parameters) & set(group.places)],
        }

    def _cost(self, group: Group) -> dict[str, float]:
        """What goes with one unit, and the share of the whole network that goes with all of them."""
        one, every = self.meter.saved(group.units[:1]), self.meter.saved(group.units)
        return {
            "unit_macs": one["macs"] / self.batch,
            "unit_params": one["params"],
            "macs_share": every["macs"] / max(self.whole["macs"], 1),
            "params_share": every["params"] / max(self.whole["params"], 1),
        }


def spread(scores: Scores) -> dict[str, float]:
    """The least and the greatest of some scores, and the quartiles between."""
    return dict(zip(SPREAD, map(float, np.percentile(scores, list(SPREAD.values())))))


def _opaque(analysis: Analysis, held: list[Pin], costs: Mapping[str, int]) -> list[dict[str, Any]]:
    """Kinds of ops that are not understood, the dearest first.

    ``cost`` are the units that would be free without a kind's pins alone; ``pins`` are those of its pins that hold any
    unit: where there is none, no unit passes the op.
    """
    nodes: dict[str, list[str]] = {}
    why: dict[str, set[str]] = {}
    for found in analysis.opaque:
        nodes.setdefault(found.kind, []).append(found.node.name)
        why.setdefault(found.kind, set()).add(found.why)
    holding: Mapping[str, list[int]] = {
        kind: [k for k, pin in enumerate(held) if pin.opaque and pin.cause == kind] for kind in nodes
    }
    ranked = sorted(costs, key=lambda kind: (-costs[kind], not holding[kind], kind))
    return [{"kind": k, "cost": costs[k], "nodes": nodes[k], "why": sorted(why[k]), "pins": holding[k]} for k in ranked]
