"""L2 magnitude."""

import numpy as np

from .scoring import Scores, Scoring, criterion


@criterion("l2")
def l2(scoring: Scoring) -> Scores:
    """Euclidean norm of everything that goes with a unit."""
    return np.sqrt(scoring.total_by_rows(lambda p: np.square))
