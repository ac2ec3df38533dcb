"""The service: what is taken is answered, a full queue refuses at once, and the end waits for what was taken."""

from __future__ import annotations

import threading
import time
from concurrent.futures import wait
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prunec.ir.errors import ModelError, UsageError
from prunec.runtime.policy import Choice
from prunec.runtime.portfolio import Portfolio
from prunec.runtime.service import Busy, Service
from prunec.runtime.switcher import Controller

from .portfolios import answers, made, question


@pytest.fixture
def portfolio(tmp_path: Path) -> Portfolio:
    made(tmp_path)
    return Portfolio.open(tmp_path)


def held(portfolio: Portfolio, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Runs wait for the event."""
    go, runs = threading.Event(), portfolio.run

    def waiting(*args: Any, **options: Any) -> Any:
        assert go.wait(30)
        return runs(*args, **options)

    monkeypatch.setattr(portfolio, "run", waiting)
    return go


def test_everybody_is_answered(portfolio: Portfolio) -> None:
    with Service(portfolio, workers=2, most_waiting=500) as service:
        questions = [question(seed) for seed in range(200)]
        futures = [service.submit(q, ("large", "middle", "small", None)[k % 4]) for k, q in enumerate(questions)]
        for q, future in zip(questions, futures):
            answer = future.result(timeout=60)
            np.testing.assert_allclose(answer["y"], answers(q)[answer.variant], atol=1e-3)
        assert [f.result().variant for f in futures[:4]] == ["large", "middle", "small", "large"]


def test_a_full_queue_refuses_at_once(portfolio: Portfolio, monkeypatch: pytest.MonkeyPatch) -> None:
    go = held(portfolio, monkeypatch)
    with Service(portfolio, most_waiting=3) as service:
        futures = [service.submit(question())]
        while service.depth:  # until the worker has taken it
            time.sleep(0.001)
        futures += [service.submit(question()) for _ in range(3)]
        assert len(futures) == 4 and service.depth + 1 == len(futures)
        with pytest.raises(Busy, match="3 requests wait already"):
            service.submit(question())
        go.set()
        assert len([f.result(timeout=60) for f in futures]) == 4


def test_stopping_answers_what_was_taken(portfolio: Portfolio, monkeypatch: pytest.MonkeyPatch) -> None:
    go = held(portfolio, monkeypatch)
    service = Service(portfolio)
    futures = [service.submit(question()) for _ in range(10)]
    ended = threading.Thread(target=service.stop)
    ended.start()
    while True:
        try:
            futures.append(service.submit(question()))
            time.sleep(0.001)
        except Busy:
            break
    go.set()
    ended.join(60)
    assert all(f.done() and f.result() for f in futures)


def test_a_stop_that_takes_too_long_is_told(portfolio: Portfolio, monkeypatch: pytest.MonkeyPatch) -> None:
    go = held(portfolio, monkeypatch)
    service = Service(portfolio)
    future = service.submit(question())
    assert not service.stop(0.05)
    go.set()
    wait([future], 60)
    assert future.result().variant == "large"


def test_what_goes_wrong_belongs_to_the_one_who_asked(portfolio: Portfolio, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = portfolio.run

    def sometimes(inputs: Any, *args: Any, **options: Any) -> Any:
        if inputs["x"][0, 0] == 7:
            raise ModelError("no sevens")
        return runs(inputs, *args, **options)

    monkeypatch.setattr(portfolio, "run", sometimes)
    bad = {"x": np.full((1, 16), 7, np.float32)}
    with Service(portfolio) as service:
        futures = [service.submit(q) for q in (question(), bad, question())]
        assert futures[0].result(60) and futures[2].result(60)
        with pytest.raises(ModelError, match="no sevens"):
            futures[1].result(60)
        with pytest.raises(UsageError, match="has the shape"):
            service.submit({"x": np.zeros((1, 2), np.float32)})
        with pytest.raises(UsageError, match="no variant 'none'"):
            service.submit(question(), "none")


def test_the_controller_looks_on(portfolio: Portfolio) -> None:
    looks = Controller(portfolio, up=1, dwell_s=0.0, policy=lambda *asked: Choice("small", "it is small"))
    with Service(portfolio, looks, every_s=0.01) as service:
        until = time.monotonic() + 30
        while not service.switched and time.monotonic() < until:
            service.submit(question()).result(60)
        assert service.switched


def test_a_policy_that_fails_ends_nothing(portfolio: Portfolio) -> None:
    asked = threading.Event()

    def broken(*args: Any) -> Choice:
        asked.set()
        raise RuntimeError("what now?")

    with Service(portfolio, Controller(portfolio, policy=broken), every_s=0.01) as service:
        assert asked.wait(30)
        assert service.submit(question()).result(60).variant == "large"


@pytest.mark.parametrize("wrong", [{"workers": 0}, {"most_waiting": 0}])
def test_a_service_that_answers_nobody(portfolio: Portfolio, wrong: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="answers nobody"):
        Service(portfolio, **wrong)  # type: ignore[arg-type]
