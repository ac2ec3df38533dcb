"""What stands between a trained parameter and its layer: soft and hard masks.

Each is a module (``torch.nn.utils.parametrize``) from the parameter to what the layer sees, so that optimizers,
autocast, accumulation and checkpoints work as they do without it.  Its state is in buffers, and goes with the model's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...ir.packing.nm import Pattern


class Mask(nn.Module, ABC):
    """Which elements of a weight (o, i, *), or which units of a group (u), stay.

    The largest, in a pattern or as many as ``gone`` leaves.

    Attributes
    ----------
    gone
        How many elements are to be zero at the end (without a pattern).
    reached
        The share of that, or of the pattern, that the schedule has come to: 0 to 1.
    mask, hard
        Which elements stay, once that is settled.
    """

    gone: Tensor
    reached: Tensor
    mask: Tensor
    hard: Tensor

    def __init__(self, weight: Tensor, pattern: Pattern | None) -> None:
        super().__init__()
        self.pattern = pattern
        self.register_buffer("gone", torch.zeros((), dtype=torch.int64, device=weight.device))
        self.register_buffer("reached", torch.zeros((), device=weight.device))
        self.register_buffer("mask", torch.ones(weight.shape, dtype=torch.bool, device=weight.device))
        self.register_buffer("hard", torch.zeros((), dtype=torch.bool, device=weight.device))

    def largest(self, weight: Tensor) -> Tensor:
        """Which elements stay of ``weight`` at what is ``reached``."""
        size = weight.detach().square()
        if self.pattern is None:
            return _largest(size, size.numel() - round(float(self.gone) * float(self.reached)))
        blocks = self.pattern.blocks(size)
        sums = blocks.sum(-2, keepdim=True)
        order = sums.argsort(dim=-1, descending=True, stable=True)
        kept = torch.zeros_like(sums, dtype=torch.bool).scatter(-1, order[..., : self.pattern.n], True)
        best: Tensor = self.pattern.tensor(kept.expand(blocks.shape))
        return best

    @abstractmethod
    def of(self, size: Tensor) -> Tensor | None:
        """The mask by what is ranked, a weight or the magnitudes of units; None while nothing is masked."""

    def applied(self, weight: Tensor, mask: Tensor) -> Tensor:
        """``weight`` as the layer sees it under ``mask``, of its shape."""
        return weight * mask

    def forward(self, weight: Tensor) -> Tensor:
        mask = self.of(weight)
        return weight if mask is None else self.applied(weight, mask)

    def harden(self, weight: Tensor) -> None:
        """Settle the mask at the whole of what is asked."""
        if not self.hard:
            self.reached.fill_(1)
            self.mask.copy_(self.largest(weight))
            self.hard.fill_(True)

    def settle(self, weight: Tensor) -> None:
        """The mask for the epoch to come, which stays as it is until the next; a hard one stays for good."""
        if self.hard:
            return
        self.mask.copy_(self.largest(weight) if self.reached > 0 else torch.ones_like(self.mask))


class HardMask(Mask):
    """Masked elements are zero and get no gradient, until an epoch settles another mask."""

    def of(self, size: Tensor) -> Tensor:
        return self.mask


class SoftMask(Mask):
    """PDP: each element times sigmoid((w² - t²) / τ), so that the gradient goes through the mask.

    t is half way between the smallest magnitude that stays and the largest that goes (of the weight, or of a block of
    the pattern); τ is ``tau`` times the mean of w², or its standard deviation where that is less, as among the units of
    a group, which are nearly alike [ours: the paper's is absolute].

    Attributes
    ----------
    warmth
        How much of τ is left: 1 to 0.
    """

    warmth: Tensor

    def __init__(self, weight: Tensor, pattern: Pattern | None, tau: float) -> None:
        super().__init__(weight, pattern)
        self.tau = tau
        self.register_buffer("warmth", torch.ones((), device=weight.device))

    def of(self, size: Tensor) -> Tensor | None:
        if self.hard:
            return self.mask
        return None if self.reached == 0 else self.soft(size)

    def soft(self, weight: Tensor) -> Tensor:
        """The mask, between 0 and 1."""
        size = weight.square()
        if self.pattern is not None:
            each = self.pattern.blocks(size)
            blocks = each.mean(-2, keepdim=True)  # of rows that share it
            level = self.reached * _middle(blocks.detach(), self.pattern.n)
            soft: Tensor = self.pattern.tensor(torch.sigmoid((blocks - level) / self._width(size)).expand(each.shape))
            return soft
        gone = round(float(self.gone) * float(self.reached))
        if gone == 0:
            return torch.ones_like(weight)
        flat = size.detach().flatten().sort().values
        level = ((flat[gone - 1].sqrt() + flat[min(gone, flat.numel() - 1)].sqrt()) / 2).square()
        return torch.sigmoid((size - level) / self._width(size))

    def _width(self, size: Tensor) -> Tensor:
        deviation, mean = torch.std_mean(size.detach(), correction=0)
        return (self.tau * self.warmth * torch.minimum(mean, deviation)).clamp_min(torch.finfo(size.dtype).tiny)


class StraightMask(Mask):
    """The largest elements at each step; the gradient goes to all of them as if there were no mask.

    With ``decay`` what is masked is pulled towards zero as well (SR-STE).
    """

    def __init__(self, weight: Tensor, pattern: Pattern | None, decay: float) -> None:
        super().__init__(weight, pattern)
        self.decay = decay

    def of(self, size: Tensor) -> Tensor | None:
        if self.hard:
            return self.mask
        return None if self.reached == 0 else self.largest(size)

    def applied(self, weight: Tensor, mask: Tensor) -> Tensor:
        if self.hard:
            return weight * mask
        found: Tensor = _Straight.apply(weight, mask, self.decay)
        return found


class _Straight(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, mask: Tensor, decay: float) -> Tensor:
        ctx.save_for_backward(weight, mask)
        ctx.decay = decay
        return weight * mask

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        weight, mask = ctx.saved_tensors
        return grads[0] + ctx.decay * weight * ~mask, None, None


class SoftThreshold(nn.Module):
    """STR: magnitudes less a threshold sigmoid(s) that is learned, none below zero.

    Attributes
    ----------
    level
        s, pulled towards 0 by ``decay`` at each step.
    mask, hard
        Which elements are other than zero, once that is settled.
    """

    mask: Tensor
    hard: Tensor

    def __init__(self, weight: Tensor, start: float, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.level = nn.Parameter(torch.full((), start, dtype=weight.dtype, device=weight.device))
        self.register_buffer("mask", torch.ones(weight.shape, dtype=torch.bool, device=weight.device))
        self.register_buffer("hard", torch.zeros((), dtype=torch.bool, device=weight.device))

    def forward(self, weight: Tensor) -> Tensor:
        if self.hard:
            return self._shrunk(weight, self.level.detach()) * self.mask
        level = self.level
        if self.decay and level.requires_grad and torch.is_grad_enabled():
            level = _Pulled.apply(level, self.decay)
        return self._shrunk(weight, level)

    def harden(self, weight: Tensor) -> None:
        """Settle which elements are zero, and the threshold."""
        if not self.hard:
            self.mask.copy_(self._shrunk(weight, self.level) != 0)
            self.hard.fill_(True)

    @staticmethod
    def _shrunk(weight: Tensor, level: Tensor) -> Tensor:
        return weight.sign() * torch.relu(weight.abs() - torch.sigmoid(level))


class _Pulled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, level: Tensor, decay: float) -> Tensor:
        ctx.save_for_backward(level)
        ctx.decay = decay
        return level.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (level,) = ctx.saved_tensors
        return grads[0] + ctx.decay * level, None


def _largest(size: Tensor, count: int) -> Tensor:
    """Which are the ``count`` largest elements; the first ones of those that are equal."""
    order = size.flatten().argsort(dim=0, descending=True, stable=True)[:count]
    kept = torch.zeros(size.numel(), dtype=torch.bool, device=size.device)
    kept[order] = True
    return kept.reshape(size.shape)


def _middle(sums: Tensor, n: int) -> Tensor:
    """Half way, in magnitude, between the ``n``-th largest along the last axis and the next, squared."""
    ordered = sums.sort(-1, descending=True).values.sqrt()
    return ((ordered[..., n - 1 : n] + ordered[..., n : n + 1]) / 2).square()


def global_counts(weights: Sequence[Tensor], sparsity: float) -> list[int]:
    """How many elements of each weight are among the share ``sparsity`` of smallest magnitude of all together.

    One element of each stays.
    """
    sizes = torch.cat([w.detach().abs().flatten() for w in weights])
    kept = _largest(sizes, sizes.numel() - round(sparsity * sizes.numel()))
    parts = torch.split(kept, [w.numel() for w in weights])
    return [min(part.numel() - 1, int((~part).sum())) for part in parts]
