"""Masks of single weights: which elements stay, ranked over the whole network, and held at zero while others train.

Masks are on the weights of linear and convolution layers, not on biases and norms.  After each optimizer step what is
masked is zero again, whatever momentum or decay made of it.  Start at :func:`smallest_gone` and :class:`Held`.

References
----------
Frankle and Carbin, The Lottery Ticket Hypothesis, ICLR 2019; Frankle et al., Linear Mode Connectivity and the Lottery
Ticket Hypothesis, ICML 2020.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..passes.train.sites import sites

MASKS = "masks.safetensors"

Masks = dict[str, Tensor]
"""For each weight by name a bool of its shape: True stays."""


def masked_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """The weights that masks are on, by name; one that several layers share once."""
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


class Held:
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
