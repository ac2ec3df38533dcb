"""Random scores: the baseline that any criterion has to beat."""

import numpy as np

from .scoring import Elements, Scores, Scoring, criterion, element_criterion


@criterion("random")
def random(scoring: Scoring) -> Scores:
    """Uniform scores from the seed of the compile."""
    return np.random.default_rng(scoring.state.seed).uniform(0.5, 1.5, scoring.zeros().shape)


@element_criterion("random")
def random_elements(scoring: Scoring) -> Elements:
    """Uniform scores of elements."""
    rng = np.random.default_rng(scoring.state.seed)
    return {p.name: rng.random(p.shape, np.float32) for p in scoring.all_parameters()}
