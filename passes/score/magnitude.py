"""Magnitude of single elements."""

import numpy as np

from .scoring import Elements, Scoring, element_criterion


@element_criterion("magnitude")
def magnitude(scoring: Scoring) -> Elements:
    """w² of each element; a unit scores the sum, its squared Euclidean norm.

    References
    ----------
    Han et al., Learning both Weights and Connections for Efficient Neural Networks, NeurIPS 2015, section 3.
    """
    return {p.name: np.square(p.data) for p in scoring.all_parameters()}
