"""FPGM: filters near the geometric median are replaceable."""

import numpy as np

from .scoring import Scores, Scoring, criterion


@criterion("fpgm")
def fpgm(scoring: Scoring) -> Scores:
    """Sum of the distances of a unit's slice to all other slices of the same axis, over its weights.

    References
    ----------
    He et al., Filter Pruning via Geometric Median, CVPR 2019, equation 6.
    """
    scores = scoring.zeros()
    analysis = scoring.groups.analysis
    for parameter in scoring.parameters():
        if len(parameter.shape) < 2:
            continue
        for d, atoms in enumerate((analysis.axes[parameter.value] or [])[:1]):
            if analysis.solution.may_shrink(atoms):
                flat = np.moveaxis(parameter.data, d, 0).reshape(parameter.data.shape[d], -1).astype(np.float64)
                scoring.add(scores, parameter, d, _distances(flat))
    return scores


def _distances(rows: np.ndarray) -> np.ndarray:
    """For each row the sum of its distances to all rows: (n, k) -> (n,)."""
    norms = np.einsum("nk,nk->n", rows, rows)
    total = np.empty(len(rows))
    for start in range(0, len(rows), 512):
        part = rows[start : start + 512]
        squared = norms[start : start + 512, None] + norms[None] - 2 * part @ rows.T
        total[start : start + 512] = np.sqrt(np.maximum(squared, 0)).sum(1)
    return total
