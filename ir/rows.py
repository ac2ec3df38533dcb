"""Rows of numbers of different lengths, held one after another: what a sparse matrix is when it is walked by rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

Index = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of numbers, one after another: row ``k`` is ``numbers[starts[k] : starts[k + 1]]``."""

    starts: Index
    numbers: Index

    @classmethod
    def of(cls, matrix: sp.csr_matrix) -> Rows:
        """The columns in which each row of a sparse matrix has an entry."""
        return cls(matrix.indptr, matrix.indices)

    @classmethod
    def grouped(cls, keys: Index, numbers: Index, count: int) -> Rows:
        """The numbers that have each key of 0 … ``count - 1``, in their order."""
        starts = np.concatenate([[0], np.cumsum(np.bincount(keys, minlength=count))])
        return cls(starts, numbers[np.argsort(keys, kind="stable")])

    def pairs(self, rows: Index) -> tuple[Index, Index]:
        """(k, number) for every number of ``rows[k]``, in order."""
        start = self.starts[rows].astype(np.int64)
        count = self.starts[rows + 1] - start
        which = np.repeat(np.arange(rows.size), count)
        before = np.cumsum(count) - count
        return which, self.numbers[np.arange(which.size) + (start - before)[which]]
