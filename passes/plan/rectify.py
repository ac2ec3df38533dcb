"""Rectify: at initialisation, the layers that stand being cut are cut to the width that their density asks for.

Reconvene, reconstructed: the published text names two parts, a pruning sensitivity evaluator and a resilient layer
rectifier, and gives no formulas; those here are ours.  A mask of single elements (``mask``) says how dense each layer
would be.  Each group of units alone is cut to that density: how much of the flow through the network is lost (its
logarithm), for the share of the parameters that go, is its sensitivity.  Groups are cut in the order of their
sensitivity until the budget is met; the sensitive ones stay whole.
``rule=precrop`` cuts all of them alike instead, by their densities alone, to compare with.
The mask and the flow need no float64: densities and shares come of them, no scores that are handed on.

Start at :class:`Rectify`.

References
----------
Reconvene: structured pruning at initialisation (what is public of it).
Cai et al., Structured Pruning is All You Need for Pruning CNNs at Initialization, 2022 (PreCrop).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from ...ir import arrays
from ...ir.errors import BudgetError, UsageError
from ...ir.words import counted
from ..base import Kind, Pass, State, register
from ..groups import Group, Groups, Units, step_of
from ..mask import Mask
from ..score.derivatives import Network
from ..score.scoring import Scoring
from ..weights import weights
from .patterns import chosen
from .plan import Plan, reached

_LEAST = 1e-30
"""The least flow, and the reciprocal of the most, that float32 is trusted with."""


@register
@dataclass(frozen=True)
class Rectify(Pass):
    """Cut the groups whose cutting costs least of the flow through the network, at initialisation (Reconvene, ours).

    params: the budget, parameters compact/dense.
    density: of the mask of single elements that says how wide each group is to be; none = the budget.
    steps: in how many steps that mask is found.
    rule: reconvene = the groups that are least sensitive, until the budget is met; precrop = all, by density alone.
    align: round counts to this many channels; auto = the target's block; 1 = not at all.
    targets, ignore: patterns of group or parameter names, as in plan.
    """

    params: float
    density: float | None = None
    steps: int = 10
    rule: Literal["reconvene", "precrop"] = "reconvene"
    align: int | Literal["auto"] = "auto"
    targets: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()

    name: ClassVar[str] = "rectify"
    kind: ClassVar[Kind] = "planner"
    requires: ClassVar[frozenset[str]] = frozenset({"groups", "scores"})
    ensures: ClassVar[frozenset[str]] = frozenset({"plan"})
    forbids: ClassVar[frozenset[str]] = frozenset({"compact"})

    def __post_init__(self) -> None:
        for option, value in (("params", self.params), ("density", self.density)):
            if value is not None and not 0 < value <= 1:
                raise UsageError(f"rectify{{{option}}} cannot be {value}", hint="a number in (0, 1]")
        if self.steps < 1 or (self.align != "auto" and self.align < 1):
            raise UsageError(f"rectify: steps={self.steps}, align={self.align}", hint="both are 1 or more")

    def run(self, state: State) -> Plan:
        groups: Groups = state.facts["groups"]
        if groups.mode != "constrained":
            raise UsageError("rectify cuts groups that are constrained", hint="leave groups{mode=unconstrained} out")
        block = state.target.channel_block if self.align == "auto" else self.align
        found = chosen(groups, self)
        if not found:
            raise BudgetError(
                f"rectify: params {self.params:g} cannot be met, for there is no group that it may cut",
                hint="`prunec analyze` says what is pinned; other targets",
                budget={"params": self.params},
                reached={"params": 1.0},
            )
        density = _densities(found, groups, self._mask(groups, state))
        scores = np.asarray(state.facts["scores"], np.float64)
        cuts = [_Cut(g, g.units[np.argsort(-scores[g.units], kind="stable")], density[g.name], block) for g in found]
        flow = _Flow(groups, state)
        lost = {c.group.name: flow.lost(c) for c in cuts}
        sensitivity = {c.group.name: _sensitivity(c, lost[c.group.name], groups) for c in cuts}
        plan = self._within(cuts, sensitivity, groups)
        state.values["rectify"] = {
            c.group.name: {
                "units": len(c.group), "kept": len(c.group) - len(plan.dropped[c.group.name]),
                "density": c.density, "flow_lost": lost[c.group.name],
                "sensitivity": _finite(sensitivity[c.group.name]),
            }
            for c in cuts
        }  # fmt: skip
        cut = sum(bool(plan.dropped[c.group.name]) for c in cuts)
        state.notes.append(f"rectify: {cut} of {counted(len(cuts), 'group')} cut, the others stay as wide as they were")
        return plan

    def _mask(self, groups: Groups, state: State) -> Mapping[str, NDArray[np.bool_]]:
        kept = self.density or self.params
        if kept == 1:
            return {}
        mask = Mask(sparsity=1 - kept, steps=self.steps)
        return mask.unstructured(weights(groups.analysis), groups, state, single=True)

    def _within(self, cuts: Sequence[_Cut], sensitivity: Mapping[str, float], groups: Groups) -> Plan:
        """The plan that meets the budget with the least that is sensitive cut."""
        order = sorted(cuts, key=lambda c: sensitivity[c.group.name])

        def size(counts: Mapping[str, int]) -> float:
            return reached(groups, _dropped(cuts, counts), ("params",))["params"]

        counts = {c.group.name: len(c.group) for c in cuts}
        steps = [order] if self.rule == "precrop" else [[c] for c in order]
        for together in steps:
            if size(counts) <= self.params:
                break
            counts = _as_wide_as_fits(together, counts, size, self.params, full=self.rule == "reconvene")
        if size(counts) > self.params:  # at its density every group is too wide: all are cut further
            counts = _as_wide_as_fits(order, counts, size, self.params, full=False)
        if (smallest := size(counts)) > self.params:
            raise BudgetError(
                f"rectify: params {self.params:g} cannot be met; the smallest plan reaches {smallest:.4g}",
                hint="a larger budget, or a smaller align",
                budget={"params": self.params},
                reached={"params": smallest},
            )
        return Plan.of(groups, _dropped(cuts, counts), {"params": self.params})


class _Cut:
    """A group with its units from best to worst, and the density that it is to have."""

    def __init__(self, group: Group, order: Units, density: float, block: int) -> None:
        self.group, self.order, self.density, self.step = group, order, density, step_of(group, block)

    def at_density(self) -> Units:
        """The units that go where the group has the width of its density."""
        return self.order[self.width(self.density) :]

    def width(self, share: float) -> int:
        """How many units stay of a ``share``: whole blocks, and one at least."""
        return min(len(self.group), max(self.step, math.ceil(share * len(self.group) / self.step - 1e-9) * self.step))


def _as_wide_as_fits(
    cuts: Sequence[_Cut], counts: Mapping[str, int], size: Any, most: float, *, full: bool
) -> dict[str, int]:
    """``counts`` with ``cuts`` as wide as the budget lets them be, by bisection.

    From their whole width down to their density where ``full``, else in proportion to that, none above its whole width.
    """

    def at(share: float) -> dict[str, int]:
        shares = {c.group.name: c.density + share * (1 - c.density) if full else c.density * share for c in cuts}
        return {**counts, **{c.group.name: c.width(shares[c.group.name]) for c in cuts}}

    low, high = 0.0, 1.0 if full else 1.0 / max(1e-6, min(c.density for c in cuts))
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if size(at(middle)) <= most else (low, middle)
    return at(low)


def _densities(found: Sequence[Group], groups: Groups, masks: Mapping[str, NDArray[np.bool_]]) -> dict[str, float]:
    """For each group the share that a mask keeps of the weights that make its units."""
    density = {}
    for group in found:
        makes = [masks[name] for name, axis in group.places if name in masks and axis == 0]
        any_ = makes or [masks[name] for name, _ in group.places if name in masks]
        kept, total = sum(map(np.count_nonzero, any_)), sum(m.size for m in any_)
        density[group.name] = kept / total if total else 1.0
    return density


class _Flow:
    """How much flows through the network of positive weights (R of SynFlow) while units are cut.

    In float32, and in float64 where the flow through the whole network is near the ends of the range of float32.
    """

    def __init__(self, groups: Groups, state: State) -> None:
        self.groups = groups
        self.values = {c.name: v for v, c in groups.analysis.graph.constants.items()}
        self.network, self.whole = self._network(groups, state, double=False)
        if not _LEAST <= self.whole <= 1 / _LEAST:
            self.network, self.whole = self._network(groups, state, double=True)

    def _network(self, groups: Groups, state: State, *, double: bool) -> tuple[Network, float]:
        """The network of positive weights, and what flows through it."""
        network = Network(Scoring(groups, state), "rectify", double=double)
        network.make_positive()
        return network, _through(network, network.weights)

    def lost(self, cut: _Cut) -> float:
        """The share of the flow that is lost when a group alone has the width of its density."""
        dropped = cut.at_density()
        if not dropped.size or not self.whole:
            return 0.0
        analysis, alive = self.groups.analysis, self.groups.alive(dropped)
        weights = {n: arrays.masked(w, analysis.kept(self.values[n], alive)) for n, w in self.network.weights.items()}
        return 1 - _through(self.network, weights) / self.whole


def _through(network: Network, weights: Mapping[str, Any]) -> float:
    return float(network.flow({n: w.detach() for n, w in weights.items()}))


def _sensitivity(cut: _Cut, lost: float, groups: Groups) -> float:
    """The logarithm of the flow that a group costs, for the share of the parameters that go with it."""
    dropped = cut.at_density()
    if not dropped.size:
        return math.inf
    saved = 1 - reached(groups, dropped, ("params",))["params"]
    return -math.log(max(1 - lost, 1e-300)) / saved if saved else math.inf


def _finite(number: float) -> float | None:
    """For JSON, which has no infinity."""
    return number if math.isfinite(number) else None


def _dropped(cuts: Sequence[_Cut], counts: Mapping[str, int]) -> Units:
    parts = [c.order[counts[c.group.name] :] for c in cuts]
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)
