"""Scales of batch normalisation."""

import numpy as np

from ...ir.graph import Value
from .scoring import Scores, Scoring, criterion


@criterion("bn_gamma")
def bn_gamma(scoring: Scoring) -> Scores:
    """Sum of |gamma| of the normalisations behind a unit; units without one keep the mean of the others.

    References
    ----------
    Liu et al., Learning Efficient Convolutional Networks through Network Slimming, ICCV 2017, section 3.
    """
    scores, counted = scoring.zeros(), scoring.zeros()
    scales = _scales(scoring)
    for parameter in scoring.parameters():
        if len(parameter.shape) == 1 and parameter.value in scales:
            scoring.add(scores, parameter, 0, np.abs(parameter.data))
            scoring.add(counted, parameter, 0, np.ones(parameter.shape))
    seen = counted > 0
    scores[seen] /= counted[seen]
    scores[~seen] = scores[seen].mean() if seen.any() else 1.0
    return scores


def _scales(scoring: Scoring) -> set[Value | None]:
    norms = ("batch_norm", "group_norm", "layer_norm")
    return {n.inputs[1] for n in scoring.groups.analysis.graph.nodes if n.op in norms and len(n.inputs) > 1}
