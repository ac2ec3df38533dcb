"""Policies: which variant the conditions call for, as a table."""

from __future__ import annotations

import pytest

from prunec.ir.errors import UsageError
from prunec.runtime.conditions import Conditions, of_machine
from prunec.runtime.policy import Candidate, Objective, most_accurate_in_time

LARGE, MIDDLE, SMALL = (
    Candidate("large", 20.0, 24.0, 0.9, 300, 0),
    Candidate("middle", 10.0, 12.0, 0.8, 200, 1),
    Candidate("small", 2.0, 3.0, 0.6, 100, 2),
)
ALL = (LARGE, MIDDLE, SMALL)


@pytest.mark.parametrize(
    ("conditions", "current", "objective", "wanted", "why"),
    [
        (Conditions(), "large", Objective(), "large", "no objective"),
        (Conditions(rate=1), "large", Objective(30), "large", "in time"),
        (Conditions(rate=1), "large", Objective(20), "middle", "in time"),
        (Conditions(rate=1), "small", Objective(30), "middle", "in time"),  # large would leave no room
        (Conditions(rate=1), "small", Objective(60), "large", "in time"),
        (Conditions(rate=60), "large", Objective(60), "middle", "in time"),  # large would be busy without end
        (Conditions(rate=1, queue=10), "large", Objective(60), "small", "in time"),
        (Conditions(rate=1), "large", Objective(2), "small", "none is expected"),
        (Conditions(rate=1), "large", Objective(2, accuracy=0.7), "middle", "none is expected"),
        (Conditions(free_bytes=5), "large", Objective(100, free_bytes=10), "small", "are free"),
        (Conditions(free_bytes=50), "large", Objective(100, free_bytes=10), "large", "in time"),
        (Conditions(battery=0.1), "large", Objective(100), "small", "battery has 10%"),
        (Conditions(battery=0.5), "large", Objective(100), "large", "in time"),
        (Conditions(signal="fast"), "large", Objective(100), "small", "signal"),
        (Conditions(signal="accurate", rate=90), "small", Objective(3), "large", "signal"),
        (Conditions(signal="middle", battery=0.1), "small", Objective(3), "middle", "signal"),
        (Conditions(rate=100), "large", Objective(60, workers=4), "large", "in time"),
    ],
)
def test_what_is_called_for(conditions: Conditions, current: str, objective: Objective, wanted: str, why: str) -> None:
    choice = most_accurate_in_time(conditions, ALL, current, objective)
    assert choice.name == wanted
    assert why in choice.why


def test_what_takes_nearly_as_little_memory_may_be_chosen() -> None:
    alike = (LARGE, Candidate("middle", 10.0, 12.0, 0.8, 104, 1), SMALL)
    asked = Objective(100, free_bytes=10)
    assert most_accurate_in_time(Conditions(free_bytes=5), alike, "large", asked).name == "middle"


def test_what_was_seen_of_the_current_one_counts() -> None:
    assert most_accurate_in_time(Conditions(rate=1, p95_ms=80), ALL, "large", Objective(50)).name == "middle"
    assert most_accurate_in_time(Conditions(rate=1, p95_ms=40), ALL, "large", Objective(50)).name == "large"


def test_where_nobody_measured_accuracy_the_first_is_best() -> None:
    unknown = [Candidate(c.name, c.run_ms, c.slow_ms, None, c.memory_bytes, c.rank) for c in ALL]
    assert most_accurate_in_time(Conditions(), unknown, "small", Objective()).name == "large"
    assert most_accurate_in_time(Conditions(rate=1), unknown, "large", Objective(20)).name == "middle"


def test_an_accuracy_that_none_has_is_the_best_there_is() -> None:
    assert most_accurate_in_time(Conditions(), ALL, "small", Objective(accuracy=0.99)).name == "large"


def test_more_load_never_calls_for_a_slower_variant() -> None:
    names = [
        most_accurate_in_time(Conditions(rate=rate), ALL, "large", Objective(50)).name for rate in range(0, 600, 5)
    ]
    ranks = [("large", "middle", "small").index(name) for name in names]
    assert ranks == sorted(ranks) and set(ranks) == {0, 1, 2}


@pytest.mark.parametrize("wrong", [{"p95_ms": 0}, {"p95_ms": -1}, {"battery": 2}])
def test_objectives_that_make_no_sense(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=r"cannot be|an objective of"):
        Objective(**wrong)  # type: ignore[arg-type]


def test_what_the_machine_tells() -> None:
    found = Conditions(**of_machine())
    assert found.free_bytes is not None and found.free_bytes > 0
    assert found.battery is None or 0 <= found.battery <= 1
    assert found.frequency is None or 0 < found.frequency <= 1
    assert found.as_dict()["free_bytes"] == found.free_bytes
