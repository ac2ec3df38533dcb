"""Soft edges: readers that may do without positions which what they read keeps for others.

Across a soft edge a reader has units of its own.  A unit that some soft edge reads is *derived*: nobody chooses it, and
it lives as long as anything that reads it does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components

from .axes import Axis
from .rows import Rows

Index = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Soft:
    """The soft edges of a solution, position by position.

    Attributes
    ----------
    reader, source
        Components (edges): what reads, and what is read.
    members
        Boolean sparse matrix (components, units); see :class:`~prunec.ir.solve.Solution`.
    derived
        For each unit whether a soft edge reads it.
    """

    reader: Index
    source: Index
    members: sp.csr_matrix
    derived: NDArray[np.bool_]

    @classmethod
    def of(cls, edges: Sequence[tuple[Axis, Axis]], component: Index, members: sp.csr_matrix) -> Soft | None:
        """The edges between components that can die; None where there is none."""
        if not edges:
            return None
        atoms = np.concatenate([np.stack(edge) for edge in edges], 1)
        reader, source = np.unique(component[atoms], axis=1)
        inner = (source != 0) & (reader != source)
        reader, source = reader[inner], source[inner]
        derived = np.asarray(members[source].sum(0)).ravel() > 0
        return cls(reader, source, members, derived)

    def settled(self, dropped: NDArray[np.int32]) -> NDArray[np.int32]:
        """For each unit 1 where it is dead: chosen ones as they are ``dropped``, derived ones where nothing reads them.

        A reader may need derived units itself (those of a grouped convolution): life spreads from the last readers to
        the first until nothing changes.
        """
        dead = np.where(self.derived, 1, dropped).astype(np.int32)
        while True:
            living = (self.members @ dead)[self.reader] == 0
            read = np.asarray(self.members[self.source[living]].sum(0)).ravel() > 0
            now = np.where(self.derived & read, 0, dead).astype(np.int32)
            if (now == dead).all():
                return dead
            dead = now

    def best_readers(self, scores: NDArray[np.float64]) -> tuple[NDArray[np.float64], Index]:
        """The life of each unit, and the edge that it comes by: for derived units that of the best reader.

        A reader is worth the least life of its units, inf where it always lives; chosen units live by their own
        scores, and by no edge (-1).  Worth spreads from the last readers to the first until nothing changes.
        """
        needs, reads = (Rows.of(self.members).pairs(rows) for rows in (self.reader, self.source))
        life, by = np.where(self.derived, -np.inf, scores), np.full(scores.size, -1, np.int64)
        while True:
            worth = np.full(self.reader.size, np.inf)
            np.minimum.at(worth, needs[0], life[needs[1]])
            order = np.argsort(worth[reads[0]], kind="stable")
            edge, unit = reads[0][order], reads[1][order]
            now = life.copy()
            now[unit], by[unit] = worth[edge], edge  # the last one, which is the best, stays
            if (now == life).all():
                return life, by
            life = now

    def keepers(self, units: Index, by: Index) -> Index:
        """The chosen units that keep ``units`` alive; ``by`` are the edges of :meth:`best_readers`."""
        kept: set[int] = set()
        waiting = units.tolist()
        while waiting:
            unit = waiting.pop()
            if unit not in kept:
                kept.add(unit)
                if by[unit] >= 0:
                    waiting += Rows.of(self.members).pairs(self.reader[by[unit : unit + 1]])[1].tolist()
        return np.array([u for u in sorted(kept) if by[u] < 0], np.int64)

    def cyclic(self) -> NDArray[np.bool_]:
        """For each edge whether what it reads would live by itself: there life has no end that it could spread from."""
        reader, source = (sp.csr_matrix(self.members[rows]) for rows in (self.reader, self.source))
        units = self.derived.size
        _, strong = connected_components(sp.csr_matrix(source.T @ reader, shape=(units, units)), connection="strong")
        size = np.bincount(strong)
        edge, unit = Rows.of(self.members).pairs(self.source)
        found = np.zeros(self.reader.size, bool)
        found[edge[size[strong[unit]] > 1]] = True
        return found


class Reads:
    """How many living readers each derived unit has, while units are dropped and taken back."""

    def __init__(self, soft: Soft, alive: NDArray[np.bool_]) -> None:
        self.edges = Rows.grouped(soft.reader, np.arange(soft.reader.size), soft.members.shape[0])
        self.units = Rows.of(soft.members[soft.source].tocsr())
        living = np.flatnonzero(alive[soft.reader])
        self.count: Index = np.bincount(self.units.pairs(living)[1], minlength=soft.members.shape[1])

    def change(self, turned: Index, by: int) -> Index:
        """The derived units that die (``by`` 1), or live again (-1), once the components ``turned`` do."""
        edges = self.edges.pairs(turned)[1]
        units, times = np.unique(self.units.pairs(edges)[1], return_counts=True)
        before = self.count[units]
        after = self.count[units] = before - by * times
        found: Index = units[(before == 0) != (after == 0)].astype(np.int64)
        return found
