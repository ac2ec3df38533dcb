"""Memory of five variants that are open at once: default sessions in one process, a portfolio in another.

*private* is what is written to and the process's own, and can go nowhere but to swap; *uss* is all that is its own,
clean pages of files included that no other process maps now; *pss* is with its share of what others map.
"""

from __future__ import annotations

from typing import Any

from .switching_alone import alone
from .switching_variants import Variants
from .switching_verdict import Verdict

SHARE = 0.1
KINDS = ("private", "uss", "pss")


def memories(variants: Variants) -> dict[str, Any]:
    """Bytes beyond those of a process that has run a session of nearly nothing, and their ratios."""
    default = alone("sessions_memory", models=[variants.file(n) for n in variants.names])
    portfolio = alone("portfolio_memory", folder=variants.folder)
    return {
        "variants": len(variants.names),
        "default": default,
        "portfolio": portfolio,
        "ratio": {k: portfolio[k] / default[k] for k in KINDS},
    }


def verdicts(found: dict[str, Any]) -> list[Verdict]:
    """What is promised of memory."""
    what = f"private memory of {found['variants']} variants to that of as many default sessions"
    return [Verdict(what, found["ratio"]["private"], SHARE)]


def table(found: dict[str, Any]) -> str:
    """The figures as people read them."""
    lines = [f"{'memory, MB':<12}{'default sessions':>18}{'portfolio':>12}{'ratio':>8}"]
    for kind in KINDS:
        default, ours = found["default"][kind] / 1e6, found["portfolio"][kind] / 1e6
        lines.append(f"{kind:<12}{default:>18.1f}{ours:>12.1f}{found['ratio'][kind]:>8.3f}")
    return "\n".join(lines)
