"""Sparse by training in a loop with Accelerate: handwritten digits to 90 % zeros, then a small file.

Run with ``python examples/accelerate_digits.py FOLDER``, or ``accelerate launch`` before it for several processes.
A checkpoint goes to FOLDER after each epoch; where one is there already, the training goes on from it.  Needs
``pip install '.[loops,examples]'``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from accelerate import Accelerator
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import prunec


def network() -> nn.Sequential:
    """Two convolutions and two linear layers."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip


def main(folder: str, epochs: int = 8) -> dict[str, Tensor]:
    """Train, compile, and say what came of it; the trained weights."""
    torch.manual_seed(0)
    images, labels = (torch.tensor(x) for x in load_digits(return_X_y=True))
    images = images.float().view(-1, 1, 8, 8) / 8 - 1
    model, accelerator, checkpoint = network(), Accelerator(), Path(folder, "checkpoint")
    with prunec.train(model, "pdp{sparsity=0.9,warm=2,rise=3,settle=2}", epochs=epochs) as sparse:
        accelerator.register_for_checkpointing(sparse)
        trained, optimizer, loader = accelerator.prepare(
            model, torch.optim.Adam(model.parameters(), lr=2e-3),
            DataLoader(TensorDataset(images, labels), batch_size=64, shuffle=True),
        )  # fmt: skip
        if checkpoint.exists():
            accelerator.load_state(str(checkpoint))
        while sparse.epoch < epochs:
            right, total = 0.0, 0.0
            for x, y in loader:
                logits = trained(x)
                loss = F.cross_entropy(logits, y)
                accelerator.backward(loss)
                optimizer.step()
                optimizer.zero_grad()
                right, total = right + float((logits.argmax(1) == y).sum()), total + float(len(y))
            sparse.step(loss, accuracy=right / total)
            accelerator.save_state(str(checkpoint))
    if accelerator.is_main_process:
        print(sparse.table())
        sparse.plot(f"{folder}/training.svg")
        result = prunec.compile(accelerator.unwrap_model(trained).cpu().eval(), (images[:2],), "pack,verify")
        result.save(f"{folder}/compiled")
        size = result.report["size_bytes"]
        print(f"{sparse.history[-1]['accuracy']:.1%} right, {size['dense']:,} -> {size['compact']:,} bytes")
    accelerator.end_training()
    return model.state_dict()


if __name__ == "__main__":
    main(sys.argv[1])
