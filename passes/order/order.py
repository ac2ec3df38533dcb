"""An order of channels, and which of their readers read one range of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
Reads = NDArray[np.bool_]
"""Which channels are read, (channels,); of several readers (readers, channels)."""


@dataclass(frozen=True, eq=False)
class Order:
    """Channels in a new order.

    Attributes
    ----------
    channels
        A permutation of all channels: the old number of each new position.  Those that nobody reads come last.
    contiguous
        For each reader whether what it reads is one range of positions; of a reader of nothing it is true.
    """

    channels: IntArray
    contiguous: tuple[bool, ...]

    @classmethod
    def of(cls, channels: Sequence[int] | IntArray, reads: Reads) -> Order:
        """The order of these ``channels``; those that it leaves out, ascending, come last.

        reads: (readers, channels)
        """
        kept = np.asarray(channels, np.int64)
        rest = np.setdiff1d(np.arange(reads.shape[1]), kept)
        found = cls(np.concatenate([kept, rest]), ())
        return cls(found.channels, tuple(range_of(found, read) is not None for read in reads))


def range_of(order: Order, read: Reads) -> tuple[int, int] | None:
    """The first position of what a reader reads, and the one after the last; None where it is not one range.

    read: (channels,), by their old numbers.

    >>> order = Order.of([1, 3, 2], np.array([[False, True, False, True]]))
    >>> range_of(order, np.array([False, False, True, True]))
    (1, 3)
    """
    positions = np.flatnonzero(read[order.channels])
    if not positions.size:
        return 0, 0
    first, last = int(positions[0]), int(positions[-1])
    return (first, last + 1) if last - first + 1 == positions.size else None


def matrix(reads: Sequence[Reads] | Reads) -> Reads:
    """Readers' channels as one array: (readers, channels)."""
    return np.stack(list(reads)).astype(bool) if len(reads) else np.zeros((0, 0), bool)
