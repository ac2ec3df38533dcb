"""Sparse by training in Lightning: handwritten digits to 90 % zeros, then a small file.

Run with ``python examples/lightning_digits.py FOLDER``.  A checkpoint goes to FOLDER after each epoch; where one is
there already, the training goes on from it.  Needs ``pip install '.[loops,examples]'``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import prunec
from prunec.loops.lightning import SparseCallback


class Digits(LightningModule):
    """Two convolutions and two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(),
            nn.Flatten(), nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 10),
        )  # fmt: skip

    def training_step(self, batch: list[Tensor]) -> Tensor:
        loss = F.cross_entropy(self.layers(batch[0]), batch[1])
        self.log("train_loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: list[Tensor]) -> None:
        self.log("accuracy", (self.layers(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=2e-3)


def main(folder: str, epochs: int = 8) -> dict[str, Tensor]:
    """Train, compile, and say what came of it; the trained weights."""
    torch.manual_seed(0)
    images, labels = (torch.tensor(x) for x in load_digits(return_X_y=True))
    images = images.float().view(-1, 1, 8, 8) / 8 - 1
    data, last = TensorDataset(images, labels), Path(folder, "last.ckpt")
    module = Digits()
    with prunec.train(module, "pdp{sparsity=0.9,warm=2,rise=3,settle=2}", epochs=epochs) as sparse:
        trainer = Trainer(
            max_epochs=epochs, accelerator="cpu", logger=False, enable_model_summary=False,
            callbacks=[SparseCallback(sparse), ModelCheckpoint(folder, save_last=True, enable_version_counter=False)],
        )  # fmt: skip
        trainer.fit(
            module, DataLoader(data, 64, shuffle=True), DataLoader(data, 256), ckpt_path=last if last.exists() else None
        )
    print(sparse.table())
    sparse.plot(f"{folder}/training.svg")
    result = prunec.compile(module.layers.eval(), (images[:2],), "pack,verify")
    result.save(f"{folder}/compiled")
    size = result.report["size_bytes"]
    print(f"{sparse.history[-1]['accuracy']:.1%} right, {size['dense']:,} -> {size['compact']:,} bytes")
    weights: dict[str, Tensor] = module.state_dict()
    return weights


if __name__ == "__main__":
    main(sys.argv[1])
