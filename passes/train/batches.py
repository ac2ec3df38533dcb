"""Whether an epoch has trained at all: a loader that yields nothing raises no error by itself."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from .layer import Trained

Mark = tuple[int, float, float]


class Batches:
    """What shows that batches went through ``layers`` since :meth:`begin`.

    Either is enough, so that no way of training looks like none: a forward with gradients (also in evaluation mode, at
    a rate of zero, in layers that an optimizer leaves out), or another weight (also where the forward runs in a
    replica, in a captured graph or in another process, or where a checkpoint was read).  An evaluation under
    ``no_grad`` is no training.

    It is a forward hook itself, and holds no module: a copy of the model copies a few numbers.
    """

    def __init__(self) -> None:
        self.forward = False
        self.marks: list[Mark] = []

    def watch(self, layers: Sequence[Trained]) -> None:
        """Notice each forward of ``layers``; it ends when their parametrizations are removed."""
        for module, tensor in dict.fromkeys(place for layer in layers for place in layer.places):
            held: nn.Module = getattr(module.parametrizations, tensor)
            held.register_forward_pre_hook(self)

    def __call__(self, module: nn.Module, inputs: object) -> None:
        if torch.is_grad_enabled():
            self.forward = True

    def begin(self, layers: Sequence[Trained]) -> None:
        """An epoch begins."""
        self.forward, self.marks = False, [_mark(layer.original) for layer in layers]

    def none(self, layers: Sequence[Trained]) -> bool:
        """True where nothing at all has happened since :meth:`begin`."""
        return not self.forward and self.marks == [_mark(layer.original) for layer in layers]


def _mark(weight: torch.Tensor) -> Mark:
    """Numbers that are others once the weight is: how often it was written, its sum, that of its squares."""
    wide = weight.detach().double()
    return weight._version, float(wide.sum()), float(wide.square().sum())
