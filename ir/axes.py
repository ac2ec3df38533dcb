"""Axes as vectors of atoms: what lives and dies together.

Every axis of every value is an int64 vector of *atoms*, one for each position.  Positions with the same atom live and
die together; atom 0 is pinned and never dies.  A *product* is an atom that is alive iff all its factors are: the
position ``(h, d)`` of an axis that a reshape splits into heads and head dimensions.  Rules of ops say which atoms are
equal and which are products; ``solve`` draws the conclusions.  Nothing here knows an op.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Axis = NDArray[np.int64]
Axes = list[Axis]
PINNED = 0


@dataclass(frozen=True)
class Reason:
    """Why atoms are pinned: ``cause`` is a short stable key (an op kind, ``output``), ``node`` the place."""

    cause: str
    node: str = ""
    detail: str = ""
    opaque: bool = False


@dataclass(frozen=True)
class Product:
    """``atoms[r]`` is alive iff every atom of ``factors[r]`` is; ``grid`` are the sizes of the factors."""

    atoms: Axis
    factors: NDArray[np.int64]
    grid: tuple[int, ...]


class Atoms:
    """The facts collected from a graph: equalities, pins, products and soft edges over atoms ``0 … count - 1``.

    A soft edge is a pair of axes, a reader's and what it reads: a position that is alive in the first is in the second.
    """

    def __init__(self) -> None:
        self.count = 1
        self.equalities: list[NDArray[np.int64]] = []
        self.pins: list[tuple[Axis, Reason]] = []
        self.products: list[Product] = []
        self.soft: list[tuple[Axis, Axis]] = []
        self._splits: dict[tuple[bytes, tuple[int, ...]], Axes] = {}
        self._merges: dict[tuple[bytes, ...], Axis] = {}

    def fresh(self, size: int) -> Axis:
        """A new axis whose positions are independent.  A size of one is broadcast, so it is pinned."""
        if size <= 1:
            return pinned(size)
        self.count += size
        return np.arange(self.count - size, self.count, dtype=np.int64)

    def unify(self, a: Axis, b: Axis) -> None:
        """Position ``k`` of both axes is the same thing.  Both have the same size."""
        if a is b:
            return
        differ = a != b
        if differ.any():
            self.equalities.append(np.stack([a[differ], b[differ]]))

    def read(self, axis: Axis) -> Axis:
        """The positions of ``axis`` as one reader needs them: they may die there while ``axis`` keeps them."""
        own = np.where(axis == PINNED, PINNED, self.fresh(len(axis)))
        self.soft.append((own, axis))
        return own

    def pin(self, axis: Axis, reason: Reason) -> None:
        """No position of ``axis`` may ever be removed."""
        alive = np.unique(axis[axis != PINNED])
        if alive.size:
            self.pins.append((alive, reason))

    def split(self, axis: Axis, grid: Sequence[int]) -> Axes:
        """One axis as its row-major factors.  A factor along which the atoms do not vary is pinned."""
        sizes = tuple(grid)
        if len(sizes) == 1:
            return [axis]
        key = (axis.tobytes(), sizes)
        if key not in self._splits:
            self._splits[key] = self._factors(axis, sizes)
        return self._splits[key]

    def _factors(self, axis: Axis, sizes: tuple[int, ...]) -> Axes:
        table = axis.reshape(sizes)
        varies = [bool((table != table.take([0], k)).any()) for k in range(len(sizes))]
        if not any(varies):  # one atom everywhere: it rides on the first factor that can carry it
            carrier = next((k for k, d in enumerate(sizes) if d > 1), 0)
            return [np.full(d, axis[0]) if k == carrier and axis.size else pinned(d) for k, d in enumerate(sizes)]
        if sum(varies) == 1:
            return [
                np.moveaxis(table, k, 0).reshape(d, -1)[:, 0].copy() if v else pinned(d)
                for k, (d, v) in enumerate(zip(sizes, varies, strict=True))
            ]
        factors = [self.fresh(d) if v else pinned(d) for d, v in zip(sizes, varies, strict=True)]
        self._declare(axis, factors)
        return factors

    def merge(self, factors: Axes) -> Axis:
        """The axis that is the row-major product of ``factors``."""
        if len(factors) == 1:
            return factors[0]
        key = tuple(f.tobytes() for f in factors)
        if key not in self._merges:
            self._merges[key] = self._merged(factors)
        return self._merges[key]

    def _merged(self, factors: Axes) -> Axis:
        grids = np.meshgrid(*factors, indexing="ij")
        live = [g for g in grids if g.any()]
        if not live:
            return pinned(grids[0].size)
        if len(live) == 1:
            return live[0].ravel()
        product = self.fresh(grids[0].size)
        self._declare(product, factors)
        return product

    def _declare(self, axis: Axis, factors: Axes) -> None:
        columns = [g.ravel() for g in np.meshgrid(*factors, indexing="ij")]
        self.products.append(Product(axis, np.stack(columns, 1), tuple(len(f) for f in factors)))


def pinned(size: int) -> Axis:
    """An axis that never loses a position."""
    return np.zeros(size, np.int64)


def common_factors(a: Sequence[int], b: Sequence[int]) -> list[int] | None:
    """Sizes, innermost first, of the finest grid that both shapes are row-major groupings of; None if there is none.

    >>> common_factors((6, 4), (2, 12))
    [4, 3, 2]
    """
    if math.prod(a) != math.prod(b):
        return None
    cuts = sorted(_suffix_products(a) | _suffix_products(b))
    if any(high % low for low, high in pairwise(cuts)):
        return None
    return [high // low for low, high in pairwise(cuts)]


def _suffix_products(shape: Sequence[int]) -> set[int]:
    return {1} | {math.prod(shape[k:]) for k in range(len(shape))}
