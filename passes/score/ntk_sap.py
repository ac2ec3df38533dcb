"""NTK-SAP: connections that the neural tangent kernel depends on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .derivatives import Network
from .scoring import Elements, Scoring, element_criterion

if TYPE_CHECKING:
    import torch

DRAWS, DISTANCE = 5, 0.01
"""How many weights are drawn for a score; the standard deviation of what is added to them [ours]."""


@element_criterion("ntk_sap")
def ntk_sap(scoring: Scoring) -> Elements:
    """|d ‖f(w) - f(w + ε)‖² / dm| of each element's mask m, for weights w drawn anew and Gaussian inputs.

    The sum of five draws; it needs no data: inputs are as many as the example inputs.  Weights are drawn with the
    standard deviation that each has now.  For several steps: ``mask{sparsity=0.98,steps=20}``.

    References
    ----------
    Wang et al., NTK-SAP: Improving neural network pruning by aligning training dynamics, ICLR 2023, equation 8.
    """
    import torch

    network = Network(scoring, "ntk_sap", training=True)
    generator = torch.Generator().manual_seed(scoring.state.seed)
    masks = network.differentiable_masks()
    total = {n: torch.zeros_like(m) for n, m in masks.items()}
    for _ in range(DRAWS):
        inputs = [_normal(x, generator) for x in network.example()]
        drawn = {n: _drawn(w.detach(), generator) for n, w in network.weights.items()}
        moved = {n: w + DISTANCE * _normal(w, generator) for n, w in drawn.items()}
        here, there = (
            network.leaves(network.outputs({n: w * masks[n] for n, w in each.items()}, inputs))
            for each in (drawn, moved)
        )
        apart = torch.stack([(a - b).square().sum() for a, b in zip(here, there, strict=True)]).sum()
        total = {n: total[n] + g for n, g in network.gradients(apart, masks).items()}
    return network.elements({n: t.abs() for n, t in total.items()})


def _drawn(weight: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A weight anew, as wide as it was; norms and biases, of one axis, stay."""
    if weight.dim() < 2:
        return weight
    drawn: torch.Tensor = _normal(weight, generator) * weight.std(correction=0)
    return drawn


def _normal(like: Any, generator: torch.Generator) -> Any:
    """Normal numbers of the shape and dtype of a tensor; anything but a tensor of numbers as it is."""
    import torch

    if not isinstance(like, torch.Tensor) or not like.is_floating_point():
        return like
    return torch.randn(like.shape, generator=generator).to(like.dtype)
