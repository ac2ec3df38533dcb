"""GraSP: connections whose removal would weaken the flow of gradients."""

from __future__ import annotations

from typing import Any

from .derivatives import Network, loss_gradients
from .scoring import Elements, Scoring, element_criterion

TEMPERATURE = 200.0
"""Outputs are divided by it, so that gradients say more of the network than of its confidence."""


@element_criterion("grasp")
def grasp(scoring: Scoring) -> Elements:
    """w · d<g, dL/dw>/dw of each element, g = dL/dw taken as constant: removing what scores low strengthens gradients.

    References
    ----------
    Wang et al., Picking Winning Tickets Before Training by Preserving Gradient Flow, ICLR 2020, equation 8 (there with
    the other sign).
    """
    import torch

    network = Network(scoring, "grasp", training=True)
    cool = _Cooled(network)
    constant = loss_gradients(cool)
    total: dict[str, Any] = {}
    for inputs, loss in cool.examples():
        weights = {n: w.detach().requires_grad_() for n, w in network.masked().items()}
        found = network.gradients(loss(cool.outputs(weights, inputs)), weights, twice=True)
        flow = torch.stack([(constant[n] * g).sum() for n, g in found.items()]).sum()
        second = network.gradients(flow, weights)
        total = {n: weights[n] * s + total.get(n, 0) for n, s in second.items()}
    return network.elements(total)


class _Cooled(Network):
    """A network whose outputs are divided by the temperature."""

    def __init__(self, network: Network) -> None:
        self.__dict__ |= network.__dict__

    def outputs(self, weights: Any, inputs: list[Any]) -> Any:
        import torch
        from torch.utils import _pytree as pytree

        def cooled(leaf: Any) -> Any:
            return leaf / TEMPERATURE if isinstance(leaf, torch.Tensor) and leaf.is_floating_point() else leaf

        return pytree.tree_map(cooled, super().outputs(weights, inputs))
