"""Elementwise ops with broadcasting, and those that act along one axis without moving it."""

from __future__ import annotations

from collections.abc import Mapping

from ..axes import Axes, pinned
from ..errors import Declined
from ..graph import Node
from ..opset import AtDead, Site, declare, moves, not_zero, zero_after_first, zero_if_computed

declare(
    "elementwise",
    "..., ..., ..., ... -> ...",
    "Any function of elements, broadcast over its operands.",
    zero=zero_if_computed,
)
declare("prelu", "B c *, c -> B c *", "Leaky rectifier with a learned slope for each channel.", zero=zero_after_first)


@moves("convert")
def convert(site: Site) -> list[Axes]:
    """The first operand in the type of the second, of which nothing else is read."""
    return [list(site.x)]


def along(node: Node) -> Mapping[int, tuple[int, ...]]:
    """The axes in ``dims`` of the first operand."""
    return {0: tuple(node.attrs["dims"])}


@moves("normalise", normalises=along, zero=not_zero)
def normalise(site: Site) -> list[Axes]:
    """Softmax and its kin over ``dims``: removing a position is not zeroing it."""
    return [list(site.x)]


def _scanned(node: Node, at_dead: AtDead) -> bool:
    """Zeros stay zeros; a second result has the positions of the sorted ones."""
    return len(node.outputs) == 1 and at_dead(node.inputs[0])


@moves("scan", zero=_scanned)
def scan(site: Site) -> list[Axes]:
    """Ops whose result depends on order along ``dims`` (cumulative sums, sorts, rolls, triangles): the axis is kept."""
    for d in site.attrs["dims"]:
        site.pin(site.x[d], "order along this axis matters")
    return [[pinned(len(a)) if d in site.attrs["dims"] else a for d, a in enumerate(site.x)] for _ in site.shapes]


@moves("glu", zero=zero_after_first)
def glu(site: Site) -> list[Axes]:
    """Gated linear unit: the first half of an axis times a function of the second."""
    d = int(site.attrs["dim"])
    size = len(site.x[d])
    if size % 2:
        raise Declined("an odd axis cannot be halved")
    first, second = site.x[d][: size // 2], site.x[d][size // 2 :]
    site.atoms.unify(first, second)
    return [[first if k == d else a for k, a in enumerate(site.x)]]


@moves("fill")
def fill(site: Site) -> list[Axes]:
    """Values made from nothing (``zeros``, ``arange``, a shape): nothing can be removed from them."""
    return site.pin_all("a size is read from it") if site.axes else [[pinned(d) for d in s] for s in site.shapes]
