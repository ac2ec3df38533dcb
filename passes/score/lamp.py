"""LAMP: magnitudes that compare across layers."""

import numpy as np
from numpy.typing import NDArray

from .scoring import Parameter, Scores, Scoring, criterion


@criterion("lamp")
def lamp(scoring: Scoring) -> Scores:
    """Sum of w² / (sum of all squares in the layer that are not smaller than w²).

    References
    ----------
    Lee et al., Layer-adaptive Sparsity for the Magnitude-based Pruning, ICLR 2021, equation 4 (there for elements).
    """
    return scoring.total(_elements)


def _elements(parameter: Parameter) -> NDArray[np.float64]:
    if parameter.data.ndim < 2:
        return np.zeros(parameter.data.shape)
    squares = np.square(parameter.data, dtype=np.float64).ravel()
    order = np.argsort(squares, kind="stable")
    tail = np.cumsum(squares[order][::-1])[::-1]
    scores = np.empty_like(squares)
    scores[order] = squares[order] / np.maximum(tail, np.finfo(np.float64).tiny)
    shaped: NDArray[np.float64] = scores.reshape(parameter.data.shape)
    return shaped
