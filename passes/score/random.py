"""Random scores: the baseline that any criterion has to beat."""

import numpy as np

from .scoring import Scores, Scoring, criterion


@criterion("random")
def random(scoring: Scoring) -> Scores:
    """Uniform scores from the seed of the compile."""
    return np.random.default_rng(scoring.state.seed).uniform(0.5, 1.5, scoring.zeros().shape)
