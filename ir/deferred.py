"""Large constants stay on disk: mapped arrays, and what is made of them each time that it is read.

A model file may be larger than the memory that its compile should take.  Its tensors are mapped, and a tensor that a
rewrite changes (sliced, masked, scaled) is a :class:`Deferred`: the mapped array and the change.  Reading one computes
it; nothing keeps it.  What was read of a file is given back (:func:`forget`): one tensor at a time takes memory.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
_SMALL_BYTES = 1 << 14


class Deferred:
    """An array of ``shape`` that ``change`` makes of ``source``, anew at each reading; the dtype is the source's."""

    __slots__ = ("change", "dtype", "shape", "source")

    def __init__(self, source: Any, change: Callable[[Array], Array], shape: tuple[int, ...]) -> None:
        self.source, self.change, self.shape = source, change, shape
        self.dtype: np.dtype[Any] = source.dtype

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        made = self.change(np.asarray(self.source))
        forget(self.source)
        return made if dtype is None else made.astype(dtype, copy=False)


def is_deferrable(data: Any) -> bool:
    """Whether what is made of ``data`` had better not be held: ``data`` lies on disk, and is not small."""
    return isinstance(data, (np.memmap, Deferred)) and data.nbytes >= _SMALL_BYTES


def forget(data: Any) -> None:
    """Give back the memory that reading a mapped array took; its file still has it.

    An array that was mapped to be written may hold what the file does not: it is left alone.
    """
    base: Any = data.base if isinstance(data, np.memmap) and data.mode == "r" else None
    if isinstance(base, mmap.mmap) and hasattr(base, "madvise"):
        base.madvise(mmap.MADV_DONTNEED)
