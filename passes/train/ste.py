"""Straight-through training: hard masks that gradients ignore."""

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
class Ste(Sparsifying):
    """Train with hard masks of the largest weights, anew at each step; gradients reach what is masked too.

    sparsity: the share of the elements of all weights that is zero at the end; n, m, v: a pattern instead;
    channels: instead the share of the units that go, with all of their elements.
    warm: epochs without a mask.
    decay: pull what is masked towards zero by so much of it (SR-STE; the paper's is 0.0002).
    targets, ignore: patterns of weights (of groups, with channels): only these, none of these.

    References
    ----------
    Zhou et al., Learning N:M Fine-grained Structured Sparse Neural Networks From Scratch, ICLR 2021, equation 7.
    """

    decay: float = 0.0

    name: ClassVar[str] = "ste"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.decay < 0:
            raise UsageError(f"ste{{decay}} cannot be {self.decay}", hint="from 0")

    def on(self, weight: Any) -> nn.Module:
        from .parametrizations import StraightMask

        return StraightMask(weight, self.pattern, self.decay)

    def reached(self, epoch: int) -> float:
        return 1.0
