"""The controller: down at once, up with patience, never to and fro, and every decision says why."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from prunec.ir.errors import ModelError, UsageError
from prunec.runtime.policy import Candidate, Choice, Objective
from prunec.runtime.portfolio import Portfolio
from prunec.runtime.store import writing
from prunec.runtime.switcher import Controller
from prunec.runtime.variant import Variant

from .portfolios import made

TIMES = {"large": 20.0, "middle": 10.0, "small": 2.0}


class Clock:
    """Time that passes when it is told to."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def timed(variant: Variant, ms: float) -> Variant:
    return replace(variant, latency_ms=ms, p95_ms=ms, memory_bytes=int(1000 * ms))


@pytest.fixture
def portfolio(tmp_path: Path) -> Portfolio:
    """Variants that take 20, 10 and 2 ms, it says."""
    made(tmp_path)
    with writing(tmp_path) as store:
        store.revise(lambda m: replace(m, variants={n: timed(v, TIMES[n]) for n, v in m.variants.items()}))
        store.commit()
    return Portfolio.open(tmp_path)


def controller(portfolio: Portfolio, clock: Clock, **options: Any) -> Controller:
    sense: Mapping[str, Any] = {}
    chosen = {"objective": Objective(50.0), "sense": lambda: sense, "clock": clock, **options}
    return Controller(portfolio, **chosen)


def load(looks: Controller, rate: float) -> None:
    """Requests of the last two seconds."""
    looks._came.clear()
    looks._came.extend([looks._clock()] * int(rate * 2))


def test_down_at_once_and_up_with_patience(portfolio: Portfolio) -> None:
    clock = Clock()
    looks = controller(portfolio, clock, up=3, dwell_s=5.0)
    load(looks, 300)
    assert looks.step().after == "small"
    load(looks, 0)
    found = []
    for _ in range(12):
        clock.now += 1
        found.append(looks.step())
    assert [d.after for d in found] == ["small"] * 4 + ["large"] * 8
    assert found[0].held == "wanted 1 of 3 times" and "of 5.0 s on small" in found[2].held


def test_a_rise_that_was_too_early_makes_it_more_patient(portfolio: Portfolio) -> None:
    clock = Clock()
    looks = controller(portfolio, clock, up=1, dwell_s=1.0)

    def waits() -> int:
        """Looks from a fall until the rise after it."""
        load(looks, 300)
        clock.now += 0.1
        while looks.step().after != "small":
            clock.now += 0.1
        load(looks, 0)
        for count in range(1000):
            clock.now += 0.1
            if looks.step().after == "large":
                return count
        raise AssertionError

    found = [waits() for _ in range(4)]
    assert found[0] < found[1] < found[2] < found[3] and found[3] > 5 * found[0]


def test_it_does_not_go_to_and_fro(portfolio: Portfolio) -> None:
    """A load at the edge: a policy that asks for another variant at every look gets few switches."""
    clock = Clock()
    names = ["small", "large"]

    def torn(*args: Any) -> Choice:
        names.reverse()
        return Choice(names[0], "torn")

    looks = controller(portfolio, clock, policy=torn, up=3, down=2)
    for _ in range(100):
        clock.now += 0.1
        looks.step()
    assert not portfolio.switches


def test_what_requests_really_take_counts(portfolio: Portfolio) -> None:
    """Runs look fine, and requests are late all the same: one goes down, and what was late before counts no more."""
    clock = Clock()
    looks = controller(portfolio, clock)
    clock.now += 0.1
    for _ in range(30):
        looks.answered(0.2)
    assert looks.step().after == "middle"
    clock.now += 0.1
    assert looks.step().after == "middle" and looks.conditions().p95_ms is None


def test_a_fall_for_want_of_memory_makes_it_no_more_patient(portfolio: Portfolio) -> None:
    clock, sense = Clock(), {"free_bytes": 100}
    looks = controller(
        portfolio, clock, up=1, dwell_s=1.0, objective=Objective(50.0, free_bytes=10), sense=lambda: sense
    )
    for _ in range(4):
        sense["free_bytes"] = 5
        clock.now += 0.1
        assert looks.step().after != "large"
        sense["free_bytes"] = 100
        clock.now += 1.1
        assert looks.step().after == "large"


