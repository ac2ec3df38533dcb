"""How long a switch between open variants takes, and whether the run after it takes longer than others."""

from __future__ import annotations

from typing import Any

import numpy as np

from .switching_alone import alone
from .switching_variants import Variants
from .switching_verdict import Verdict

SWAP_MS = 0.1
FIRST = 1.2


def swaps(variants: Variants, *, switches: int, rounds: int, seed: int) -> dict[str, Any]:
    """Median and 99th percentile of ``switches`` switches; medians over ``rounds`` of runs of each variant."""
    found = alone("swap", folder=variants.folder, switches=switches, rounds=rounds, seed=seed)
    first, steady = ({n: np.array(found[k][n]) for n in variants.names} for k in ("first_ms", "steady_ms"))
    ratios = {n: first[n] / steady[n] for n in variants.names}
    return {
        "switches": switches,
        "switch_ms": float(np.median(found["switch_ms"])),
        "switch_p99_ms": float(np.percentile(found["switch_ms"], 99)),
        "rounds": rounds,
        "first_to_steady": float(np.median(np.concatenate(list(ratios.values())))),
        "variants": {
            n: {
                "first_ms": float(np.median(first[n])),
                "steady_ms": float(np.median(steady[n])),
                "first_to_steady": float(np.median(ratios[n])),
            }
            for n in variants.names
        },
    }


def verdicts(found: dict[str, Any]) -> list[Verdict]:
    """What is promised of a swap."""
    return [
        Verdict("a swap between open variants", found["switch_ms"], SWAP_MS, " ms"),
        Verdict("the first run after it to a steady one", found["first_to_steady"], FIRST),
    ]


def table(found: dict[str, Any]) -> str:
    """The figures as people read them."""
    lines = [
        f"swap: {found['switches']:,} switches between open variants, "
        f"median {found['switch_ms']:.4f} ms, p99 {found['switch_p99_ms']:.4f} ms",
        f"{'variant':<12}{'first run after':>18}{'steady':>12}{'ratio':>8}   medians of {found['rounds']} rounds",
    ]
    for name, row in found["variants"].items():
        lines.append(f"{name:<12}{row['first_ms']:>15.2f} ms{row['steady_ms']:>9.2f} ms{row['first_to_steady']:>8.3f}")
    return "\n".join(lines)
