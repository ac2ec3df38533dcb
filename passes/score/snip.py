"""SNIP: connections whose removal would change the loss."""

from __future__ import annotations

from .derivatives import Network, loss_gradients
from .scoring import Elements, Scoring, element_criterion


@element_criterion("snip")
def snip(scoring: Scoring) -> Elements:
    """|w · dL/dw| of each element, L summed over all batches of samples.

    L is ``loss(outputs)`` (with ``targets``, of both); by default the mean square of the outputs.  In several steps
    (``mask{steps=…}``, ``plan{steps=…}``) it is iterative SNIP: what is masked scores zero, and stays out.

    References
    ----------
    Lee et al., SNIP: Single-shot Network Pruning based on Connection Sensitivity, ICLR 2019, equation 6.
    """
    network = Network(scoring, "snip", training=True)
    weights = network.masked()
    return network.elements({n: (weights[n] * g).abs() for n, g in loss_gradients(network).items()})
