"""The planner: rank units (over the whole model or within each group), drop the lowest until a budget is met.

Counts are rounded to the target's block of channels while the search runs, so the budget is met by what is really
emitted.  A search over the level of the ranking finds the most units that fit; what the rounding left over is then
given back to the groups whose next block scores highest.  In several steps the search runs for each, without rounding
before the last; see ``standing.py``.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from ...ir.errors import BudgetError, UsageError
from ...ir.words import counted, listed
from ..base import Kind, Pass, State, register
from ..groups import Group, Groups, Units, step_of
from ..meter import Meter
from ..schedule import Schedule, share
from .patterns import chosen
from .plan import Plan, reached
from .standing import Standing, before_last

_EPSILON = 1e-9


@register
@dataclass(frozen=True)
class MakePlan(Pass):
    """Choose which units to drop so that a budget is met.

    ratio: fraction of the prunable units to drop; macs, params: budget as compact/dense.
    scope: rank over the whole model (global) or cut each group alike (uniform).
    align: round counts to this many channels; auto = the target's block; 1 = not at all.
    floor, ceiling: the fraction of each group that stays at least, at most.
    steps: meet the budget in so many steps, scored anew before each on the network that remains; what is dropped stays
    out, and counts are rounded in the last step.
    schedule: how much of the budget is used up after a step: exponential (a power of what stays), or linear.
    targets, ignore: patterns of group or parameter names (globs, re:regex, type:op): only these, none of these; a
    pattern that matches nothing is an error.
    """

    ratio: float | None = None
    macs: float | None = None
    params: float | None = None
    scope: Literal["global", "uniform"] = "global"
    align: int | Literal["auto"] = "auto"
    floor: float = 0.1
    ceiling: float = 1.0
    steps: int = 1
    schedule: Schedule = "exponential"
    targets: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()

    name: ClassVar[str] = "plan"
    kind: ClassVar[Kind] = "planner"
    requires: ClassVar[frozenset[str]] = frozenset({"groups", "scores"})
    ensures: ClassVar[frozenset[str]] = frozenset({"plan"})

    def __post_init__(self) -> None:
        _between("plan{ratio}", self.ratio, 0, 1, right_open=True)
        _between("plan{macs}", self.macs, 0, 1, left_open=True)
        _between("plan{params}", self.params, 0, 1, left_open=True)
        _between("plan{floor}", self.floor, 0, 1)
        _between("plan{ceiling}", self.ceiling, 0, 1, left_open=True)
        if self.floor > self.ceiling:
            raise UsageError(
                f"plan: floor {self.floor} is above ceiling {self.ceiling}",
                hint="both are fractions of a group that stay; ceiling is 1 unless given",
            )
        if self.align != "auto" and self.align < 1:
            raise UsageError(f"plan{{align}} cannot be {self.align}", hint="1 or more, or auto")
        if self.steps < 1:
            raise UsageError(f"plan{{steps}} cannot be {self.steps}", hint="1 or more")

    @property
    def budgets(self) -> dict[str, float]:
        """Those that are given, by name."""
        return {k: v for k in ("ratio", "macs", "params") if (v := getattr(self, k)) is not None}

    def run(self, state: State) -> Plan:
        if not self.budgets:
            raise UsageError("plan: no budget given", hint="plan{ratio=0.5}, plan{macs=0.5} or plan{params=0.5}")
        search, plan = self._planned(state)
        if not any(plan.dropped.values()) and self.ratio != 0:
            state.notes.append("nothing was pruned: " + search.why_nothing())
        if held := search.held(plan):
            state.notes.append(
                f"plan: {counted(len(held), 'group')} at the floor, the least that floor and align leave of a layer: "
                f"{listed(held, 8)}"
            )
        return plan

    def _planned(self, state: State) -> tuple[_Search, Plan]:
        """The plan in the largest block of channels in which the budget can be met."""
        blocks = _blocks(state, self.align)
        for block in blocks:
            try:
                search = self._search(state, block)
                plan = search.plan()
            except BudgetError:
                if block == blocks[-1]:
                    raise
                continue
            if block != blocks[0]:
                state.notes.append(
                    f"plan: blocks of {counted(block, 'channel')}, for the budget cannot be met in {blocks[0]}"
                )
            return search, plan
        raise AssertionError("no block of channels to try")

    def _search(self, state: State, block: int) -> _Search:
        """The search of the last step."""
        groups: Groups = state.facts["groups"]
        if self.steps > 1:
            _Search(self, groups, Standing.of(state.facts["scores"]), block).least()

        def drops(standing: Standing, step: int) -> Units:
            return _Search(self._at(step), groups, standing, block, rounds=False).plan().units(groups)

        return _Search(self, groups, before_last(state, self.steps, drops), block)

    def _at(self, step: int) -> MakePlan:
        """The plan of a step before the last."""

        def then(kept: float | None) -> float | None:
            return None if kept is None else share(kept, step, self.steps, self.schedule)

        ratio = None if self.ratio is None else 1 - share(1 - self.ratio, step, self.steps, self.schedule)
        ceiling = share(self.ceiling, step, self.steps, self.schedule)
        return replace(self, ratio=ratio, macs=then(self.macs), params=then(self.params), ceiling=ceiling)


def _blocks(state: State, align: int | Literal["auto"]) -> list[int]:
    """The blocks to try: the one asked for, or the target's and its halves, for the budget comes first."""
    if align != "auto":
        return [align]
    block = state.target.channel_block
    return [block >> k for k in range(block.bit_length())]


