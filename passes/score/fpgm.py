"""FPGM: filters near the geometric median are replaceable."""

import numpy as np

from .scoring import Scores, Scoring, criterion


@criterion("fpgm")
def fpgm(scoring: Scoring) -> Scores:
    """Sum of the distances of a unit's slice to all other slices of the same axis, over its weights.

    The slices are filters; where nothing makes the unit alone (a layer's own choice of input channels), what reads it.

    References
    ----------
    He et al., Filter Pruning via Geometric Median, CVPR 2019, equation 6.
    """
    filters, made = _along(scoring, 0)
    slices, _ = _along(scoring, 1)
    return np.where(made > 0, filters, slices)


def _along(scoring: Scoring, d: int) -> tuple[Scores, Scores]:
    """The distances of the units' slices along axis ``d``, summed, and over how many slices."""
    scores, seen = scoring.zeros(), scoring.zeros()
    analysis = scoring.groups.analysis
    for parameter in scoring.parameters():
        axes = analysis.axes[parameter.value] or []
        if len(axes) > 1 and analysis.solution.may_shrink(axes[d]):
            flat = np.moveaxis(parameter.data, d, 0).reshape(parameter.data.shape[d], -1).astype(np.float64)
            scoring.add(scores, parameter, d, _distances(flat))
            scoring.add(seen, parameter, d, np.ones(len(flat)))
    return scores, seen


def _distances(rows: np.ndarray) -> np.ndarray:
    """For each row the sum of its distances to all rows: (n, k) -> (n,)."""
    norms = np.einsum("nk,nk->n", rows, rows)
    total = np.empty(len(rows))
    for start in range(0, len(rows), 512):
        part = rows[start : start + 512]
        squared = norms[start : start + 512, None] + norms[None] - 2 * part @ rows.T
        total[start : start + 512] = np.sqrt(np.maximum(squared, 0)).sum(1)
    return total
