"""A portfolio as a table: what each variant is worth, and what it takes."""

from __future__ import annotations

from collections.abc import Iterator

from ..runtime.manifest import Manifest
from ..runtime.prepare import machine
from ..runtime.variant import Variant
from ..wording import quantity

HEADS = ("variant", "accuracy", "latency", "p95", "size", "memory", "parameters", "density", "")
RIGHT = (1, 2, 3, 4, 5, 6, 7)


def rows(manifest: Manifest) -> list[tuple[str, ...]]:
    """One row a variant, in the columns :data:`HEADS`."""
    return [_row(v) for v in manifest.variants.values()]


def lines(manifest: Manifest) -> Iterator[str]:
    """What the table leaves open."""
    stored = {t for v in manifest.variants.values() for t in v.stored.tensors}
    places = manifest.pack.places
    alone = sum(v.size_bytes for v in manifest.variants.values())
    shared = len({(places[t].offset, places[t].length) for t in stored})
    yield (
        f"pack     {quantity('size_bytes', manifest.pack.end)}, with what is prepared for "
        f"{len({m for v in manifest.variants.values() for m in v.prepared})} kind(s) of machine; "
        f"{shared} tensors for the models alone, which would take {quantity('size_bytes', alone)} as files"
    )
    if all(v.accuracy is None for v in manifest.variants.values()):
        yield "accuracy nobody measured it: variants are ranked by their place, the first is best"
    if any(machine() not in v.prepared for v in manifest.variants.values()):
        yield "measured on another kind of machine: `prunec portfolio measure` does it on this one"


def _row(variant: Variant) -> tuple[str, ...]:
    return (
        variant.name,
        "-" if variant.accuracy is None else f"{variant.accuracy:.4g}",
        quantity("latency_ms", variant.latency_ms),
        quantity("latency_ms", variant.p95_ms),
        quantity("size_bytes", variant.size_bytes),
        quantity("size_bytes", variant.memory_bytes),
        quantity("params", variant.params),
        "-" if variant.density is None else f"{variant.density:.3f}",
        f"dominated by {variant.dominated_by}" if variant.dominated_by else "",
    )
