"""Gradual magnitude pruning: the baseline that any method of training has to beat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ...ir.errors import UsageError
from ..base import register
from .training import Sparsifying

if TYPE_CHECKING:
    from torch import nn

    from .layer import Trained


@register
@dataclass(frozen=True)
class Gradual(Sparsifying):
    """Train with hard masks of the largest weights, settled before each epoch while more and more are zero (cubic).

    sparsity: the share of the elements of all weights that is zero at the end; n, m, v: a pattern instead, from the
    first epoch after warm on; channels: instead the share of the units that go, with all of their elements.
    warm: epochs without a mask.  rise: epochs in which the sparsity rises as 1 - (1 - t)³.
    targets, ignore: patterns of weights (of groups, with channels): only these, none of these.

    References
    ----------
    Zhu and Gupta, To prune, or not to prune, 2017, equation 1.
    """

    rise: int = 50

    name: ClassVar[str] = "gradual"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rise < 1:
            raise UsageError(f"gradual{{rise}} cannot be {self.rise}", hint="epochs, from 1")

    def on(self, weight: Any) -> nn.Module:
        from .parametrizations import HardMask

        return HardMask(weight, self.pattern)

    def reached(self, epoch: int) -> float:
        return 1 - (1 - min(1.0, (epoch + 1) / self.rise)) ** 3

    def begin_epoch(self, layers: Sequence[Trained], epoch: int) -> None:
        super().begin_epoch(layers, epoch)
        if epoch > self.warm:
            self.share(layers)
        for layer in layers:
            if layer.held.reached >= 1:
                layer.held.harden(layer.original)  # what is masked keeps its weights, and would come back
            else:
                layer.held.settle(layer.original)
