"""Sparse by training in Hugging Face's Trainer: handwritten digits to 90 % zeros, then a small file.

Run with ``python examples/trainer_digits.py FOLDER``.  Checkpoints go to FOLDER; where one is there already, the
training goes on from it.  Needs ``pip install '.[loops,examples]'``.
"""

from __future__ import annotations

import sys

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import EvalPrediction, Trainer, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

import prunec
from prunec.loops.trainer import SparseCallback


class Network(nn.Module):
    """Two convolutions and two linear layers; with ``labels`` it gives the loss too, as Trainer wants it."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(),
            nn.Flatten(), nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 10),
        )  # fmt: skip

    def forward(self, images: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        logits = self.layers(images)
        return {"logits": logits} if labels is None else {"loss": F.cross_entropy(logits, labels), "logits": logits}


def accuracy(found: EvalPrediction) -> dict[str, float]:
    """What share of the digits is right."""
    return {"accuracy": float((found.predictions.argmax(1) == found.label_ids).mean())}


def main(folder: str, epochs: int = 8) -> dict[str, Tensor]:
    """Train, compile, and say what came of it; the trained weights."""
    torch.manual_seed(0)
    images, labels = (torch.tensor(x) for x in load_digits(return_X_y=True))
    images = images.float().view(-1, 1, 8, 8) / 8 - 1
    data = [{"images": x, "labels": y} for x, y in zip(images, labels, strict=True)]
    model = Network()
    args = TrainingArguments(
        folder, num_train_epochs=epochs, per_device_train_batch_size=64, learning_rate=2e-3,
        lr_scheduler_type="constant", save_strategy="epoch", eval_strategy="epoch", logging_strategy="epoch",
        report_to="none", seed=0,
    )  # fmt: skip
    with prunec.train(model, "pdp{sparsity=0.9,warm=2,rise=3,settle=2}", epochs=epochs) as sparse:
        callbacks = [SparseCallback(sparse)]
        trainer = Trainer(
            model, args, train_dataset=data, eval_dataset=data, compute_metrics=accuracy, callbacks=callbacks
        )
        trainer.train(resume_from_checkpoint=get_last_checkpoint(folder))
    print(sparse.table())
    sparse.plot(f"{folder}/training.svg")
    result = prunec.compile(model.cpu().eval(), (images[:2],), "pack,verify")
    result.save(f"{folder}/compiled")
    size = result.report["size_bytes"]
    print(f"{sparse.history[-1]['eval_accuracy']:.1%} right, {size['dense']:,} -> {size['compact']:,} bytes")
    return model.state_dict()


if __name__ == "__main__":
    main(sys.argv[1])
