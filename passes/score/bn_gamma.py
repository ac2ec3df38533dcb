"""Scales of batch normalisation."""

import numpy as np

from .scoring import Scores, Scoring, criterion


@criterion("bn_gamma")
def bn_gamma(scoring: Scoring) -> Scores:
    """Sum of |gamma| of the normalisations behind a unit; units without one keep the mean of the others.

    References
    ----------
    Liu et al., Learning Efficient Convolutional Networks through Network Slimming, ICCV 2017, section 3.
    """
    scores, counted = scoring.zeros(), scoring.zeros()
    for parameter in scoring.parameters():
        if parameter.data.ndim == 1 and _is_scale(scoring, parameter.value):
            scores += scoring.spread(parameter, 0, np.abs(parameter.data))
            counted += scoring.spread(parameter, 0, np.ones(parameter.data.shape))
    seen = counted > 0
    scores[seen] /= counted[seen]
    scores[~seen] = scores[seen].mean() if seen.any() else 1.0
    return scores


def _is_scale(scoring: Scoring, value: object) -> bool:
    norms = ("batch_norm", "group_norm", "layer_norm")
    return any(
        n.op in norms and len(n.inputs) > 1 and n.inputs[1] is value for n in scoring.groups.analysis.graph.nodes
    )
