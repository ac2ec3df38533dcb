"""The largest of many numbers in several arrays, found without sorting them all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_SAMPLE, _NEAR = 1 << 16, 1 << 10
"""How many numbers are looked at to find a level, and how many of these lie on either side of what is sorted."""
_BLOCK = 1 << 17


def largest(arrays: Sequence[NDArray[Any]], count: int) -> list[NDArray[np.bool_]]:
    """Which are the ``count`` largest of all ``arrays`` together; the first ones of those that are equal."""
    if count >= sum(a.size for a in arrays):
        return [np.ones(a.shape, bool) for a in arrays]
    if len(arrays) == count == 1:
        return [_only(arrays[0].argmax(), arrays[0].shape)]
    level = _level(arrays, count)
    kept = [a >= level for a in arrays]
    over = sum(map(np.count_nonzero, kept)) - count
    for mask, array in zip(reversed(kept), reversed(arrays), strict=True):
        if over > 0:
            equal = np.flatnonzero(array.ravel() == level)[-over:]
            mask.ravel()[equal] = False
            over -= equal.size
    return kept


def _only(at: np.intp, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """One element, by its number."""
    found = np.zeros(shape, bool)
    found.ravel()[at] = True
    return found


def _level(arrays: Sequence[NDArray[Any]], count: int) -> float:
    """The ``count``-th largest number: a sample says about where it is, and only what is near is sorted."""
    size = sum(a.size for a in arrays)
    stride = max(1, size // _SAMPLE)
    sample = np.sort(np.concatenate([a.ravel()[::stride] for a in arrays]))
    at = round((1 - count / size) * (sample.size - 1))
    low, high = sample[max(0, at - _NEAR)], sample[min(sample.size - 1, at + _NEAR)]
    above, near = 0, []
    for block in (b for a in arrays for b in _blocks(a)):
        above += int(np.count_nonzero(block > high))
        near.append(block[(block > low) & (block <= high)])
    within = np.concatenate(near)
    if 0 < count - above - within.size <= sum(int(np.count_nonzero(a == low)) for a in arrays):
        return float(low)  # what many share, as zero
    if not above < count <= above + within.size:
        above, within = 0, np.concatenate([a.ravel() for a in arrays])
    place = within.size - (count - above)
    return float(np.partition(within, place)[place])


def _blocks(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """The elements in runs that fit a cache."""
    numbers = array.ravel()
    return (numbers[k : k + _BLOCK] for k in range(0, numbers.size, _BLOCK))
