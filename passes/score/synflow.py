"""SynFlow: what flows through the network, whatever the data."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .derivatives import Network
from .scoring import Elements, Scoring, element_criterion

if TYPE_CHECKING:
    import torch

_MIDDLE = 60
"""The power of two that the whole flow is scaled to in float32, between 2**-126 and 2**128."""


@element_criterion("synflow")
def synflow(scoring: Scoring) -> Elements:
    """|w · dR/dw| of each element, R the sum of the outputs for inputs of ones, all parameters and buffers positive.

    It needs no data.  Of each layer that everything flows through, the scores add up to R (batch norms without bias,
    activations that pass what is positive), and so do those of each layer's units, twice.  Made for many steps:
    ``mask{sparsity=0.98,steps=100}``, ``plan{params=0.1,steps=100}``.

    In float64, as published.  Where only the order of the elements matters (``rectify``), in float32 and times a power
    of two, which is ours: what is less than 1e-17 of the flow may count as nothing.  If the flow leaves the range of
    float32, it is float64 again.

    References
    ----------
    Tanaka et al., Pruning neural networks without any data by iteratively conserving synaptic flow, NeurIPS 2020,
    algorithm 1.
    """
    found = _in_single(scoring) if scoring.single else None
    return _in_double(scoring) if found is None else found


def _in_double(scoring: Scoring) -> Elements:
    network = Network(scoring, "synflow", double=True)
    network.make_positive()
    return network.elements(_scores(network, network.flow()))


def _in_single(scoring: Scoring) -> Elements | None:
    """The scores times one power of two; None, and at once the next time, where float32 does not reach so far."""
    if not scoring.shared.setdefault("synflow fits float32", True):
        return None
    network = Network(scoring, "synflow")
    network.make_positive()
    flow = network.flow()
    size = float(flow.detach())
    if 0 < size < math.inf:
        found = _scores(network, flow * 2.0 ** (_MIDDLE - math.frexp(size)[1]))
        if all(math.isfinite(float(s.sum())) for s in found.values()):
            return network.elements(found)
    scoring.shared["synflow fits float32"] = False
    return None


def _scores(network: Network, flow: torch.Tensor) -> dict[str, torch.Tensor]:
    found = network.gradients(flow, network.weights)
    return {n: g.mul_(network.weights[n].detach()) for n, g in found.items()}
