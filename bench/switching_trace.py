"""A load that changes, against fixed variants, the controller, and reloading.

All answer the same trace (:mod:`bench.switching_load`) with the same service, one worker and a bounded queue.  *fixed*
stays on one variant; *controller* is prunec's, over a portfolio whose variants are open; *reloading* has the same
controller and policy, and makes a default session of the plain file at each switch while requests wait.  Memory
pressure is told to the controller in place of what the machine has free; nothing is taken from the machine.  It closes
all variants but one then, so that the switch that follows opens one, while requests go on being answered.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

try:
    from prunec.runtime.manifest import Manifest
except ImportError:  # a bare clone: the root of the repository is the package
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / ".dev"))
    from prunec.runtime.manifest import Manifest

from prunec.runtime.policy import Objective
from prunec.runtime.portfolio import Portfolio
from prunec.runtime.switcher import Controller

from .switching_digits import THREADS
from .switching_load import PHASES, Load, Phase, load
from .switching_reloading import Reloading
from .switching_replay import Clock, Played, play
from .switching_requests import Requests
from .switching_summary import summary
from .switching_variants import Variants
from .switching_verdict import Verdict

RUNS = 6
"""The objective: 95 of 100 requests take this many runs of the largest variant, at most."""

FREE, LEAST = 4 * 10**9, 10**9
"""Bytes that are free, and that are to be; under pressure there are none."""

CONTROLLER, RELOADING = "controller", "reloading"


def traces(
    variants: Variants, requests: Requests, fixed: Sequence[str], *, seed: int, phases: Sequence[Phase] = PHASES
) -> dict[str, Any]:
    """What became of the trace for each contender: the variants ``fixed``, the controller, reloading."""
    run_ms = _run_ms(variants, requests)
    objective = Objective(p95_ms=RUNS * run_ms, free_bytes=LEAST)
    trace = load(1e3 / run_ms, len(requests), seed=seed, phases=phases)
    played = {
        **{f"fixed {n}": _fixed(n, variants, trace, requests) for n in fixed},
        CONTROLLER: _controlled(Portfolio.open(variants.folder, threads=THREADS), objective, trace, requests),
        RELOADING: _controlled(_reloading(variants), objective, trace, requests),
    }
    assert objective.p95_ms is not None
    return {
        "objective_ms": objective.p95_ms,
        "capacity": trace.capacity,
        "seconds": trace.seconds,
        "apart": requests.apart,
        "phases": [
            {"name": p.name, "seconds": p.seconds, "rate": [p.rate, p.last], "pressed": p.pressed} for p in trace.phases
        ],
        "variants": {
            n: {"accuracy": v.accuracy, "latency_ms": v.latency_ms, "memory_bytes": v.memory_bytes}
            for n, v in Manifest.read(variants.folder).variants.items()
        },
        "contenders": {n: summary(p, trace, objective.p95_ms) for n, p in played.items()},
    }


def _run_ms(variants: Variants, requests: Requests, runs: int = 30) -> float:
    """The median of a request on the largest variant."""
    portfolio = Portfolio.open(variants.folder, variant=variants.names[0], sessions="lazy", threads=THREADS)
    feeds = {portfolio.inputs[0].name: requests.images[0]}
    return float(np.median([portfolio.run(feeds).seconds for _ in range(runs)])) * 1e3


def _fixed(name: str, variants: Variants, trace: Load, requests: Requests) -> Played:
    return play(
        Portfolio.open(variants.folder, variant=name, sessions="lazy", threads=THREADS), trace, requests, Clock()
    )


def _reloading(variants: Variants) -> Reloading:
    first = Portfolio.open(variants.folder, sessions="lazy", threads=THREADS).active
    return Reloading(variants.folder, variants.plain, first, THREADS)


def _controlled(portfolio: Portfolio, objective: Objective, trace: Load, requests: Requests) -> Played:
    clock = Clock()

    def sense() -> Mapping[str, Any]:
        pressed = trace.phases[trace.phase(clock())].pressed
        return {"free_bytes": 0 if pressed else FREE}

    return play(portfolio, trace, requests, clock, Controller(portfolio, objective, sense=sense))


def verdicts(found: dict[str, Any]) -> list[Verdict]:
    """What is promised of switching under load: nothing is lost, and each answer is its variant's."""
    rows = found["contenders"].values()
    return [
        Verdict("requests lost, of all contenders", sum(r["lost"] for r in rows), 0),
        Verdict("answers that are not their variant's", sum(r["wrong"] for r in rows), 0),
    ]


def table(found: dict[str, Any]) -> str:
    """The figures as people read them."""
    lines = [
        f"trace: {found['seconds']:.0f} s, {next(iter(found['contenders'].values()))['requests']:,} requests; "
        f"the largest variant answers {found['capacity']:.0f} a second; objective {found['objective_ms']:.0f} ms",
        f"{'variant':<16}{'accuracy':>10}{'latency':>12}{'memory':>12}",
    ]
    for name, v in found["variants"].items():
        memory = f"{v['memory_bytes'] / 1e6:.1f} MB"
        lines.append(f"{name:<16}{v['accuracy']:>8.2f} %{v['latency_ms']:>9.2f} ms{memory:>12}")
    lines.append(
        f"{'contender':<16}{'p50 ms':>9}{'p95 ms':>9}{'p99 ms':>9}{'late':>8}{'refused':>9}{'lost':>6}{'wrong':>7}"
        f"{'accuracy':>10}{'in time':>9}{'switches':>10}{'switching':>12}"
    )
    lines += [_line(name, row) for name, row in found["contenders"].items()]
    lines.append("late, by phase".ljust(16) + "".join(f"{p['name']:>10}" for p in found["phases"]))
    for name, row in found["contenders"].items():
        lines.append(f"{name:<16}" + "".join(f"{p['late']:>10.1%}" for p in row["phases"]))
    stalled = max(row["client_late_ms"] for row in found["contenders"].values())
    lines.append(f"the client itself was late by {stalled:.0f} ms at most, which counts as latency")
    return "\n".join(lines)


def _line(name: str, row: dict[str, Any]) -> str:
    times = "".join(f"{row[k] or float('nan'):>9.1f}" for k in ("p50_ms", "p95_ms", "p99_ms"))
    return (
        f"{name:<16}{times}{row['late']:>8.1%}{row['refused']:>9,}{row['lost']:>6}{row['wrong']:>7}"
        f"{row['accuracy'] or 0:>10.1%}{row['in_time']:>9.1%}{row['switches']:>10}{row['switching_ms']:>9.1f} ms"
    )
