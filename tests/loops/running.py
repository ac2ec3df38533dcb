"""A small network, a few digits, and the examples: what the tests of all frameworks need."""

from __future__ import annotations

import importlib.util
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

import prunec

RECIPE = "pdp{sparsity=0.8,warm=1,rise=2}"
EPOCHS = 4
EXAMPLES = Path(prunec.__file__).resolve().parent / "examples"
IMAGES, LABELS = (torch.tensor(x[:96]) for x in load_digits(return_X_y=True))
IMAGES = IMAGES.float() / 8 - 1


def layers() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def example(name: str) -> ModuleType:
    """The module of ``examples/NAME.py``."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Stopped(Exception):
    """What ends the first run of an example."""


def stopped(*given: object, **options: object) -> None:
    raise Stopped


def runs_and_resumes(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An example stops after three epochs, then goes on from its checkpoint to the fifth, where its schedule ends."""
    main = example(name).main
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prunec, "compile", stopped)
        with pytest.raises(Stopped):
            main(str(folder), 3)
    first = capsys.readouterr().out
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prunec, "compile", partial(prunec.compile, measure=False))  # measuring takes as long as training
        weights = main(str(folder), 5)
    second = capsys.readouterr().out
    assert "after 3 epochs" in first and "after 5 epochs" in second
    zeros = sum(int((w == 0).sum()) for n, w in weights.items() if n.endswith("weight"))
    total = sum(w.numel() for n, w in weights.items() if n.endswith("weight"))
    assert abs(zeros / total - 0.9) < 1e-3
    picture = (folder / "training.svg").read_text()
    assert all(f"epoch {k}: sparsity" in picture for k in (1, 2, 3, 4, 5))
    assert float(second.splitlines()[-1].split("%")[0]) > 90, second
