"""DKM: differentiable k-means clustering of weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ...ir.errors import UsageError
from ...ir.packing.packing import Packing
from ...ir.packing.palette import divides
from ...ir.words import listed
from ..base import register
from .training import Outcome, Training

if TYPE_CHECKING:
    from torch import nn

    from .layer import Trained


@register
@dataclass(frozen=True)
class Dkm(Training):
    """Train with weights that are means of 2^bits centres, by a softmax over distances (DKM); at the end the nearest.

    bits: of the index that each vector of weights becomes; on disk 3 take 4, and 5 to 7 take 8.
    dim: how many neighbours in memory share an index.  group: how many rows share centres; 0 = all of a weight.
    scale: divide each row by its largest magnitude first.
    tau: how soft the choice is, in squared errors that so many bits leave: the weight's variance / 4^(bits / dim).
    rounds: of soft k-means at each step.
    least: weights of fewer elements are left alone.  Zeros stay zeros: prune first, then cluster.
    targets, ignore: patterns of weights: only these, none of these.

    References
    ----------
    Cho et al., DKM: Differentiable k-Means Clustering Layer for Neural Network Compression, ICLR 2022, section 3.
    """

    bits: int = 4
    dim: int = 1
    group: int = 0
    scale: bool = False
    tau: float = 0.4
    rounds: int = 3
    least: int = 2048

    name: ClassVar[str] = "dkm"
    holds_zeros: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 8 or self.dim < 1 or self.group < 0 or self.tau <= 0 or self.rounds < 1:
            raise UsageError(
                f"dkm: bits={self.bits}, dim={self.dim}, group={self.group}, tau={self.tau}, rounds={self.rounds}",
                hint="bits from 1 to 8, dim and rounds from 1, group from 0, tau above 0",
            )

    def misfit(self, shape: tuple[int, ...]) -> str | None:
        if math.prod(shape) < self.least:
            return f"fewer than {self.least} elements"
        if not divides(shape, self.group, self.dim):
            return f"group={self.group} or dim={self.dim} does not divide it"
        return None

    def on(self, weight: Any) -> nn.Module:
        import numpy as np
        import torch

        from ..pack.kmeans import kmeans
        from .clusters import Clusters, row_scale

        rows = self.group or weight.shape[0]
        k = (1 << self.bits) - int(bool((weight == 0).any()))  # zero is one of the values
        even = weight.detach() / row_scale(weight) if self.scale else weight.detach()
        runs = even.cpu().float().reshape(weight.shape[0] // rows, -1, self.dim).numpy()
        tables = [kmeans(run[run.any(-1)], k, 0)[0] if run.any() else np.zeros((1, self.dim)) for run in runs]
        centres = np.stack([np.pad(table, ((0, k - len(table)), (0, 0)), "edge") for table in tables])
        # a softness that does not shrink with the distances between centres makes neighbours one
        error = self.dim * 4 ** (-self.bits / self.dim)
        return Clusters(weight, torch.from_numpy(centres).to(weight), self.tau * error, self.rounds, scaled=self.scale)

    def begin_epoch(self, layers: Sequence[Trained], epoch: int) -> None:
        """Nothing changes: the softmax is as soft from the first epoch to the last."""

    def finish(self, layers: Sequence[Trained]) -> None:
        for layer in layers:
            layer.held.hard.fill_(True)

    def outcome(self, layers: Sequence[Trained]) -> Outcome:
        found = {layer.name: layer.held.palette(layer.original) for layer in layers}
        lost = [name for name, palette in found.items() if palette is None]
        missed = f"dkm: zeros stand inside of vectors of {self.dim}, so that no palette holds {listed(lost)}"
        return Outcome(Packing(known=tuple(p for p in found.values() if p is not None)), missed if lost else None)
