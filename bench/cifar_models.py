"""The networks for CIFAR-10: ResNets as published and a DenseNet, pruned without fine-tuning; a VGG, pruned untrained.

The ResNets' published weights are adapted to our JPEG images by :mod:`bench.cifar10`; the DenseNet starts from nothing.
What is trained lies in ``bench/.cache`` afterwards.  Depths, images and epochs are such that one core does all of it
in about half an hour; the networks are no better than that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .cifar10 import Images, ResNet, Settings, adapted, fit

BOTTLENECK = 2
"""Channels between the two convolutions of a dense layer, in growths."""
VGG_BLOCKS = ((1, 2), (2, 2), (4, 3), (8, 3), (8, 3))
"""Of each block of VGG-16: its width in those of the first, and its layers."""


class DenseLayer(nn.Module):
    """``growth`` channels put after the ``in_channels`` that they are made of: BN-ReLU-conv 1x1, BN-ReLU-conv 3x3."""

    def __init__(self, in_channels: int, growth: int) -> None:
        super().__init__()
        between = BOTTLENECK * growth
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, between, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(between)
        self.conv2 = nn.Conv2d(between, growth, 3, 1, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.relu(self.norm1(x)))
        return torch.cat([x, self.conv2(F.relu(self.norm2(y)))], 1)


class Transition(nn.Module):
    """Half of the channels at half of the resolution."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(in_channels)
        self.conv = nn.Conv2d(in_channels, in_channels // 2, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(self.conv(F.relu(self.norm(x))), 2)


class DenseNet(nn.Module):
    """A DenseNet-BC for 32x32 images whose stem halves the resolution; ``layers`` of each dense block."""

    def __init__(self, layers: Sequence[int] = (4, 6, 8), growth: int = 12, stem: int = 16, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, stem, 3, 2, 1, bias=False)
        body: list[nn.Module] = []
        width = stem
        for number, count in enumerate(layers):
            if number:
                body.append(Transition(width))
                width //= 2
            body += [DenseLayer(width + k * growth, growth) for k in range(count)]
            width += count * growth
        self.body = nn.Sequential(*body)
        self.norm = nn.BatchNorm2d(width)
        self.linear = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.body(self.stem(x))))
        logits: Tensor = self.linear(F.adaptive_avg_pool2d(x, 1).flatten(1))
        return logits


class VGG(nn.Module):
    """VGG-16 with batch norms for 32x32 images, one linear layer at its end; ``width`` of the first layers."""

    def __init__(self, width: int = 64, classes: int = 10) -> None:
        super().__init__()
        body: list[nn.Module] = []
        channels = 3
        for times, count in VGG_BLOCKS:
            for _ in range(count):
                conv = nn.Conv2d(channels, times * width, 3, 1, 1, bias=False)
                channels = conv.out_channels
                body += [conv, nn.BatchNorm2d(channels), nn.ReLU()]
            body.append(nn.MaxPool2d(2))
        self.body = nn.Sequential(*body)
        self.linear = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.body(x).flatten(1))
        return logits


@dataclass(frozen=True)
class Network:
    """How one network comes about: ``make(data, images, settings)`` trains it on ``images`` by ``settings``."""

    make: Callable[[Path, Images, Settings], nn.Module]
    settings: Settings

    def shortened(self) -> Network:
        """The same by a few images, as a check that all works."""
        return replace(self, settings=replace(self.settings, adapt_epochs=1, train_images=640, test_images=500))


def densenet(data: Path, images: Images, settings: Settings) -> DenseNet:
    """The DenseNet, trained from random weights."""
    torch.manual_seed(settings.seed)
    model = DenseNet()
    fit(model, "densenet", images, settings)
    return model


def resnet(depth: int) -> Callable[[Path, Images, Settings], ResNet]:
    """The published network of that depth, adapted to the images."""
    return lambda data, images, settings: adapted(data, images, settings, depth)


NETWORKS = {
    "resnet20": Network(resnet(20), Settings()),
    "resnet56": Network(resnet(56), Settings(adapt_epochs=1, train_images=12_800, test_images=5_000)),
    "densenet": Network(densenet, Settings(adapt_epochs=9, adapt_lr=0.1)),
}
