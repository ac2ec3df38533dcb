"""Ops that join and take apart: concat, stack, split, unbind."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..axes import Axes, pinned
from ..errors import Declined
from ..opset import Fitting, Site, all_carried, moves, zero_after_operands


def _known(operands: Sequence[Axes | None]) -> list[Axes]:
    found = [axes for axes in operands if axes is not None]
    if len(found) != len(operands) or not found:
        raise Declined("an operand is absent or of unknown rank")
    return found


def _tie(site: Site, operands: list[Axes], besides: int | None) -> None:
    for axes in operands[1:]:
        for d, (a, b) in enumerate(zip(operands[0], axes, strict=True)):
            if d != besides:
                site.atoms.unify(a, b)


@moves("cat", zero=zero_after_operands, carries=all_carried)
def cat(site: Site) -> list[Axes]:
    """Concatenation along ``dim``: the axis is the operands' axes, one after another."""
    return joined(site, site.axes)


def joined(site: Site, parts: Sequence[Axes | None]) -> list[Axes]:
    """The axes of ``parts`` one after another along ``dim``; an empty vector may be among them."""
    d, operands = int(site.attrs["dim"]), [a for a in _known(parts) if len(a) == len(site.shape)]
    _tie(site, operands, d)
    joined = np.concatenate([axes[d] for axes in operands])
    return [[joined if k == d else a for k, a in enumerate(operands[0])]]


@moves("stack", zero=zero_after_operands, carries=all_carried)
def stack(site: Site) -> list[Axes]:
    """Operands side by side on a new axis ``dim``, which is kept."""
    d, operands = int(site.attrs["dim"]), _known(site.axes)
    _tie(site, operands, None)
    return [[*operands[0][:d], pinned(len(operands)), *operands[0][d:]]]


def _sizes(fitting: Fitting) -> dict[str, object]:
    d = int(fitting.attrs["dim"])
    return {"sizes": tuple(fitting.count(axes[d]) for axes in fitting.site.results)}


@moves("split", refit=_sizes)
def split(site: Site) -> list[Axes]:
    """An axis cut into consecutive pieces of ``sizes``."""
    d, sizes = int(site.attrs["dim"]), site.attrs["sizes"]
    pieces = np.split(site.x[d], np.cumsum(sizes)[:-1])
    return [[piece if k == d else a for k, a in enumerate(site.x)] for piece in pieces]


@moves("unbind")
def unbind(site: Site) -> list[Axes]:
    """An axis taken apart into its positions, which are therefore kept."""
    d = int(site.attrs["dim"])
    site.pin(site.x[d], "each position is a result of its own")
    return [[a for k, a in enumerate(site.x) if k != d] for _ in site.shapes]
