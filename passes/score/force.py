"""FORCE: SNIP whose masked connections may return."""

from __future__ import annotations

from .derivatives import Network, loss_gradients
from .scoring import Elements, Scoring, element_criterion


@element_criterion("force")
def force(scoring: Scoring) -> Elements:
    """|w · dL/dw| with the gradient of the masked network and the weights of the dense one; for ``mask{steps=…}``.

    Units that ``plan{steps=…}`` dropped do not return: where all that makes a unit and all that reads it is masked, no
    derivative by one element is anything but zero.  There it ranks as iterative SNIP does.

    References
    ----------
    de Jorge et al., Progressive Skeletonization: Trimming more fat from a network at initialization, ICLR 2021,
    equation 7.
    """
    network = Network(scoring, "force", training=True)
    return network.elements({n: (network.weights[n] * g).abs() for n, g in loss_gradients(network).items()})
