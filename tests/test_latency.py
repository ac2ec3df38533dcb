"""The search for a measured latency, with a clock that says what the test wants."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import prunec
from prunec import latency
from prunec.ir.errors import BudgetError
from prunec.runtime import profile
from prunec.runtime.profile import Comparison, Latency

from .runtime.onnx_models import layers

Clock = Callable[[float, bool], float]
"""From bytes (compact / dense) and whether this is the measurement of a finished compile, to the latency's ratio."""


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[Clock], list[tuple[float, bool]]]:
    """Installs a clock and gives the list of what it is asked for."""

    def install(chosen: Clock) -> list[tuple[float, bool]]:
        asked: list[tuple[float, bool]] = []

        def compare(dense: Any, compact: Any, *feeds: Any, budget_s: float, seed: int) -> Comparison:
            asked.append((compact.size_bytes() / dense.size_bytes(), budget_s > 2))
            one = Latency(1.0, 0.0, 10)
            return Comparison(one, one, chosen(*asked[-1]), 1)

        monkeypatch.setattr(profile, "compare", compare)
        return asked

    return install


def compiled(budget: float, **options: Any) -> dict[str, Any]:
    return prunec.compile(layers(16, 512, 16), latency=budget, verify=False, **options).report


@pytest.mark.parametrize("measure", [True, False])
def test_what_was_reached_is_what_the_compile_measured(clock: Any, measure: bool) -> None:
    asked = clock(lambda size, final: size - 0.01 * final)
    report = compiled(0.5, measure=measure)
    assert [final for _, final in asked].count(True) == 1
    assert report["budget"] == {"latency": {"asked": 0.5, "reached": report["latency_ms"]["ratio"]}}
    assert report["latency_ms"]["ratio"] == asked[-1][0] - 0.01
    assert 0.4 < asked[-1][0] <= 0.5


def test_noise_is_no_reason_for_a_smaller_plan(clock: Any) -> None:
    asked = clock(lambda size, final: 0.5 * (1 + 0.9 * latency.NOISE) if final else size)
    assert compiled(0.5)["budget"]["latency"]["reached"] > 0.5
    assert asked[-1][1]
    assert not asked[-2][1]


def test_a_plan_that_turns_out_too_slow_gives_way_to_a_smaller_one(clock: Any) -> None:
    asked = clock(lambda size, final: size + 0.1 * final)
    report = compiled(0.5)
    sizes = [size for size, final in asked if final]
    assert len(sizes) > 1
    assert sizes == sorted(sizes, reverse=True)
    assert report["budget"]["latency"]["reached"] <= 0.5 * (1 + latency.NOISE)


@pytest.mark.parametrize(
    ("says", "reached"),
    [
        (lambda size, final: 0.9 if final else size, None),
        (lambda size, final: 0.8 + 0.2 * size, "0.8"),
    ],
)
def test_a_budget_that_cannot_be_met_says_what_was_reached(clock: Any, says: Clock, reached: str | None) -> None:
    asked = clock(says)
    with pytest.raises(BudgetError) as error:
        compiled(0.5)
    best = min(says(*each) for each in asked)
    assert error.value.exit_code == 5
    assert error.value.data == {"budget": {"latency": 0.5}, "reached": {"latency": best}}
    assert error.value.message == (
        f"planning: the budget latency=0.5 cannot be met; the fastest plan tried reaches latency {best:.3g}"
    )
    assert reached is None or f"{best:.3g}".startswith(reached)


def test_a_model_that_cannot_be_smaller(clock: Any) -> None:
    asked = clock(lambda size, final: size)
    with pytest.raises(BudgetError, match=r"latency=0\.5 cannot be met; no plan is that small") as error:
        prunec.compile(layers(4, 2), latency=0.5)
    assert asked == []
    assert error.value.data["reached"] == {}
