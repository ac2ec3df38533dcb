"""PDP: parameter-free differentiable pruning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ...ir.errors import UsageError
from ..base import register
from .training import Sparsifying

if TYPE_CHECKING:
    from torch import nn


@register
@dataclass(frozen=True)
class Pdp(Sparsifying):
    """Train with soft masks that the weights themselves make: gradients move weights across the threshold (PDP).

    sparsity: the share of the elements of all weights that is zero at the end; n, m, v: a pattern instead.
    warm: epochs without a mask; at their end the magnitudes of all weights together say how sparse each becomes.
    rise: epochs in which the masks come to the whole of it (the paper's 1/0.015).
    tau: how soft masks are, in mean squares of the weight.
    targets, ignore: patterns of weights: only these, none of these.

    References
    ----------
    Cho et al., PDP: Parameter-free Differentiable Pruning is All You Need, NeurIPS 2023, section 3.
    """

    warm: int = 16
    rise: int = 67
    tau: float = 0.1

    name: ClassVar[str] = "pdp"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rise < 1 or self.tau <= 0:
            raise UsageError(f"pdp: rise={self.rise}, tau={self.tau}", hint="rise from 1, tau above 0")

    def on(self, weight: Any) -> nn.Module:
        from .parametrizations import SoftMask

        return SoftMask(weight, self.pattern, self.tau)

    def reached(self, epoch: int) -> float:
        return min(1.0, (epoch + 1) / self.rise)
