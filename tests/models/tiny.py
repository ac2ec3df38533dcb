"""The networks of the golden tests: as small as a printed graph should be."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Made = tuple[nn.Module, tuple[Tensor, ...]]


class Shuffle(nn.Module):
    """Convolution, channel shuffle of two groups, convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        b, c, h, w = x.shape
        return self.b(x.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w))  # type: ignore[no-any-return]


class Attention(nn.Module):
    """Two heads, the scale left to the head dimension."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(4, 24), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).view(*x.shape[:2], 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v)
        return self.out(y.transpose(1, 2).flatten(2)[:, -1])  # type: ignore[no-any-return]


def shuffle() -> Made:
    return Shuffle(), (torch.randn(2, 3, 4, 4),)


def attention() -> Made:
    return Attention(), (torch.randn(2, 5, 4),)


def grouped() -> Made:
    """Grouped convolution with batch norm, flattened into a linear layer."""
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 8, 3, groups=2), nn.Flatten(), nn.Linear(32, 2)]
    return nn.Sequential(*layers), (torch.randn(2, 3, 6, 6),)


def dead_filter() -> Made:
    """The second of three filters is zero: a sigmoid makes 0.5 of it, which the next bias can take."""
    first, second = nn.Conv2d(2, 3, 1), nn.Conv2d(3, 2, 1)
    with torch.no_grad():
        first.weight[1] = 0
        first.bias[1] = 0  # type: ignore[index]
    return nn.Sequential(first, nn.BatchNorm2d(3), nn.Sigmoid(), second), (torch.randn(2, 2, 4, 4),)
