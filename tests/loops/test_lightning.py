"""``prunec.train`` in Lightning: each epoch is told once, and its checkpoints resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import prunec
from prunec.ir.errors import UsageError

from .running import EPOCHS, IMAGES, LABELS, RECIPE, layers, runs_and_resumes

lightning = pytest.importorskip("lightning.pytorch", reason="the loop is Lightning's, which `.[loops]` installs")

STEPS = len(IMAGES) // 32


def module() -> Any:
    class Digits(lightning.LightningModule):  # type: ignore[name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.layers = layers()

        def training_step(self, given: list[Tensor]) -> Tensor:
            loss = F.cross_entropy(self.layers(given[0]), given[1])
            self.log("train_loss", loss, on_step=True, on_epoch=True)
            self.log("sparsity", 0.5)  # a name that the history has for itself
            return loss

        def validation_step(self, given: list[Tensor]) -> None:
            self.log("accuracy", (self.layers(given[0]).argmax(1) == given[1]).float().mean())

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), lr=1e-2)

    return Digits()


def fit(sparse: Any, folder: Path, start: Path | None = None, epochs: int = EPOCHS, **options: Any) -> Any:
    from lightning.pytorch.callbacks import ModelCheckpoint

    from prunec.loops.lightning import SparseCallback

    data = TensorDataset(IMAGES, LABELS)
    saving = ModelCheckpoint(folder, "{epoch}-{step}", save_top_k=-1, enable_version_counter=False, **options)
    run = lightning.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_model_summary=False, enable_progress_bar=False,
        callbacks=[saving, SparseCallback(sparse)], num_sanity_val_steps=0,
    )  # fmt: skip
    run.fit(sparse.model, DataLoader(data, 32), DataLoader(data, 96), ckpt_path=start)
    return run


@pytest.mark.parametrize(
    ("options", "saved"),
    [
        ({}, f"epoch=1-step={2 * STEPS}.ckpt"),
        ({"save_on_train_epoch_end": False}, f"epoch=1-step={2 * STEPS}.ckpt"),
        ({"every_n_train_steps": STEPS}, f"epoch=1-step={2 * STEPS}.ckpt"),
        ({"every_n_train_steps": 2}, f"epoch=1-step={STEPS + 1}.ckpt"),
        ({}, f"epoch=3-step={EPOCHS * STEPS}.ckpt"),
    ],
    ids=["epoch", "validation", "last step", "mid epoch", "the end"],
)
def test_resumed(options: dict[str, Any], saved: str, tmp_path: Path) -> None:
    """From a checkpoint of an epoch's end the same weights as without a break; from its middle Lightning reads the
    whole of the data again."""
    with prunec.train(module(), RECIPE) as whole:
        fit(whole, tmp_path, **options)
    with prunec.train(module(), RECIPE) as resumed:
        fit(resumed, tmp_path, tmp_path / saved, **options)
    for found in (whole, resumed):
        assert [entry["epoch"] for entry in found.history] == [1, 2, 3, 4]
        assert [entry["sparsity"] for entry in found.history] == pytest.approx([0, 0.4, 0.8, 0.8], abs=1e-3)
    for (name, one), two in zip(whole.model.state_dict().items(), resumed.model.state_dict().values(), strict=True):
        assert torch.equal(one, two) or saved.endswith(f"step={STEPS + 1}.ckpt"), name


def test_the_history_has_what_was_logged(tmp_path: Path) -> None:
    with prunec.train(module(), RECIPE) as sparse:
        fit(sparse, tmp_path)
    assert set(sparse.history[0]) == {"epoch", "loss", "sparsity", "accuracy", "train_loss_epoch", "logged_sparsity"}
    assert all(entry["loss"] == entry["train_loss_epoch"] for entry in sparse.history)
    assert sparse.history[0]["loss"] > sparse.history[-1]["loss"] and sparse.history[-1]["accuracy"] > 0.5


def test_a_second_training_goes_on(tmp_path: Path) -> None:
    with prunec.train(module(), RECIPE) as sparse:
        for _ in range(2):
            fit(sparse, tmp_path, epochs=2)
    assert [entry["epoch"] for entry in sparse.history] == [1, 2, 3, 4]


def test_what_cannot_be_resumed(tmp_path: Path) -> None:
    fit(prunec.train(module(), RECIPE), tmp_path, epochs=1)
    saved = tmp_path / f"epoch=0-step={STEPS}.ckpt"
    with pytest.raises(UsageError, match=r"the checkpoint is of the recipe.*sparsity=0.8"):
        fit(prunec.train(module(), "pdp{sparsity=0.5}"), tmp_path, saved)
    checkpoint = torch.load(saved, weights_only=True)
    del checkpoint["callbacks"]["SparseCallback"]
    torch.save(checkpoint, saved)
    with pytest.raises(UsageError, match="the checkpoint of epoch 0 has no state of prunec"):
        fit(prunec.train(module(), RECIPE), tmp_path, saved)


def test_the_example(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs_and_resumes("lightning_digits", tmp_path, capsys)
