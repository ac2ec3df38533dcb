"""LAMP: magnitudes that compare across layers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .scoring import Parameter, Scores, Scoring, criterion

_EXACT = 1 << 12
"""Elements up to which a layer is sorted; in larger ones squares are summed in bins of 1/128 relative width."""


@criterion("lamp")
def lamp(scoring: Scoring) -> Scores:
    """Sum of w² / (sum of all squares in the layer that are not smaller than w²).

    References
    ----------
    Lee et al., Layer-adaptive Sparsity for the Magnitude-based Pruning, ICLR 2021, equation 4 (there for elements).
    """
    return scoring.total(_elements)


def _elements(parameter: Parameter) -> NDArray[Any]:
    if parameter.data.ndim < 2:
        return np.zeros(parameter.data.shape, np.float32)
    squares = np.square(parameter.data, dtype=np.float32).ravel()
    tails = _sorted_tails(squares) if squares.size <= _EXACT else _binned_tails(squares)
    shaped: NDArray[Any] = (squares / np.maximum(tails, np.finfo(np.float32).tiny)).reshape(parameter.data.shape)
    return shaped


def _sorted_tails(squares: NDArray[np.float32]) -> NDArray[Any]:
    """For each element the sum of those not smaller."""
    order = np.argsort(squares, kind="stable")
    tails = np.empty(squares.shape)
    tails[order] = np.cumsum(squares[order][::-1], dtype=np.float64)[::-1]
    return tails


def _binned_tails(squares: NDArray[np.float32]) -> NDArray[Any]:
    """The same with elements counted as equal that agree in the leading 16 bits of their float32."""
    bins = squares.view(np.uint32) >> 16
    masses = np.bincount(bins, squares, 1 << 16)
    return np.asarray(np.cumsum(masses[::-1])[::-1].astype(np.float32)[bins])
