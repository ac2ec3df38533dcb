"""Masks of single weights: which elements stay, ranked over the whole network, and held at zero while others train.

Masks are on the weights of linear and convolution layers, not on biases and norms.  After each optimizer step what is
masked is zero again, whatever momentum or decay made of it.  Start at :func:`smallest_gone` and :class:`HeldAtZero`.

References
----------
Frankle and Carbin, The Lottery Ticket Hypothesis, ICLR 2019; Frankle et al., Linear Mode Connectivity and the Lottery
Ticket Hypothesis, ICML 2020.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..ir.errors import ModelError
from ..passes.train.sites import sites

MASKS = "masks.safetensors"

Masks = dict[str, Tensor]
"""For each weight by name a bool of its shape: True stays."""
_CONSIDERABLE = 0.1
"""The share of weights without masks from which on that is worth a note."""


def masked_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """The weights that masks are on, by name; one that several layers share once.

    Raises
    ------
    ModelError
        A weight is computed from others (parametrized), so that a mask on it would hold nothing.
    """
    for name, site in sites(model):
        if site.tensor not in site.module._parameters:
            raise ModelError(
                f"masking {name} of shape {tuple(site.weight.shape)}: it is no parameter, but computed from others "
                "(weight_norm, or another parametrization)",
                hint="remove the parametrizations before, or --of channels",
                parameter=name,
            )
    found = {id(site.weight): (name, site.weight) for name, site in reversed(list(sites(model)))}
    return dict(sorted(found.values(), key=lambda entry: entry[0]))


def smallest_gone(weights: Mapping[str, Tensor], masks: Mapping[str, Tensor] | None, density: float) -> Masks:
    """Masks that keep the largest of what ``masks`` keep: ``density`` of all elements, to the element.

    Of equal magnitudes the first ones stay.
    """
    sizes = [weight.numel() for weight in weights.values()]
    magnitudes = torch.cat([w.detach().flatten().abs().double() for w in weights.values()])
    if masks is not None:
        out = torch.cat([~masks[name].flatten() for name in weights])
        magnitudes[out] = -1.0
    stays = torch.zeros(magnitudes.numel(), dtype=torch.bool)
    stays[magnitudes.argsort(descending=True, stable=True)[: round(density * magnitudes.numel())]] = True
    parts = torch.split(stays, sizes)
    return {name: part.view(weight.shape) for (name, weight), part in zip(weights.items(), parts)}


def unmasked(model: nn.Module) -> list[str]:
    """A note where a considerable share of the weights has no mask, so that more stays than was asked."""
    weights = {id(p): p.numel() for p in model.parameters() if p.ndim > 1}
    masked = {id(p) for p in masked_weights(model).values()}
    share = sum(size for key, size in weights.items() if key not in masked) / max(1, sum(weights.values()))
    if share <= _CONSIDERABLE:
        return []
    return [
        f"{share:.0%} of the weights have no mask, for masks are on linear and convolution layers alone (not on "
        "embeddings and recurrent layers): the density is above what was asked"
    ]


class HeldAtZero:
    """Elements of ``model`` that ``masks`` do not keep: zero now, and whenever it is called."""

    def __init__(self, model: nn.Module, masks: Mapping[str, Tensor]) -> None:
        weights = masked_weights(model)
        self.gone = [(weights[name], ~mask) for name, mask in masks.items()]
        self()

    @torch.no_grad()
    def __call__(self) -> None:
        for k, (weight, gone) in enumerate(self.gone):
            if gone.device != weight.device:  # the user's function moved the model
                gone = gone.to(weight.device)
                self.gone[k] = weight, gone
            weight.masked_fill_(gone, 0.0)