def _between(
    name: str, value: float | None, low: float, high: float, *, left_open: bool = False, right_open: bool = False
) -> None:
    if value is None:
        return
    inside = low <= value <= high and not (left_open and value == low) and not (right_open and value == high)
    if not inside or math.isnan(value):
        bounds = f"{'(' if left_open else '['}{low}, {high}{')' if right_open else ']'}"
        raise UsageError(f"{name} cannot be {value}", hint=f"a number in {bounds}", value=value)


@dataclass(frozen=True)
class _Ranked:
    """A group with its units from most to least important, and the counts that may be kept (ascending)."""

    group: Group
    order: Units
    levels: NDArray[np.float64]
    allowed: tuple[int, ...]

    def nearest(self, count: int) -> int:
        """The allowed count next to ``count``; the larger of two that are equally far."""
        at = bisect_left(self.allowed, count)
        return min(self.allowed[max(at - 1, 0) : at + 1], key=lambda a: (abs(a - count), -a))

    def next(self, count: int) -> int | None:
        at = bisect_right(self.allowed, count)
        return self.allowed[at] if at < len(self.allowed) else None


class _Search:
    """The search for a plan; without ``rounds``, down to the counts that rounding allows at least."""

    def __init__(
        self, options: MakePlan, groups: Groups, standing: Standing, block: int, *, rounds: bool = True
    ) -> None:
        self.options, self.groups, self.budgets = options, groups, options.budgets
        self.standing, self.block, self.rounds = standing, block, rounds
        self.scores = standing.levels()
        self.chosen = chosen(groups, options)
        self._protect()
        self.ranked = [self._rank(g) for g in self.chosen]
        self.total = max(1, groups.prunable.size)
        self.level = -math.inf

    def plan(self) -> Plan:
        counts = self._largest_that_fits()
        counts = self._give_back(counts)
        return Plan.of(self.groups, self._dropped(counts), self.budgets)

    def held(self, plan: Plan) -> list[str]:
        """The groups that keep only what they must: the ranking would have kept less, or did in an earlier step."""
        if self.options.scope != "global":
            return []
        levels, found = self.standing.levels(), []
        for ranked in self.ranked:
            group = ranked.group
            gone, kept = (len(plan.dropped[group.name]), len(group) - len(plan.dropped[group.name]))
            wanted, inside = ((levels[group.units] >= bar).sum() for bar in (-self.level, -np.finfo(np.float64).max))
            if gone and kept == ranked.allowed[0] and (wanted < kept or inside == kept):
                found.append(group.name)
        return found

    def why_nothing(self) -> str:
        if not self.groups.groups:
            return "the analysis found no prunable unit (every axis is pinned; see `prunec analyze`)"
        if not self.chosen:
            return "targets and ignore leave no group"
        return "the budget is met by the dense model after rounding"

    # ------------------------------------------------------------------ candidates

    def _protect(self) -> None:
        """The best position of every axis that could otherwise vanish is never dropped."""
        soft = self.groups.analysis.solution.soft
        life, by = (self.scores, None) if soft is None else soft.best_readers(self.scores)
        for width in self.groups.widths():
            count = np.bincount(width.position, minlength=width.size)
            if not count.all():
                continue
            first = np.cumsum(count) - count
            best = int(np.minimum.reduceat(life[width.unit], first).argmax())
            kept = width.unit[first[best] : first[best] + count[best]]
            self.scores[kept if soft is None or by is None else soft.keepers(kept, by)] = np.inf

    def _rank(self, group: Group) -> _Ranked:
        order = self.standing.order(group.units, self.scores)
        inside = int((self.standing.out[group.units] == 0).sum())
        least = max(
            math.ceil(self.options.floor * len(group) - _EPSILON), int(np.isinf(self.scores[order[:inside]]).sum()), 1
        )
        step = step_of(group, self.block)
        full = min(len(group), -(-inside // step) * step)
        most = max(min(math.floor(self.options.ceiling * len(group) + _EPSILON), full), least)
        allowed = [k for k in range(least, most + 1) if k % step == 0 or k == len(group)] or [most]
        if not self.rounds:
            allowed = list(range(min(allowed[0], inside), min(most, inside) + 1))
        return _Ranked(group, order, self.scores[order], tuple(allowed))

    # ------------------------------------------------------------------ search

    def _largest_that_fits(self) -> list[int]:
        """Counts for the most generous level of the ranking that meets the budget."""
        at = self._global_counts if self.options.scope == "global" else self._uniform_counts
        steps = self._levels() if self.options.scope == "global" else np.linspace(0, 1, 513)
        low, high = 0, len(steps) - 1  # ``low`` keeps least
        if not self._fits(at(steps[0])):
            return self.least()
        while low < high:
            middle = (low + high + 1) // 2
            if self._fits(at(steps[middle])):
                low = middle
            else:
                high = middle - 1
        self.level = float(steps[low]) if self.options.scope == "global" else -math.inf
        return at(steps[low])

    def _levels(self) -> NDArray[np.float64]:
        """Negated thresholds, from keeping least to keeping all."""
        finite = [r.levels[np.isfinite(r.levels)] for r in self.ranked]
        values = np.unique(np.concatenate(finite)) if finite else np.zeros(0)
        return np.concatenate([[-np.inf], -values[::-1]])

    def _global_counts(self, negated: float) -> list[int]:
        return [r.nearest(int((r.levels >= -negated).sum())) for r in self.ranked]

    def _uniform_counts(self, share: float) -> list[int]:
        return [r.nearest(round(share * len(r.group))) for r in self.ranked]

    def least(self) -> list[int]:
        """The smallest counts allowed; raises when even they miss the budget."""
        counts = [r.allowed[0] for r in self.ranked]
        if self._fits(counts):
            return counts
        if "ratio" in self.budgets and len(self.budgets) == 1 and not self.ranked:
            return counts
        found = self._costs(counts, tuple(self.budgets))
        least = ", ".join(f"{k} {v:.3g}" for k, v in found.items())
        raise BudgetError(
            f"planning: the budget {_spell(self.budgets)} cannot be met; the smallest plan reaches {least}",
            hint=self._way_out(),
            budget=self.budgets,
            reached=found,
        )

    def _way_out(self) -> str:
        if not self.ranked:
            return self.why_nothing()
        return "allow more (a larger budget, a smaller ratio), lower floor or align (plan{floor=0,align=1})"

    def _give_back(self, counts: list[int]) -> list[int]:
        """Spend what rounding left over on the groups whose next block scores highest."""
        counts, gone = list(counts), self._gone(counts)
        meter = Meter(self.groups, tuple(k for k in self.budgets if k != "ratio"), self._dropped(counts))
        open_ = [step for k, count in enumerate(counts) if (step := self._step(k, count)) is not None]
        heapq.heapify(open_)
        while open_:
            _, k, wider = heapq.heappop(open_)
            block = self.ranked[k].order[counts[k] : wider]
            meter.take_back(block)
            if not self._within({**self._relative(meter.totals), "ratio": (gone - block.size) / self.total}):
                meter.drop(block)
                continue
            counts[k], gone = wider, gone - block.size
            if (step := self._step(k, wider)) is not None:
                heapq.heappush(open_, step)
        return counts

    def _step(self, k: int, count: int) -> tuple[float, int, int] | None:
        """The next block of a group, to be sorted: what scores highest first; None where all is kept."""
        wider = self.ranked[k].next(count)
        if wider is None:
            return None
        block = self.ranked[k].levels[count:wider]
        return -float(np.where(np.isposinf(block), 1e30, block).mean()), k, wider

    # ------------------------------------------------------------------ costs

    def _fits(self, counts: list[int]) -> bool:
        return self._within(self._costs(counts, tuple(self.budgets)))

    def _within(self, costs: dict[str, float]) -> bool:
        """Whether ``costs``, as :meth:`_costs` gives them, meet the budget."""
        limits = {k: 1 - v if k == "ratio" else v for k, v in self.budgets.items()}
        return all((1 - costs[k] if k == "ratio" else costs[k]) <= limits[k] + _EPSILON for k in limits)

    def _costs(self, counts: list[int], which: tuple[str, ...]) -> dict[str, float]:
        """``ratio`` (dropped units), ``macs`` and ``params`` (compact/dense) of keeping so many of each group."""
        return reached(self.groups, self._dropped(counts), which)

    def _gone(self, counts: list[int]) -> int:
        return sum(len(r.group) - c for r, c in zip(self.ranked, counts, strict=True))

    def _relative(self, totals: dict[str, float]) -> dict[str, float]:
        return {name: total / max(self.groups.dense[name], 1.0) for name, total in totals.items()}

    def _dropped(self, counts: list[int]) -> Units:
        parts = [r.order[c:] for r, c in zip(self.ranked, counts, strict=True)]
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def _spell(budgets: dict[str, float]) -> str:
    return ", ".join(f"{k}={v:g}" for k, v in budgets.items())
