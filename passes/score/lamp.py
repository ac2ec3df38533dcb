"""LAMP: magnitudes that compare across layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..parameter import Parameter
from .scoring import Elements, Scores, Scoring, criterion, element_criterion

Block = NDArray[Any]
_EXACT = 1 << 12
"""Elements up to which a layer is sorted; in larger ones squares are summed in bins of 1/128 relative width."""


@criterion("lamp")
def lamp(scoring: Scoring) -> Scores:
    """Sum of w² / (sum of all squares in the layer that are not smaller than w²).

    References
    ----------
    Lee et al., Layer-adaptive Sparsity for the Magnitude-based Pruning, ICLR 2021, equation 4 (there for elements).
    """
    return scoring.total_by_rows(_element)


@element_criterion("lamp")
def lamp_elements(scoring: Scoring) -> Elements:
    """The same for single elements, as it is in the paper."""
    return {p.name: _element(p)(p.data) for p in scoring.all_parameters()}


def _element(parameter: Parameter) -> Callable[[Block], Block]:
    if len(parameter.shape) < 2:
        return lambda rows: np.zeros(rows.shape, np.float32)
    if math.prod(parameter.shape) <= _EXACT:
        return partial(_shares, tails=_sorted_tails)
    table = _binned_tails(_squares(rows) for _, rows in parameter.blocks())
    return partial(_shares, tails=lambda squares: table[_bins(squares)])


def _squares(rows: Block) -> NDArray[np.float32]:
    return np.square(rows, dtype=np.float32).ravel()


def _shares(rows: Block, tails: Callable[[NDArray[np.float32]], Block]) -> Block:
    squares = _squares(rows)
    return np.asarray(squares / np.maximum(tails(squares), np.finfo(np.float32).tiny)).reshape(rows.shape)


def _sorted_tails(squares: NDArray[np.float32]) -> NDArray[Any]:
    """For each element the sum of those not smaller."""
    order = np.argsort(squares, kind="stable")
    tails = np.empty(squares.shape)
    tails[order] = np.cumsum(squares[order][::-1], dtype=np.float64)[::-1]
    return tails


def _bins(squares: NDArray[np.float32]) -> NDArray[np.intp]:
    """The leading 16 bits of each float32; elements that agree in them count as equal."""
    return (squares.view(np.uint32) >> 16).astype(np.intp)


def _binned_tails(blocks: Iterable[NDArray[np.float32]]) -> NDArray[np.float32]:
    """For each bin the sum of the elements that are not in a smaller one."""
    masses = np.zeros(1 << 16)
    for squares in blocks:
        np.add.at(masses, _bins(squares), squares.astype(np.float64))
    return np.cumsum(masses[::-1])[::-1].astype(np.float32)
