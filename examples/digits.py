"""From a trained network to half of it, in a minute on a CPU: handwritten digits.

Trains a small convolutional network on scikit-learn's digits (1,797 real images of 8x8 pixels), compiles it to half its
MACs with prunec, fine-tunes the compact network briefly, and shows what that cost and what it gained.  Then it writes
the artifact, loads it back without this file's class, and checks that both compute the same.

Run with ``python examples/digits.py [FOLDER]``; the artifact goes to FOLDER, or to a temporary folder.

``model``, ``fit`` and ``evaluate`` are what ``prunec portfolio build examples/digits.py:model`` goes by.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn import functional as F

import prunec

SEED = 0
MACS = 0.5  # of the dense network's, to keep
EPOCHS = 8  # of each level of a portfolio


def conv(in_channels: int, out_channels: int, stride: int = 1) -> nn.Sequential:
    """A 3x3 convolution and its batch norm."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False),
        nn.BatchNorm2d(out_channels),
    )


class Net(nn.Module):
    """Four convolutions with batch norm, two of them inside a residual; 48, 96 and 160 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(1, 48)
        self.down = conv(48, 96, stride=2)
        self.block = nn.Sequential(conv(96, 160), nn.ReLU(), conv(160, 96))
        self.head = nn.Linear(96, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.down(F.relu(self.stem(x))))
        x = F.relu(x + self.block(x))
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


def digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training images, test images, training labels, test labels; images are (N, 1, 8, 8)."""
    images, labels = load_digits(return_X_y=True)
    split = train_test_split(images, labels, test_size=0.25, random_state=SEED, stratify=labels)
    x_train, x_test = (torch.tensor(x, dtype=torch.float32).view(-1, 1, 8, 8) / 8 - 1 for x in split[:2])
    y_train, y_test = (torch.tensor(y) for y in split[2:])
    return x_train, x_test, y_train, y_test


def cosine(done: float) -> float:
    """From 1 to 0 while a training is ``done``."""
    return (1 + math.cos(math.pi * done)) / 2


def train(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    epochs: int,
    lr: float,
    batch: int = 64,
    start: int = 0,
    after_epoch: Callable[[], None] = lambda: None,
) -> None:
    """Adam with a learning rate that falls to zero; batches and rates go on where ``start`` steps are done."""
    generator = torch.Generator().manual_seed(SEED)
    each = len(x) // batch
    optimizer = torch.optim.Adam(model.parameters(), lr)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: cosine((start + step) / (epochs * each)))
    model.train()
    for epoch in range(epochs):
        batches = torch.randperm(len(x), generator=generator)[: each * batch].view(-1, batch)
        for chosen in batches[min(each, max(0, start - epoch * each)) :]:
            loss = F.cross_entropy(model(x[chosen]), y[chosen])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
        after_epoch()
    model.eval()


@torch.no_grad()
def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Percent named right."""
    return 100 * float((model(x).argmax(1) == y).float().mean())


def model() -> tuple[nn.Module, tuple[Tensor]]:
    """The network, and example inputs: two images."""
    return Net(), (digits()[1][:2],)


def fit(net: nn.Module, start: int = 0, after_epoch: Callable[[], None] = lambda: None) -> None:
    """Train a network, dense or compact, that has ``start`` steps behind it."""
    x, _, y, _ = digits()
    train(net, x, y, epochs=EPOCHS, lr=3e-3, start=start, after_epoch=after_epoch)


def evaluate(net: nn.Module) -> float:
    """Percent of the test images named right."""
    _, x, _, y = digits()
    return accuracy(net, x, y)


def show(report: dict[str, Any], dense: float, pruned: float, tuned: float) -> None:
    """The table: dense, compact and their ratio."""
    print(f"{'':<26}{'dense':>12}{'compact':>12}{'ratio':>9}")
    print(f"{'accuracy, pruned':<26}{dense:>10.2f} %{pruned:>10.2f} %")
    print(f"{'accuracy, fine-tuned':<26}{dense:>10.2f} %{tuned:>10.2f} %")
    for label, key, form in (
        ("parameters", "params", ",.0f"),
        ("MACs", "macs", ",.0f"),
        ("size, bytes", "size_bytes", ",.0f"),
        ("latency, ms", "latency_ms", ".4f"),
    ):
        row = report[key]
        print(f"{label:<26}{row['dense']:>12{form}}{row['compact']:>12{form}}{row['ratio']:>9.3f}")
    print(f"max error against the masked dense network: {report['verify']['max_rel_err']:.1e} (relative)")


def main(folder: Path) -> None:
    start = time.perf_counter()
    torch.set_num_threads(1)  # the images are so small that a second thread only waits
    torch.manual_seed(SEED)
    x_train, x_test, y_train, y_test = digits()

    model = Net()
    train(model, x_train, y_train, epochs=15, lr=3e-3)
    dense = accuracy(model, x_test, y_test)

    result = prunec.compile(model, (x_test[:2],), macs=MACS, seed=SEED)
    assert result.module is not None
    pruned = accuracy(result.module.eval(), x_test, y_test)

    train(result.module, x_train, y_train, epochs=5, lr=1e-3)
    tuned = accuracy(result.module, x_test, y_test)
    show(result.report, dense, pruned, tuned)

    result.save(folder)
    loaded = prunec.load(folder)
    assert loaded.module is not None
    with torch.no_grad():
        torch.testing.assert_close(loaded.module.eval()(x_test), result.module(x_test))
    print(f"saved to {folder}, loaded back: the same outputs; {time.perf_counter() - start:.0f} s in all")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, help="where to put the artifact (default: a temporary folder)")
    chosen = parser.parse_args().folder
    with tempfile.TemporaryDirectory(prefix="prunec-digits-") as temporary:
        main(chosen or Path(temporary))
