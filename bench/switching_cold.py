"""From nothing to the first answer: default sessions of plain files against variants of a portfolio that are not open.

Each is measured in a process of its own, one kind after another.  Files are in the system's cache, as the files of a
process that starts again are.  *switch* is a switch of a lazy portfolio, which runs a variant once before it answers,
so that its time has two runs in it.  Where ONNX Runtime's default is fewer threads than a portfolio's sessions have,
runs differ by that too: *threads* is a default session with as many.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .switching_alone import alone
from .switching_variants import Variants
from .switching_verdict import Verdict

FASTER = 5.0
PARTS = ("creation", "first", "steady")
TOTAL = "total"
OURS = ("created", "switched")


def kinds(variants: Variants, threads: int) -> dict[str, Callable[[str], dict[str, float]]]:
    """What is measured of a variant, by name."""
    other = {n: variants.names[k - 1] for k, n in enumerate(variants.names)}
    return {
        "default": lambda n: alone("default", model=variants.file(n)),
        "threads": lambda n: alone("default", model=variants.file(n), threads=threads),
        "created": lambda n: alone("created", folder=variants.folder, name=n, other=other[n]),
        "switched": lambda n: alone("switched", folder=variants.folder, name=n, other=other[n]),
    }


def colds(variants: Variants, names: Sequence[str], *, repeats: int, threads: int) -> dict[str, Any]:
    """Medians of ``repeats`` processes for each kind and each of the variants ``names``."""
    measure = kinds(variants, threads)
    seen: dict[str, dict[str, list[dict[str, float]]]] = {n: {k: [] for k in measure} for n in names}
    for turn in range(repeats):
        order = list(measure)
        order = order[turn % len(order) :] + order[: turn % len(order)]
        for name in names:
            for kind in order:
                seen[name][kind].append(measure[kind](name))
    rows = {n: {k: _medians(times) for k, times in by.items()} for n, by in seen.items()}
    return {"repeats": repeats, "threads": threads, "variants": rows, "faster": {k: faster(rows, k) for k in OURS}}


def _medians(times: Sequence[dict[str, float]]) -> dict[str, float]:
    found = {part: float(np.median([t[part] for t in times])) for part in PARTS}
    return {**found, TOTAL: float(np.median([t["creation"] + t["first"] for t in times]))}


def faster(rows: dict[str, dict[str, dict[str, float]]], kind: str, than: str = "default") -> float:
    """Median over the variants of how many times faster ``kind`` is."""
    return float(np.median([by[than][TOTAL] / by[kind][TOTAL] for by in rows.values()]))


def verdicts(found: dict[str, Any]) -> list[Verdict]:
    """What is promised of a variant that is not open."""
    return [
        Verdict("times faster: creation and first run", found["faster"]["created"], FASTER, more=True),
        Verdict("times faster: switch to one not open, and first run", found["faster"]["switched"], FASTER, more=True),
    ]


def table(found: dict[str, Any]) -> str:
    """The figures as people read them."""
    lines = [
        f"cold: medians of {found['repeats']} processes, ms",
        f"{'variant':<12}{'':<10}{'creation':>10}{'first run':>11}{'steady':>9}{'both':>9}{'times faster':>14}",
    ]
    for name, by in found["variants"].items():
        for kind, row in by.items():
            label = f"{found['threads']} threads" if kind == "threads" else kind
            lines.append(
                f"{name if kind == 'default' else '':<12}{label:<10}{row['creation']:>10.1f}{row['first']:>11.1f}"
                f"{row['steady']:>9.1f}{row[TOTAL]:>9.1f}{by['default'][TOTAL] / row[TOTAL]:>14.2f}"
            )
    run = np.median([by["created"]["steady"] / by["created"][TOTAL] for by in found["variants"].values()])
    lines.append(f"of creation and first run of a variant of the portfolio, {run:.0%} is what a steady run takes")
    return "\n".join(lines)
