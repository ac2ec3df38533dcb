"""One measurement of :mod:`bench.switching`, as a program: nothing of another one is in its process, and no torch.

Arguments: the name of a function here, and its own arguments as JSON.  Prints what it returns as JSON.  Times are
milliseconds.  Each has imported ONNX Runtime and run a session of nearly nothing before it measures.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import psutil
from onnx import TensorProto, helper

try:
    from prunec.runtime.opened import Opened
except ImportError:  # a bare clone: the root of the repository is the package
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / ".dev"))
    from prunec.runtime.opened import Opened

from prunec.runtime.portfolio import Portfolio, chosen
from prunec.runtime.session import Array, ort_input, random_feeds
from prunec.runtime.store import slim_bytes
from prunec.runtime.variant import Prepared

Run = Callable[[], object]
STEADY = 5
"""Runs after the first, whose median is a steady one."""


def default(model: str, threads: int | None = None) -> dict[str, float]:
    """A default session of a plain file, with ``threads`` inside an op where that is given, and its first run."""
    options = ort.SessionOptions()
    if threads:
        options.intra_op_num_threads = threads
    start = time.perf_counter()
    session = ort.InferenceSession(model, options)
    created = time.perf_counter()
    feeds = random_feeds(tuple(map(ort_input, session.get_inputs())), batch=1)
    return _times(created - start, lambda: session.run(None, feeds))


def created(folder: str, name: str, other: str) -> dict[str, float]:
    """A session over the pack, in a process that has ``other`` open, and its first run."""
    portfolio = Portfolio.open(folder, variant=other, sessions="lazy")
    feeds = random_feeds(portfolio.inputs, batch=1)
    start = time.perf_counter()
    stored = chosen(portfolio.variants[name])
    packs = stored.prepack if isinstance(stored, Prepared) else True
    opened = Opened(
        name, slim_bytes(portfolio.folder, stored), portfolio.folder, None,
        prepared=isinstance(stored, Prepared), prepack=packs,
    )  # fmt: skip
    return _times(time.perf_counter() - start, lambda: opened.run(feeds))


def switched(folder: str, name: str, other: str) -> dict[str, float]:
    """A switch to a variant that is not open, which opens it and runs it once, and the first run after it."""
    portfolio = Portfolio.open(folder, variant=other, sessions="lazy")
    feeds = random_feeds(portfolio.inputs, batch=1)
    start = time.perf_counter()
    portfolio.switch(name)
    return _times(time.perf_counter() - start, lambda: portfolio.run(feeds))


def swap(folder: str, switches: int, rounds: int, seed: int) -> dict[str, Any]:
    """Switches between variants that are all open, in random order; then first runs after one, and those that follow.

    ``first`` and ``steady`` are of each variant in each round, which goes through all of them in another order; what
    is steady is the mean of two runs that follow the first.
    """
    portfolio = Portfolio.open(folder)
    feeds = random_feeds(portfolio.inputs, batch=1)
    draw = random.Random(seed)
    names = list(portfolio.variants)
    taken = []
    for _ in range(switches):
        name = draw.choice([n for n in names if n != portfolio.active])
        taken.append(_ms(lambda name=name: portfolio.switch(name)))  # type: ignore[misc]
    found: dict[str, Any] = {
        "switch_ms": taken,
        "first_ms": {n: [] for n in names},
        "steady_ms": {n: [] for n in names},
    }
    for _ in range(rounds):
        for name in draw.sample(names, len(names)):
            portfolio.switch(name)
            first, *rest = (_ms(lambda: portfolio.run(feeds)) for _ in range(3))
            found["first_ms"][name].append(first)
            found["steady_ms"][name].append(float(np.mean(rest)))
    return found


def sessions_memory(models: Sequence[str], runs: int = 3) -> dict[str, int]:
    """Memory of a default session for each of the plain files ``models``, each run a few times."""
    before = memory()
    sessions = [ort.InferenceSession(model) for model in models]
    for session in sessions:
        feeds = random_feeds(tuple(map(ort_input, session.get_inputs())), batch=1)
        for _ in range(runs):
            session.run(None, feeds)
    return _since(before)


def portfolio_memory(folder: str, runs: int = 3) -> dict[str, int]:
    """Memory of a portfolio whose variants are all open, each run a few times."""
    before = memory()
    portfolio = Portfolio.open(folder)
    feeds = random_feeds(portfolio.inputs, batch=1)
    for name in portfolio.variants:
        portfolio.switch(name)
        for _ in range(runs):
            portfolio.run(feeds)
    return _since(before)


def memory() -> dict[str, int]:
    """Bytes of this process: private and written to (``private``), its own (``uss``), with its share of others'."""
    process = psutil.Process()
    full = process.memory_full_info()
    dirty = sum(m.private_dirty for m in process.memory_maps())
    return {"private": dirty, "uss": full.uss, "pss": full.pss}


WHAT: Mapping[str, Callable[..., Any]] = {
    f.__name__: f for f in (default, created, switched, swap, sessions_memory, portfolio_memory)
}


def main(what: str, arguments: str) -> int:
    """Measure, and print it."""
    _run_nothing()
    print(json.dumps(WHAT[what](**json.loads(arguments))))
    return 0


def _since(before: Mapping[str, int]) -> dict[str, int]:
    return {key: value - before[key] for key, value in memory().items()}


def _times(seconds: float, run: Run) -> dict[str, float]:
    """Creation, the first run, and the median of those that follow."""
    first = _ms(run)
    return {"creation": seconds * 1e3, "first": first, "steady": float(np.median([_ms(run) for _ in range(STEADY)]))}


def _ms(run: Run) -> float:
    start = time.perf_counter()
    run()
    return (time.perf_counter() - start) * 1e3


def _run_nothing() -> None:
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "nothing", value[:1], value[1:])
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 15)])
    feeds: dict[str, Array] = {"x": np.ones(1, np.float32)}
    ort.InferenceSession(model.SerializeToString()).run(None, feeds)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
