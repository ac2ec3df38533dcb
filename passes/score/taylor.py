"""First-order Taylor: what the loss would change."""

from __future__ import annotations

from .derivatives import Network, loss_gradients
from .scoring import Elements, Scoring, element_criterion


@element_criterion("taylor")
def taylor(scoring: Scoring) -> Elements:
    """|w · dL/dw| of each element, L summed over all batches, of the network as it is in evaluation.

    L is ``loss(outputs)`` on the samples, else on the example inputs (by default the mean square of the outputs), so no
    data is needed to try it; hand in a loss over real data for scores that mean something.

    References
    ----------
    Molchanov et al., Importance Estimation for Neural Network Pruning, CVPR 2019, equation 8 (there squared).
    """
    network = Network(scoring, "taylor")
    weights = network.masked()
    return network.elements({n: (weights[n] * g).abs() for n, g in loss_gradients(network).items()})
