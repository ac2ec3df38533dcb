"""Classes of channels that have the same readers: no order can gain by taking one of them apart."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from .order import IntArray, Reads


@dataclass(frozen=True, eq=False)
class Classes:
    """The channels that somebody reads, class by class.

    Attributes
    ----------
    channels
        Each class's channels, ascending.  Classes stand in the order of their first channels.
    readers
        Each class's readers: (classes, readers).
    """

    channels: tuple[IntArray, ...]
    readers: Reads

    @classmethod
    def of(cls, reads: Reads) -> Classes:
        """The classes of (readers, channels)."""
        alike: dict[bytes, list[int]] = {}
        for channel in np.flatnonzero(reads.any(0)).tolist():
            alike.setdefault(reads[:, channel].tobytes(), []).append(channel)
        first = [members[0] for members in alike.values()]
        return cls(tuple(np.array(m, np.int64) for m in alike.values()), reads[:, first].T)

    def laid_out(self, order: Iterable[int]) -> IntArray:
        """The channels of these classes, one class after the other."""
        return np.concatenate([np.zeros(0, np.int64), *(self.channels[k] for k in order)])