def test_a_signal_is_followed_at_once(portfolio: Portfolio) -> None:
    looks = controller(portfolio, Clock(), dwell_s=100.0)
    looks.signal("fast")
    assert looks.step().after == "small"
    looks.signal("middle")
    assert looks.step().after == "middle"
    looks.signal("accurate")
    assert looks.step().after == "large"
    with pytest.raises(UsageError, match="no signal 'quick'"):
        looks.signal("quick")


def test_what_is_measured_now_counts(portfolio: Portfolio) -> None:
    """A machine that is three times as slow as it was: what was not run is expected to be so too."""
    looks = controller(portfolio, Clock())
    assert [c.run_ms for c in looks.candidates()] == [20.0, 10.0, 2.0]
    portfolio.timings["large"].extend([(time.monotonic(), 0.06)] * 20)
    found = [c.run_ms for c in looks.candidates()]
    assert found == pytest.approx([60.0, 30.0, 6.0])
    assert looks.step().after == "middle"  # 30 ms are in time, 60 are not


def test_old_measurements_do_not_count(portfolio: Portfolio) -> None:
    portfolio.timings["large"].extend([(time.monotonic() - 60, 0.06)] * 20)
    assert controller(portfolio, Clock()).candidates()[0].run_ms == 20.0


def test_conditions_are_of_the_last_seconds(portfolio: Portfolio) -> None:
    clock = Clock()
    looks = controller(portfolio, clock)
    clock.now += 5
    for _ in range(40):
        looks.arrived()
        looks.answered(0.01)
    found = looks.conditions(queue=3)
    assert (found.rate, found.queue) == (20.0, 3) and found.p95_ms == pytest.approx(10.0)
    clock.now += 10
    assert looks.conditions().rate == 0 and looks.conditions().p95_ms is None


def test_a_policy_of_ones_own(portfolio: Portfolio) -> None:
    def cautious(conditions: Any, candidates: list[Candidate], current: str, objective: Objective) -> Choice:
        return Choice(candidates[-1].name, "I am cautious")

    looks = controller(portfolio, Clock(), policy=cautious)
    assert str(looks.step()).endswith("large -> small: I am cautious")


def test_decisions_are_logged_and_explained(portfolio: Portfolio, caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    looks = controller(portfolio, clock)
    with caplog.at_level(logging.INFO, "prunec"):
        looks.signal("fast")
        looks.step()
        looks.signal(None)
        clock.now += 1
        looks.step()
    assert "large -> small: the user's signal: fast" in caplog.text
    first, last = looks.explain()
    assert "large -> small" in first and "stays on small" in last and "not yet large: wanted 1 of 5 times" in last


def test_a_variant_that_cannot_be_opened_changes_nothing(portfolio: Portfolio, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str, **why: str) -> None:
        raise ModelError("it is damaged")

    monkeypatch.setattr(portfolio, "switch", broken)
    looks = controller(portfolio, Clock())
    looks.signal("fast")
    decision = looks.step()
    assert decision.after == "large" and decision.held == "it is damaged"


def test_where_memory_is_short_the_others_are_closed(portfolio: Portfolio) -> None:
    sense = {"free_bytes": 100}
    looks = controller(portfolio, Clock(), objective=Objective(50.0, free_bytes=10), sense=lambda: sense)
    assert looks.step().after == "large" and len(portfolio.resident) == 3
    sense["free_bytes"] = 5
    looks.step()
    assert list(portfolio.resident) == [portfolio.active]


def test_a_rate_beyond_what_is_remembered(portfolio: Portfolio) -> None:
    clock = Clock()
    looks = controller(portfolio, clock)
    for _ in range(10_000):
        clock.now += 1e-4
        looks.arrived()
    assert looks.conditions().rate == pytest.approx(10_000, rel=0.01)


@pytest.mark.parametrize("wrong", ["small", None, Choice("none", "it is not there")])
def test_a_policy_that_returns_something_else(portfolio: Portfolio, wrong: object) -> None:
    looks = controller(portfolio, Clock(), policy=lambda *asked: wrong)
    with pytest.raises(UsageError, match="the policy returned"):
        looks.step()
