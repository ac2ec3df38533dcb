"""Reductions: sums, means, extrema and norms over axes."""

from __future__ import annotations

from ..axes import Axes, pinned
from ..opset import Site, moves
from .elementwise import along


@moves("reduce", normalises=along)
def reduce(site: Site) -> list[Axes]:
    """Sum, mean, extremum or norm over ``dims``; what survives is reduced, so removing is not zeroing."""
    dims, keep = site.attrs["dims"], site.attrs["keepdim"]
    axes = [pinned(1) if d in dims else a for d, a in enumerate(site.x) if keep or d not in dims]
    return [list(axes) for _ in site.shapes]


@moves("rank_along")
def rank_along(site: Site) -> list[Axes]:
    """Positions found along ``dims`` (``argmax``, ``topk``): their numbering must not change, so the axis is kept."""
    dims, keep = site.attrs["dims"], site.attrs["keepdim"]
    for d in dims:
        site.pin(site.x[d], "positions along this axis are numbered")
    kept = [(d, a) for d, a in enumerate(site.x) if keep or d not in dims]
    return [[pinned(s) if d in dims else a for (d, a), s in zip(kept, shape, strict=True)] for shape in site.shapes]
