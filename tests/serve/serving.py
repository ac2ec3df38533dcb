"""A real portfolio of two tiny variants, and a real server for it in a thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from prunec.runtime.opened import Answer
from prunec.runtime.portfolio import Portfolio
from prunec.runtime.service import Service
from prunec.runtime.store import Entry, writing
from prunec.serve import HttpServer, Limits

from ..runtime.onnx_models import linear
from .client import Array, Reply, as_json, infer, outputs

MODEL, DENSE, SMALL = "tiny", "dense", "small"
EXAMPLE = {"x": np.array([[1.0, 2.0, 3.0, 4.5]], np.float32)}
WAIT_S = 30.0


def make_portfolio(folder: Path, models: dict[str, onnx.ModelProto] | None = None) -> Portfolio:
    """A portfolio of ``models``; None: two that compute different things."""
    models = models or {DENSE: linear(depth=2), SMALL: linear()}
    with writing(folder, MODEL) as store:
        store.add([Entry(n, m, accuracy=0.9 - k / 10) for k, (n, m) in enumerate(models.items())])
        store.commit()
    return Portfolio.open(folder, threads=1)


@dataclass
class Running:
    """A server that answers."""

    url: str
    service: Service
    server: HttpServer
    thread: threading.Thread

    @property
    def portfolio(self) -> Portfolio:
        return self.service.portfolio

    def infer(self, request: bytes, header: int | None = None, *, variant: str = "") -> Reply:
        return infer(self.url, MODEL, request, header, variant=variant)

    def check(self) -> None:
        """A client that behaves gets the right answer."""
        reply = self.infer(as_json(EXAMPLE))
        assert reply.status == 200, reply.body
        np.testing.assert_array_equal(outputs(reply)["y"], self.portfolio.run(EXAMPLE)["y"])


@contextmanager
def running(portfolio: Portfolio, limits: Limits | None = None, **options: Any) -> Iterator[Running]:
    """A server in a thread, stopped in the end; ``options`` are the service's."""
    service = Service(portfolio, **options)
    server = HttpServer(service, port=0, limits=limits or Limits(notice_s=0))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield Running(server.url, service, server, thread)
    finally:
        server.stop()
        thread.join(WAIT_S)
        assert not thread.is_alive()


def until(condition: Callable[[], bool]) -> None:
    """Wait for what is to happen soon; fails where it does not happen at all."""
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


class Gate:
    """Runs of a portfolio wait here until the gate is opened; ``entered`` counts them."""

    def __init__(self, portfolio: Portfolio) -> None:
        self._run, self._open = portfolio.run, threading.Event()
        self.entered = 0

    def run(self, inputs: Any, outputs: Sequence[str] | None = None, *, variant: str | None = None) -> Answer:
        self.entered += 1
        assert self._open.wait(WAIT_S)
        return self._run(inputs, outputs, variant=variant)

    def open(self) -> None:
        self._open.set()


def random_array(dtype: np.dtype[Any], shape: Sequence[int], seed: int = 0) -> Array:
    """Any elements that JSON can say."""
    rng = np.random.default_rng(seed)
    if dtype.kind == "O":
        found = np.empty(int(np.prod(shape)), object)
        found[:] = [("", "a", "ÿ", "漢字", '"\\\n')[k] for k in rng.integers(5, size=found.size)]
        return found.reshape(tuple(shape))
    if dtype.kind == "b":
        return rng.random(tuple(shape)) < 0.5
    if dtype.kind in "ui":
        known = np.iinfo(dtype)
        return rng.integers(known.min, known.max, tuple(shape), dtype, endpoint=True)
    return (rng.standard_normal(tuple(shape)) * 100).astype(dtype)
