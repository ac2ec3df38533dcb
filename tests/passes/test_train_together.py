"""Training in two processes gives both the same masks, and the network of one process with the same batches."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch

import prunec

ROOT = Path(prunec.__file__).resolve().parent
SCRIPT = str(ROOT / "examples" / "sparse_digits.py")


def trained(folder: Path, *launcher: str) -> list[dict[str, torch.Tensor]]:
    """The weights of each process that the example ran in."""
    folder.mkdir()
    env = {**os.environ, "PYTHONPATH": str(ROOT / ".dev"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *launcher, SCRIPT, "--double", "--save", str(folder / "w")]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "zeros 90.0%" in done.stdout and "of the digits right" in done.stdout
    return [torch.load(path, weights_only=True) for path in sorted(folder.iterdir())]


def test_two_processes_train_one_network(tmp_path: Path) -> None:
    (alone,) = trained(tmp_path / "one")
    first, second = trained(tmp_path / "two", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    for name, weight in first.items():
        assert torch.equal(weight, second[name]), name
        assert ((weight == 0) != (alone[name] == 0)).double().mean() < 1e-3, name
        distance = float((weight - alone[name]).norm() / alone[name].norm())
        assert distance < 1e-4, f"{name}: sums are in another order, and 140 steps make 1e-8 to 1e-6 of that"
