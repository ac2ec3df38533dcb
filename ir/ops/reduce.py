"""Reductions: sums, means, extrema and norms over axes."""

from __future__ import annotations

from ..axes import Axes, pinned
from ..graph import Node
from ..opset import AtDead, Site, moves, not_zero
from .elementwise import along

_NOT_ZERO_OF_ZEROS = ("logsum", "logsumexp")


def _zero(node: Node, at_dead: AtDead) -> bool:
    return node.attrs["function"] not in _NOT_ZERO_OF_ZEROS and at_dead(node.inputs[0])


@moves("reduce", normalises=along, zero=_zero)
def reduce(site: Site) -> list[Axes]:
    """A ``function`` (sum, mean, extremum, norm) over ``dims``; survivors are reduced, so removing is not zeroing."""
    dims, keep = site.attrs["dims"], site.attrs["keepdim"]
    axes = [pinned(1) if d in dims else a for d, a in enumerate(site.x) if keep or d not in dims]
    return [list(axes) for _ in site.shapes]


@moves("rank_along", zero=not_zero)
def rank_along(site: Site) -> list[Axes]:
    """Positions found along ``dims`` (``argmax``, ``topk``): their numbering must not change, so the axis is kept."""
    dims, keep = site.attrs["dims"], site.attrs["keepdim"]
    for d in dims:
        site.pin(site.x[d], "positions along this axis are numbered")
    kept = [(d, a) for d, a in enumerate(site.x) if keep or d not in dims]
    return [[pinned(s) if d in dims else a for (d, a), s in zip(kept, shape, strict=True)] for shape in site.shapes]
