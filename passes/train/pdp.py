"""PDP: parameter-free differentiable pruning."""

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


_COLD = 0.05
"""What is left of tau when masks become hard [ours]."""


@register
@dataclass(frozen=True)
class Pdp(Sparsifying):
    """Train with soft masks that the weights themselves make: gradients move weights across the threshold (PDP).

    sparsity: the share of the elements of all weights that is zero at the end; n, m, v: a pattern instead;
    channels: instead the share of the units that go, with all of their elements.
    warm: epochs without a mask; at their end the magnitudes of all weights together say how sparse each becomes.
    rise: epochs in which the masks come to the whole of it (the paper's 1/0.015).
    tau: how soft masks are, in mean squares of the weight (in standard deviations of the squares, if less).
    settle: epochs after that in which tau falls, until masks are hard and what follows is fine-tuning (ours).
    targets, ignore: patterns of weights (of groups, with channels): only these, none of these.

    References
    ----------
    Cho et al., PDP: Parameter-free Differentiable Pruning is All You Need, NeurIPS 2023, section 3.
    """

    warm: int = 16
    rise: int = 67
    tau: float = 0.1
    settle: int = 10

    name: ClassVar[str] = "pdp"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rise < 1 or self.settle < 1 or self.tau <= 0:
            raise UsageError(
                f"pdp: rise={self.rise}, settle={self.settle}, tau={self.tau}", hint="rise, settle from 1, tau above 0"
            )

    def on(self, weight: Any) -> nn.Module:
        from .parametrizations import SoftMask

        return SoftMask(weight, self.pattern, self.tau)

    def reached(self, epoch: int) -> float:
        return min(1.0, (epoch + 1) / self.rise)

    def unfinished(self, epochs: int) -> str | None:
        needed = self.warm + self.rise + self.settle
        if (found := super().unfinished(epochs)) is not None or epochs >= needed:
            return found
        return f"pdp: masks are soft for {needed} epochs, and of {epochs} the last ones harden them at once (settle)"

    def begin_epoch(self, layers: Sequence[Trained], epoch: int) -> None:
        super().begin_epoch(layers, epoch)
        time = max(0, epoch - self.warm - self.rise + 1) / self.settle
        for layer in layers:
            layer.held.warmth.fill_(_COLD ** min(1.0, time))
            if time > 1:
                layer.held.harden(layer.original)
