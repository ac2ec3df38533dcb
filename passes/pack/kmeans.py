"""k-means of weights: exact Lloyd iterations on sorted numbers, scipy's on vectors."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2, vq

_ROUNDS = 50


def kmeans(vectors: NDArray[Any], k: int, seed: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """At most ``k`` centres (k, d) of ``vectors`` (n, d), and which of them each vector is nearest to.

    Zeros stay zeros: vectors share a centre only where the same of their elements are zero, unless that is so in more
    ways than ``k``; then only vectors of zeros stay.  Up to ``k`` different vectors are centres themselves.
    """
    if (found := _different(vectors, k)) is not None:
        return found
    ways, which = _ways(vectors != 0)
    if len(ways) > k:
        ways, which = _ways(np.broadcast_to(vectors.any(1, keepdims=True), vectors.shape))
    centres: list[NDArray[Any]] = []
    chosen = np.zeros(len(vectors), np.int64)
    for way, (there, some) in enumerate(zip(ways, _shares(ways, which, k), strict=True)):
        mine = which == way
        short, nearest = _of_one_way(vectors[mine][:, there], some, seed)
        chosen[mine] = nearest + sum(map(len, centres))
        centres.append(np.zeros((len(short), vectors.shape[1]), short.dtype))
        centres[-1][:, there] = short
    return np.concatenate(centres), chosen


def _ways(there: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """In which ways rows are ``there`` (n, d), and which of them each row is."""
    ways, which = np.unique(there, axis=0, return_inverse=True)
    return ways, which.ravel()


def _different(vectors: NDArray[Any], k: int) -> tuple[NDArray[Any], NDArray[np.int64]] | None:
    """The different ones of ``vectors``, and which each is; None where there are more than ``k``."""
    some = np.unique(vectors[: 64 * k], axis=0)
    if len(some) > k:
        return None
    different, chosen = np.unique(vectors, axis=0, return_inverse=True)
    return None if len(different) > k else (different, chosen.ravel())


def _shares(ways: NDArray[np.bool_], which: NDArray[np.int64], k: int) -> list[int]:
    """How many of ``k`` centres go to the vectors that are zero in each of ``ways``: by how many numbers they hold."""
    numbers = np.bincount(which, minlength=len(ways)) * ways.sum(1)
    shares = np.ones(len(ways), np.int64)
    for _ in range(k - len(ways)):
        shares[np.argmax(numbers / shares)] += 1
    return shares.tolist()


def _of_one_way(vectors: NDArray[Any], k: int, seed: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The centres of vectors that have no zeros; a single one, of nothing, where there is nothing else to them."""
    if vectors.shape[1] == 0:
        return np.zeros((1, 0)), np.zeros(len(vectors), np.int64)
    found = _different(vectors, k)
    return _clustered(vectors, k, seed) if found is None else found


def _clustered(vectors: NDArray[Any], k: int, seed: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
    if vectors.shape[1] == 1:
        return _of_numbers(vectors[:, 0].astype(np.float64), k)
    wide = vectors.astype(np.float64)
    centres, _ = kmeans2(wide, k, iter=_ROUNDS, minit="++", rng=np.random.default_rng(seed), missing="warn")
    chosen, _ = vq(wide, centres)
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
