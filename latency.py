"""The budget of measured latency: the largest network that is fast enough, found by trials of the whole.

MACs do not tell latency, so budgets of MACs are tried: each is planned, emitted and measured for a moment.  The one
chosen is then compiled, and what the longer measurement of the compile says is held against the budget again; a plan
that turns out too slow gives way to a smaller one.  Start at :func:`within_latency`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .artifact import Result
from .ir.errors import BudgetError, ModelError
from .recipe import Recipe

if TYPE_CHECKING:
    from .compiler import Compiler

NOISE = 0.03
"""A measured ratio moves by this share of itself from one measurement to the next."""

_TRIALS, _COMPILES = 6, 3
_STEP = 0.95
"""How much smaller than proportional the next plan is, once a compile missed the budget."""


def within_latency(compiler: Compiler, budget: float) -> Result:
    """The largest network whose measured latency is at most ``budget`` of the dense one's.

    Raises
    ------
    BudgetError
        No plan was found that is fast enough; ``data`` says what was reached.
    ModelError
        The network cannot be measured: it has no ONNX form, or ONNX Runtime does not run it.
    """
    seen: list[float] = []
    macs = _macs_within(compiler, budget, seen)
    result = None if macs is None else _compiled_within(compiler, budget, macs, seen)
    if result is None:
        raise _missed(budget, seen)
    return result


def _compiled_within(compiler: Compiler, budget: float, macs: float, seen: list[float]) -> Result | None:
    """The compile for a budget of MACs or, where that is measured too slow, a smaller one; None where none will do."""
    for _ in range(_COMPILES):
        try:
            result = compiler.compile(Recipe.default(macs=macs))
        except BudgetError:
            return None
        ratio = _measured(result)
        seen.append(ratio)
        if ratio <= budget * (1 + NOISE):
            result.report["budget"] = {"latency": {"asked": budget, "reached": ratio}}
            return result
        compiler.tell("search", f"macs {macs:.3f} -> latency {ratio:.3f}")
        macs *= _STEP * budget / ratio
    return None


def _macs_within(compiler: Compiler, budget: float, seen: list[float]) -> float | None:
    """The largest budget of MACs, of those tried, that meets the budget of latency; None where none does."""
    low, high, best = 0.0, 1.0, None
    trial = budget
    for _ in range(_TRIALS):
        try:
            ratio = compiler.trial(trial)
        except BudgetError:
            low = max(low, trial)
            trial = (trial + high) / 2
            continue
        seen.append(ratio)
        compiler.tell("search", f"macs {trial:.3f} -> latency {ratio:.3f}")
        if ratio <= budget:
            best, low = trial, trial
        else:
            high = trial
        trial = min(max(trial * budget / ratio, low + 0.25 * (high - low)), low + 0.75 * (high - low))
        if high - low < 0.02:
            break
    return best


def _measured(result: Result) -> float:
    """Compact/dense, as the compile measured it."""
    latency = result.report["latency_ms"]
    if latency is None:
        notes = "; ".join(result.report["notes"])
        raise ModelError(
            f"holding the budget of latency: the compact network was not measured ({notes})",
            hint="give a budget in macs, which needs no measurement",
        )
    return float(latency["ratio"])


def _missed(budget: float, seen: list[float]) -> BudgetError:
    reached = min(seen, default=None)
    found = "no plan is that small" if reached is None else f"the fastest plan tried reaches latency {reached:.3g}"
    return BudgetError(
        f"planning: the budget latency={budget:g} cannot be met; {found}",
        hint="allow more (a larger budget), or give one in macs",
        budget={"latency": budget},
        reached={} if reached is None else {"latency": reached},
    )
