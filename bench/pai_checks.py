"""What a mask found before training has to be better than, to have found more than how dense each layer should be.

The elements are *shuffled* in each layer, or drawn at *random* with each layer as dense as before: two draws of one
distribution, which also shows the noise.  The weights are drawn *anew* under the same mask.  The scores are
*inverted*, so that what ranked highest goes (:func:`.pai_masks.inverted`).  The ceiling is magnitude *after training*.

References
----------
Frankle et al., Pruning Neural Networks at Initialization: Why Are We Missing the Mark?, ICLR 2021, sections 4 and 5.
Su et al., Sanity-Checking Pruning Methods: Random Tickets Can Win the Jackpot, NeurIPS 2020.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from .pai_masks import Masks


def drawn(model: nn.Module, seed: int) -> nn.Module:
    """A copy of ``model`` not yet trained: weights of layers drawn by He, biases zero, norms as they were."""
    model, generator = copy.deepcopy(model), torch.Generator().manual_seed(seed)
    for part in model.modules():
        if isinstance(part, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu", generator=generator)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    return model


def shuffled(masks: Masks, seed: int) -> Masks:
    """The elements of each mask in another order."""
    generator = torch.Generator().manual_seed(seed)

    def one(mask: Tensor) -> Tensor:
        return mask.flatten()[torch.randperm(mask.numel(), generator=generator)].view(mask.shape)

    return {name: one(mask) for name, mask in masks.items()}


def equally_dense(masks: Masks, seed: int) -> Masks:
    """Random masks that keep as many elements of each weight."""
    generator = torch.Generator().manual_seed(seed)

    def one(mask: Tensor) -> Tensor:
        kept = torch.rand(mask.numel(), generator=generator).topk(int(mask.sum())).indices
        return torch.zeros(mask.numel(), dtype=torch.bool).scatter(0, kept, True).view(mask.shape)

    return {name: one(mask) for name, mask in masks.items()}
