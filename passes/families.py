"""Families: channels that move together, for they stand on the same axes in the same order.

A channel that may not change places (``movable.py``) is in none.  Start at :func:`families`.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from ..ir.analysis import Analysis
from .movable import Components, obstacles
from .splittable import KEPT


class Held:
    """What keeps components in their places: ``by`` is for each of them one of the ``reasons``, 0 for none."""

    def __init__(self, analysis: Analysis) -> None:
        self.reasons = ["", KEPT]
        self.by = np.zeros(analysis.solution.members.shape[0], np.int64)
        self.by[0] = 1
        for obstacle in obstacles(analysis):
            self.hold(obstacle.components, obstacle.why)

    def hold(self, components: Components, why: str) -> None:
        """Remember why ``components`` stay, as far as nothing held them."""
        if why not in self.reasons:
            self.reasons.append(why)
        free = components[self.by[components] == 0]
        self.by[free] = self.reasons.index(why)

    def why(self, axis: Components) -> str:
        """What keeps the channels along ``axis``, most of them; empty if it keeps fewer than all but one."""
        counts = np.bincount(self.by[axis], minlength=len(self.reasons))
        return self.reasons[int(counts[1:].argmax()) + 1] if counts[0] < 2 else ""


def families(analysis: Analysis, held: Held) -> list[Components]:
    """The channels that may move, by the axes on which they stand, each family in the order that it has there."""
    component = analysis.solution.component
    distinct = {id(axis): component[axis] for axes in analysis.axes.values() for axis in axes or ()}
    axes = list({axis.tobytes(): axis for axis in distinct.values() if axis.any()}.values())
    on = _standing(axes, held.by.size)
    found: dict[bytes, list[int]] = {}
    for channel in np.flatnonzero(held.by == 0).tolist():
        where = on.indices[on.indptr[channel] : on.indptr[channel + 1]]
        found.setdefault(where.tobytes(), []).append(channel)
    families = []
    for where, channels in found.items():
        orders = [axes[k][np.isin(axes[k], channels)] for k in np.frombuffer(where, on.indices.dtype)]
        if any(not np.array_equal(order, orders[0]) for order in orders[1:]):
            held.hold(np.array(channels), "in several orders")
        elif len(channels) > 1 and orders:
            families.append(orders[0])
    return families


def _standing(axes: list[Components], size: int) -> sp.csr_matrix:
    """Boolean sparse matrix (components, axes): on which axes each component stands."""
    row = np.concatenate([np.zeros(0, np.int64), *axes])
    column = np.repeat(np.arange(len(axes)), [axis.size for axis in axes])
    matrix = sp.csr_matrix((np.ones(row.size, np.int8), (row, column)), (size, len(axes)))
    matrix.sum_duplicates()
    matrix.sort_indices()
    return matrix
