"""What variants of a portfolio take on this machine: time of a run, in turns; memory, each in a process of its own.

Whether weights are packed again at load (ONNX Runtime's prepacking, which some kernels are faster with, and which costs
memory that no two sessions share) is measured too, and done only where it pays.  Start at :func:`measured`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from ..ir.errors import EnvironmentProblem
from .manifest import Manifest
from .opened import Opened
from .portfolio import example
from .prepare import machine
from .profile import quiet
from .session import Array
from .store import slim_bytes
from .variant import Prepared, Variant

K = TypeVar("K")

PAYS = 0.9
"""Prepacking is done where a run then takes this share of the time, or less; nearer to 1 it is noise."""

_WORKER = Path(__file__).with_name("measured_worker.py")
_WORKER_S = 300.0
_LEAST, _MOST = 7, 200
_TRIAL_S = 0.5


def measured(
    manifest: Manifest,
    *,
    budget_s: float = 4.0,
    threads: int | None = None,
    tell: Callable[[str], None] = lambda what: None,
) -> Manifest:
    """``manifest`` with the latencies and the memory of all its variants, which are prepared for this machine.

    ``budget_s`` seconds are spent on running them in turns, or as long as seven rounds take; ``threads`` are those of a
    run, None: the cores that this process may use.

    Raises
    ------
    ModelError
        A variant does not run, or its tensors are not those that were stored.
    """
    folder = manifest.pack.path.parent
    manifest.pack.check({t for v in manifest.variants.values() for t in v.prepared[machine()].tensors})
    feeds = example(manifest)
    tell("latency")
    chosen = {name: _prepacking(folder, variant, feeds, threads) for name, variant in manifest.variants.items()}
    sessions = {name: _opened(folder, name, own, threads) for name, own in chosen.items()}
    times = _in_turns(sessions, feeds, budget_s)
    sessions.clear()
    found = {}
    for name, variant in manifest.variants.items():
        tell(f"memory of {name}")
        own = replace(
            chosen[name],
            latency_ms=float(np.median(times[name])),
            p95_ms=float(np.percentile(times[name], 95)),
            memory_bytes=_memory(folder, chosen[name], manifest),
        )
        found[name] = with_measures(variant, own)
    return replace(manifest, variants=found)


def with_measures(variant: Variant, own: Prepared) -> Variant:
    """``variant`` with what was measured of the model that is prepared for this machine."""
    return replace(
        variant, latency_ms=own.latency_ms, p95_ms=own.p95_ms, memory_bytes=own.memory_bytes,
        prepared={**variant.prepared, machine(): own},
    )  # fmt: skip


def _prepacking(folder: Path, variant: Variant, feeds: Mapping[str, Array], threads: int | None) -> Prepared:
    """The prepared model, with the choice whether it is packed again."""
    own = variant.prepared[machine()]
    forms = {p: _opened(folder, variant.name, replace(own, prepack=p), threads) for p in (False, True)}
    times = _in_turns(forms, feeds, _TRIAL_S)
    return replace(own, prepack=bool(np.median(np.divide(times[True], times[False])) <= PAYS))


def _opened(folder: Path, name: str, own: Prepared, threads: int | None) -> Opened:
    return Opened(name, slim_bytes(folder, own), folder, threads, prepared=True, prepack=own.prepack)


def _in_turns(sessions: Mapping[K, Opened], feeds: Mapping[str, Array], budget_s: float) -> dict[K, list[float]]:
    """Milliseconds of runs, one of each session after another, each round in another order."""
    order = list(sessions)
    times: dict[K, list[float]] = {k: [] for k in order}
    for k in order:
        sessions[k].run(feeds)
    until = time.perf_counter() + budget_s
    with quiet():
        for turn in range(_MOST):
            if turn >= _LEAST and time.perf_counter() > until:
                break
            for k in order[turn % len(order) :] + order[: turn % len(order)]:
                times[k].append(sessions[k].run(feeds).seconds * 1e3)
    return times


def _memory(folder: Path, own: Prepared, manifest: Manifest) -> int:
    """Private bytes that a session of one's own takes, after a run."""
    shapes = [f"{name}={'x'.join(map(str, array.shape))}" for name, array in example(manifest).items()]
    told = "see that this Python can start processes that import prunec"
    try:
        done = subprocess.run(
            [sys.executable, "-P", str(_WORKER), str(folder / own.file), str(int(own.prepack)), *shapes],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            capture_output=True, text=True, check=False, timeout=_WORKER_S,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EnvironmentProblem(f"measuring memory in another process failed: {error}", hint=told) from error
    if done.returncode or not done.stdout.strip().isdigit():
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise EnvironmentProblem(f"the process that measures memory failed: {last}", hint=told)
    return int(done.stdout)
