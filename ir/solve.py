"""Drawing conclusions from atoms: components, products and the units that can be removed alone.

Connected components of the equalities, then closure rules to a fixpoint:

* identity: a product with one live factor equals that factor, one with none is pinned;
* pinned: the factors of a pinned product are pinned;
* congruence: products of equal factors are equal;
* injectivity: equal products on the same grid have equal factors.

What the rules cannot reconcile (two factorisations of one axis that name different units, a product among its own
factors) is pinned and counted as a conflict.  A *unit* is a component that is no product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components

from .axes import PINNED, Atoms, Axis, Reason
from .rows import Rows
from .soft import Soft

Index = NDArray[np.int64]
_MAX_ROUNDS = 64


@dataclass(frozen=True, eq=False)
class Solution:
    """Which units an atom depends on.

    Attributes
    ----------
    component
        The component of each atom; 0 for the pinned ones.
    members
        Boolean sparse matrix (components, units): the units that a component needs to be alive.
    units
        How many units there are; a unit is an integer below that.
    conflicts
        How many components were pinned because their factorisations disagree.
    soft
        What readers may do without; None where there is no soft edge.
    """

    component: Index
    members: sp.csr_matrix
    units: int
    conflicts: int
    rounds: int
    soft: Soft | None = None

    def needs(self, axis: Axis) -> tuple[Index, Index]:
        """Pairs (position of ``axis``, unit that it needs), in the order of the positions."""
        return Rows.of(self.members).pairs(self.component[axis])

    def may_shrink(self, axis: Axis) -> bool:
        """Whether ``axis`` may lose positions: some of them are not pinned."""
        return bool(self.component[axis].any())

    def dead(self, dropped: Iterable[int] | Index) -> NDArray[np.int32]:
        """For each unit 1 where it is gone once the units ``dropped`` are: itself, or what nobody reads then."""
        mask = np.zeros(self.units, np.int32)
        mask[dropped if isinstance(dropped, np.ndarray) else np.fromiter(dropped, np.int64)] = 1
        return mask if self.soft is None else self.soft.settled(mask)

    def alive(self, dropped: Iterable[int] | Index) -> NDArray[np.bool_]:
        """For each atom whether it is alive once the units ``dropped`` are removed, and what nobody reads then."""
        dead = self.members @ self.dead(dropped) > 0
        alive: NDArray[np.bool_] = ~dead[self.component]
        return alive


def solve(atoms: Atoms, ignore: Callable[[Reason], bool] | None = None) -> Solution:
    """The units of ``atoms``.  ``ignore`` leaves out pins, to ask what a pin costs."""
    return _Closure(atoms, ignore or (lambda reason: False)).solution()


class _Closure:
    def __init__(self, atoms: Atoms, ignore: Callable[[Reason], bool]) -> None:
        self.atoms = atoms
        width = max([p.factors.shape[1] for p in atoms.products], default=1)
        kept = [p for p in atoms.products if p.atoms.size]
        self.product = _cat([p.atoms for p in kept])
        self.factors = np.concatenate(
            [np.pad(p.factors, ((0, 0), (0, width - p.factors.shape[1]))) for p in kept]
            or [np.zeros((0, width), np.int64)]
        )
        grids: dict[tuple[int, ...], int] = {}
        self.grid = _cat([np.full(p.atoms.size, grids.setdefault(p.grid, len(grids))) for p in kept])
        pins = [np.stack([a, np.zeros_like(a)]) for a, reason in atoms.pins if not ignore(reason)]
        self.edges = np.concatenate([*atoms.equalities, *pins] or [np.zeros((2, 0), np.int64)], 1)
        self.conflicts = 0
        self.rounds = 0

    def solution(self) -> Solution:
        while True:
            self._close()
            bad = self._conflicts()
            if not bad.size:
                break
            self.conflicts += bad.size
            self._add(self._representative(bad), np.zeros(bad.size, np.int64))
        return self._units()

    def _close(self) -> None:
        for _ in range(_MAX_ROUNDS):
            self.rounds += 1
            self._label()
            found = [e for e in self._consequences() if e.size]
            edges = np.concatenate(found, 1) if found else np.zeros((2, 0), np.int64)
            edges = edges[:, edges[0] != edges[1]]
            if not edges.shape[1]:
                return
            self._add(self._representative(edges[0]), self._representative(edges[1]))
        raise AssertionError("the closure of the atoms did not reach a fixpoint")

    def _label(self) -> None:
        n = self.atoms.count
        matrix = sp.coo_matrix((np.ones(self.edges.shape[1], np.int8), (self.edges[0], self.edges[1])), (n, n))
        _, label = connected_components(matrix, directed=False)
        label = label.astype(np.int64)
        self.component = np.where(label == label[PINNED], 0, label + 1)
        self.first = np.zeros(int(self.component.max()) + 1, np.int64)
        self.first[self.component[::-1]] = np.arange(n - 1, -1, -1)
        self.p = self.component[self.product]
        f = np.sort(self.component[self.factors], 1)  # a set: sorted, doubles and the identity become 0
        f[:, 1:][f[:, 1:] == f[:, :-1]] = 0
        f.sort(1)
        self.f = f
        self.true_product = (f[:, :-1] != 0).any(1) & (self.p != 0)

    def _consequences(self) -> Iterable[Index]:
        single = ~(self.f[:, :-1] != 0).any(1)
        yield np.stack([self.p[single], self.f[single, -1]])
        dead_ends = ~single & (self.p == 0)
        for column in self.f[dead_ends].T:
            yield np.stack([column, np.zeros_like(column)])
        m = self.true_product
        if not m.any():
            return
        p = self.p[m]
        _, first, inverse = np.unique(self.f[m], axis=0, return_index=True, return_inverse=True)
        yield np.stack([p, p[first][inverse.ravel()]])
        key = p * (int(self.grid.max()) + 1) + self.grid[m]
        _, first, inverse = np.unique(key, return_index=True, return_inverse=True)
        for column in self.component[self.factors[m]].T:
            yield np.stack([column, column[first][inverse.ravel()]])

    def _definitions(self) -> sp.csr_matrix:
        """Sparse (components, components): which components the products of a component name as factors."""
        m = self.true_product
        rows = np.repeat(self.p[m], self.f.shape[1])
        columns = self.f[m].ravel()
        live = columns != 0
        n = self.first.size
        return _boolean(sp.csr_matrix((np.ones(int(live.sum()), np.int32), (rows[live], columns[live])), (n, n)))

    def _leaves(self, needs: sp.csr_matrix, is_product: NDArray[np.bool_]) -> sp.csr_matrix:
        """Sparse (components, components): the components that are no product which each one finally needs."""
        n = needs.shape[0]
        leaf = np.flatnonzero(~is_product)
        keep = sp.csr_matrix((np.ones(leaf.size, np.int32), (leaf, leaf)), needs.shape)
        reach, result = needs, keep
        for _ in range(_MAX_ROUNDS):
            result = _boolean(result + reach @ keep)
            reach = _boolean(reach @ needs)
            if not reach.nnz:
                return result
        raise AssertionError(f"products nest too deeply among {n} components")

    def _conflicts(self) -> Index:
        """Components to pin: on a cycle of products, or factorised in ways that need different units."""
        m = self.true_product
        if not m.any():
            return np.zeros(0, np.int64)
        needs = self._definitions()
        n, label = connected_components(needs, directed=True, connection="strong")
        size = np.bincount(label, minlength=n)
        cyclic = np.flatnonzero((size[label] > 1) | (needs.diagonal() > 0))
        if cyclic.size:
            return np.asarray(cyclic, np.int64)
        is_product = np.zeros(self.first.size, bool)
        is_product[self.p[m]] = True
        leaves = self._leaves(needs, is_product)
        row_needs = sp.csr_matrix(
            (
                np.ones(self.f[m].size, np.int32),
                (np.repeat(np.arange(int(m.sum())), self.f.shape[1]), self.f[m].ravel()),
            ),
            (int(m.sum()), self.first.size),
        )
        row_leaves = _boolean(row_needs @ leaves)
        full = _boolean(leaves)[self.p[m]]
        zero = np.asarray((self.f[m] == 0).any(1)).astype(int)  # a padded row names component 0, its own leaf
        disagree = np.asarray(row_leaves.sum(1)).ravel() - zero != np.asarray(full.sum(1)).ravel()
        if not disagree.any():
            return np.zeros(0, np.int64)
        return np.unique(self.p[m][disagree])

    def _units(self) -> Solution:
        m = self.true_product
        is_product = np.zeros(self.first.size, bool)
        is_product[self.p[m]] = True
        leaves = self._leaves(self._definitions(), is_product)
        exists = np.zeros(self.first.size, bool)
        exists[self.component] = True
        order = np.flatnonzero(exists & ~is_product & (np.arange(self.first.size) > 0))
        order = order[np.argsort(self.first[order], kind="stable")]
        members = _boolean(leaves[:, order].astype(np.int32).tocsr())
        soft = Soft.of(self.atoms.soft, self.component, members)
        return Solution(self.component, members, int(order.size), self.conflicts, self.rounds, soft)

    def _representative(self, components: Index) -> Index:
        return np.where(components == 0, 0, self.first[components])

    def _add(self, a: Index, b: Index) -> None:
        self.edges = np.concatenate([self.edges, np.stack([a, b])], 1)


def _boolean(matrix: sp.csr_matrix) -> sp.csr_matrix:
    matrix = sp.csr_matrix(matrix)
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    matrix.data = np.minimum(matrix.data, 1).astype(np.int32)
    return matrix


def _cat(arrays: list[Index]) -> Index:
    return np.concatenate(arrays) if arrays else np.zeros(0, np.int64)
