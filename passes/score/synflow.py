"""SynFlow: what flows through the network, whatever the data."""

from __future__ import annotations

from .derivatives import Network
from .scoring import Elements, Scoring, element_criterion


@element_criterion("synflow")
def synflow(scoring: Scoring) -> Elements:
    """|w · dR/dw| of each element, R the sum of the outputs for inputs of ones, all parameters and buffers positive.

    It needs no data.  Of each layer that everything flows through, the scores add up to R (batch norms without bias,
    activations that pass what is positive).  Made for many steps: ``mask{sparsity=0.98,steps=100}``.

    References
    ----------
    Tanaka et al., Pruning neural networks without any data by iteratively conserving synaptic flow, NeurIPS 2020,
    algorithm 1.
    """
    network = Network(scoring, "synflow", double=True)
    network.make_positive()
    weights = {n: w.detach().requires_grad_() for n, w in network.masked().items()}
    found = network.gradients(network.flow(weights), weights)
    return network.elements({n: weights[n].detach() * g for n, g in found.items()})
