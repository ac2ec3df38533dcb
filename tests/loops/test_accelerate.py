"""``prunec.train`` in a loop with Accelerate, which needs no callback: its checkpoints take the object as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import prunec

from .running import EPOCHS, IMAGES, LABELS, RECIPE, layers, runs_and_resumes

accelerate = pytest.importorskip("accelerate", reason="the loop is Accelerate's, which `.[loops]` installs")


def loop(sparse: Any, folder: Path, start: Path | None = None) -> None:
    accelerator = accelerate.Accelerator(cpu=True)
    accelerator.register_for_checkpointing(sparse)
    model, optimizer, loader = accelerator.prepare(
        sparse.model,
        torch.optim.Adam(sparse.model.parameters(), lr=1e-2),
        DataLoader(TensorDataset(IMAGES, LABELS), 32, shuffle=True),
    )
    if start is not None:
        accelerator.load_state(str(start))
    while sparse.epoch < EPOCHS:
        for x, y in loader:
            loss = F.cross_entropy(model(x), y)
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
        sparse.step(loss, accuracy=(model(x).argmax(1) == y).float().mean())
        accelerator.save_state(str(folder / str(sparse.epoch)))


def test_resumed(tmp_path: Path) -> None:
    """The same weights and history as without a break."""
    with prunec.train(layers(), RECIPE) as whole:
        loop(whole, tmp_path)
    with prunec.train(layers(), RECIPE) as resumed:
        loop(resumed, tmp_path, tmp_path / "2")
    assert resumed.history == whole.history
    assert [entry["epoch"] for entry in whole.history] == [1, 2, 3, 4]
    for (name, one), two in zip(whole.model.state_dict().items(), resumed.model.state_dict().values(), strict=True):
        assert torch.equal(one, two), name


def test_the_example(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs_and_resumes("accelerate_digits", tmp_path, capsys)
