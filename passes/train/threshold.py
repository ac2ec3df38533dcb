"""STR: soft thresholds that are learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ...ir.errors import UsageError
from ..base import register
from .training import Training

if TYPE_CHECKING:
    from torch import nn

    from .layer import Trained


@register
@dataclass(frozen=True)
class Str(Training):
    """Train with soft thresholds that are learned, one for each weight: sign(w) relu(|w| - sigmoid(s)) (STR).

    How sparse it becomes is what the loss and the decay of the thresholds come to: no sparsity is asked for.  The
    optimizer has to be made after this, so that it has the thresholds; its own weight decay raises them as well.

    start: s before the first step; sigmoid(-5) is 0.007.
    decay: what pulls s towards 0, where the threshold is one half, at each step.
    targets, ignore: patterns of weights: only these, none of these.

    References
    ----------
    Kusupati et al., Soft Threshold Weight Reparameterization for Learnable Sparsity, ICML 2020, equation 4.
    """

    start: float = -5.0
    decay: float = 0.0

    name: ClassVar[str] = "str"

    def __post_init__(self) -> None:
        if self.start >= 0 or self.decay < 0:
            raise UsageError(f"str: start={self.start}, decay={self.decay}", hint="start below 0, decay from 0")

    def on(self, weight: Any) -> nn.Module:
        from .parametrizations import SoftThreshold

        return SoftThreshold(weight, self.start, self.decay)

    def begin_epoch(self, layers: Sequence[Trained], epoch: int) -> None:
        """Nothing changes: the optimizer moves the thresholds."""

    def untrained(self, layers: Sequence[Trained]) -> str | None:
        if not all(bool((layer.held.level == self.start).all()) for layer in layers):
            return None
        return "str: no threshold has moved: make the optimizer after prunec.train"

    def finish(self, layers: Sequence[Trained]) -> None:
        for layer in layers:
            layer.held.harden(layer.original)
