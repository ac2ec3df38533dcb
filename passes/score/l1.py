"""L1 magnitude."""

import numpy as np

from .scoring import Scores, Scoring, criterion


@criterion("l1")
def l1(scoring: Scoring) -> Scores:
    """Sum of |w| over everything that goes with a unit.

    References
    ----------
    Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017, section 3.1 (there for a single filter).
    """
    return scoring.total_by_rows(lambda p: np.abs)
