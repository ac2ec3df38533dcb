"""Which variants nobody needs: those that another one is at least as good as in everything, and better in something.

Measured figures that are nearly equal count as equal, so that noise makes no variant needless.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from .manifest import Manifest
from .variant import Variant

ALIKE = {"latency_ms": 0.03, "memory_bytes": 0.05, "size_bytes": 0.0}
"""What is smaller is better; within this share of each other figures are alike."""


def marked(manifest: Manifest) -> Manifest:
    """``manifest`` with :attr:`~.variant.Variant.dominated_by` of all its variants."""
    variants = manifest.variants.values()
    found = {v.name: replace(v, dominated_by=dominator(v, variants)) for v in variants}
    return replace(manifest, variants=found)


def dominator(variant: Variant, others: Iterable[Variant]) -> str | None:
    """The most accurate, of those the fastest, that dominates ``variant``; None where none does."""
    found = [other for other in others if dominates(other, variant)]
    best = max(found, key=lambda v: v.worth, default=None)
    return best.name if best else None


def dominates(one: Variant, other: Variant) -> bool:
    """Whether ``one`` is nowhere worse than ``other``, and somewhere better; False where a figure is missing."""
    if one.accuracy is None or other.accuracy is None:
        return False
    better = [one.accuracy > other.accuracy]
    for name, share in ALIKE.items():
        a, b = getattr(one, name), getattr(other, name)
        if a is None or b is None or a > b * (1 + share):
            return False
        better.append(a < b * (1 - share))
    return one.accuracy >= other.accuracy and any(better)
