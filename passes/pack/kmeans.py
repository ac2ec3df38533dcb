"""k-means of weights: exact Lloyd iterations on sorted numbers, scipy's on vectors."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2

_ROUNDS = 50


def kmeans(vectors: NDArray[Any], k: int, seed: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """At most ``k`` centres (k, d) of ``vectors`` (n, d), and which of them each vector is nearest to.

    Vectors of zeros have a centre of their own, and up to ``k`` different vectors are centres themselves.
    """
    some = np.unique(vectors[: 64 * k], axis=0)
    if len(some) <= k:
        different, chosen = np.unique(vectors, axis=0, return_inverse=True)
        if len(different) <= k:
            return different, chosen.ravel()
    zero = ~vectors.any(1)
    if not zero.any():
        return _clustered(vectors, k, seed)
    centres, found = _clustered(vectors[~zero], k - 1, seed)
    chosen = np.zeros(len(vectors), np.int64)
    chosen[~zero] = found + 1
    return np.concatenate([np.zeros((1, vectors.shape[1]), centres.dtype), centres]), chosen


def _clustered(vectors: NDArray[Any], k: int, seed: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
    if vectors.shape[1] == 1:
        return _of_numbers(vectors[:, 0].astype(np.float64), k)
    wide = vectors.astype(np.float64)
    centres, chosen = kmeans2(wide, k, iter=_ROUNDS, minit="++", rng=np.random.default_rng(seed), missing="warn")
    return centres, np.asarray(chosen, np.int64)


def _of_numbers(numbers: NDArray[np.float64], k: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The same for numbers, from their quantiles on: sorted, each cluster is a range of them."""
    ordered = np.sort(numbers)
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    centres = np.quantile(ordered, (np.arange(k) + 0.5) / k)
    for _ in range(_ROUNDS):
        ends = np.searchsorted(ordered, (centres[1:] + centres[:-1]) / 2)
        edges = np.concatenate([[0], ends, [ordered.size]])
        count = np.diff(edges)
        moved = np.where(count > 0, np.diff(sums[edges]) / np.maximum(count, 1), centres)
        if np.allclose(moved, centres, rtol=1e-7, atol=0):
            break
        centres = moved
    return centres[:, None], np.searchsorted((centres[1:] + centres[:-1]) / 2, numbers)
