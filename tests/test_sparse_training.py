"""The benches of sparse training and their example: contenders, what is trained and written, the tables.  No data."""

from __future__ import annotations

import importlib.util
import io
import math
import sys
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import prunec
from prunec.recipe import Recipe

from .test_unconstrained_accuracy import of_bench

cifar10, shared, pdp, dkm = map(of_bench, ("cifar10", "sparse_training", "pdp", "dkm"))
SETTINGS = shared.SparseSettings(tune_epochs=3, warm=0, rise=1, settled=1, batch=16)
EXAMPLE = Path(prunec.__file__).resolve().parent / "examples" / "pdp_cifar10.py"


def tiny() -> nn.Module:
    """A network for 32x32 images, which N:M fits and which has a weight that is large enough for clusters."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=4, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, bias=False),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10),
    ).eval()  # fmt: skip


def images(count: int) -> Any:
    pixels = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    return cifar10.Images(pixels, torch.arange(count) % 10)


def contender(task: str, name: str) -> Any:
    return next(c for c in (pdp.TASKS | dkm.TASKS)[task] if c.name == name)


@pytest.mark.parametrize("settings", [shared.SparseSettings(), shared.SHORT])
def test_each_recipe_is_one_and_reaches_its_end_before_masks_are_settled(settings: Any) -> None:
    assert settings.warm + settings.rise <= settings.tune_epochs - settings.settled
    for found in (c for tasks in (pdp.TASKS, dkm.TASKS) for task in tasks.values() for c in task):
        Recipe.load(found.pipeline)
        if (recipe := found.method(settings)) is not None:
            method = next(iter(Recipe.load(recipe)))
            assert method.name == ("ste" if found.name == "sr-ste" else found.name)
            assert getattr(method, "rise", 0) <= settings.rise


@pytest.mark.parametrize(("task", "name", "kept"), [("90 % of the elements", "pdp", 0.1), ("2:4", "sr-ste", 0.5)])
def test_a_contender_is_trained_settled_and_written(task: str, name: str, kept: float) -> None:
    dense = tiny()
    row, file = shared.contend(contender(task, name), dense, images(32), images(20), SETTINGS)
    assert row.density == pytest.approx(kept, abs=0.1), "the first layer, of three channels, fits no pattern"
    assert None not in (row.soft, row.hard) and 0 <= row.tuned <= 100
    assert row.size_bytes == len(file) > row.gzip_bytes
    assert math.isnan(row.latency), "it is measured when nothing else runs"
    assert all(
        torch.equal(a, b) for a, b in zip(dense.state_dict().values(), tiny().state_dict().values(), strict=True)
    )


def test_soft_and_hard_are_taken_where_masks_are_settled() -> None:
    model = tiny()
    with prunec.train(model, "pdp{sparsity=0.5,warm=0,rise=1}") as sparse:
        settling = shared.Settling(sparse, images(20), SETTINGS)
        seen = []
        for _ in range(SETTINGS.tune_epochs):
            model.train()
            model(torch.zeros(2, 3, 32, 32))
            settling.after_epoch(1.0)
            seen.append((settling.soft is None, settling.hard is None, bool(sparse.layers[0][1][0].held.hard)))
            assert model.training
    assert seen == [(True, True, False), (False, False, True), (False, False, True)]


@pytest.mark.parametrize(("name", "moved"), [("k-means", False), ("k-means, rest trained", True)])
def test_k_means_fixes_what_it_clusters(name: str, *, moved: bool) -> None:
    chosen = contender("2 bits", name)
    start = chosen.start(tiny(), torch.zeros(2, 3, 32, 32))
    large, small = start[3].weight.detach().clone(), start[7].weight.detach().clone()
    assert len(large.unique()) == 4 and not start[3].weight.requires_grad and start[7].weight.requires_grad
    if chosen.trains:
        cifar10.train(start, images(32), 1, 0.1, SETTINGS, name)
    assert torch.equal(start[3].weight, large)
    assert torch.equal(start[7].weight, small) is not moved


def test_a_run_that_broke_off_goes_on(tmp_path: Path) -> None:
    """What was trained is not trained again; there are no images here."""
    chosen = contender("2:4", "pdp")
    row = shared.Row(**result()["rows"][0] | {"recipe": chosen.method(SETTINGS), "pipeline": chosen.pipeline})
    kept, other = (shared.Kept(tmp_path / "run", contender("2:4", name), SETTINGS) for name in ("pdp", "ste"))
    assert kept.read() is None
    kept.write(row, b"a file")
    assert shared._contend_alone(kept, tmp_path) == kept.read() == (row, b"a file")
    assert other.read() is None
    (other.folder / "2-4-ste.onnx").write_bytes(b"half")
    assert other.read() is None, "the line comes last"
    kept.write(replace(row, recipe="another"), b"a file")
    assert kept.read() is None


def result() -> dict[str, Any]:
    """What a run returns, made up."""
    row = shared.Row("2:4", "pdp", "pdp{n=2,m=4}", "pack,verify", 90.5, 90.25, 91.0, 0.5, 123456, 12345, 3.0, 1.01)
    rows = [row, replace(row, task="dense", name="as it starts", recipe=None, soft=None, hard=None)]
    return {
        "dense": {"published": 91.0, "adapted": 92.0},
        "settings": asdict(SETTINGS),
        "rows": [asdict(r) for r in rows],
        "seconds": 3.0,
        "jobs": 2,
        "command": "a command",
    }


def test_the_table_has_a_line_for_each_contender() -> None:
    lines = shared.table(result()).splitlines()
    assert "  pdp                                90.50   90.25   91.00    0.500    123,456     12,345    1.010" in lines
    assert "  as it starts                                       91.00    0.500    123,456     12,345    1.010" in lines
    assert lines[-1].endswith("seed 0; they trained 3 s, 2 at a time: a command")


@pytest.mark.parametrize("bench", [pdp, dkm])
def test_without_data_nothing_is_done(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PRUNEC_DATA", str(tmp_path))
    assert bench.main(["--short"]) == 0
    assert f"no CIFAR-10 in {tmp_path}" in capsys.readouterr().err


def test_the_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """On a few images of noise, with a tiny network."""
    for split, count in (("train", 64), ("test", 20)):
        _write_images(tmp_path / f"cifar10-{split}.npz", count)
    monkeypatch.setenv("PRUNEC_DATA", str(tmp_path))
    spec = importlib.util.spec_from_file_location("pdp_cifar10", EXAMPLE)
    assert spec is not None and spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "pdp_cifar10", example)
    spec.loader.exec_module(example)
    assert sum(p.numel() for p in example.ResNet20().parameters()) == 269722
    monkeypatch.setattr(example, "ResNet20", tiny)
    example.main(tmp_path / "artifact", short=True)
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("dense, random weights") and said[3].startswith("epoch  3") and "zeros 90." in said[3]
    assert f"{(tmp_path / 'artifact' / 'model.onnx').stat().st_size:,} bytes" in said[4]
    assert said[3].split()[-1] == said[5].split()[-1], "the file names right what the network does"


def _write_images(path: Path, count: int) -> None:
    files = []
    for pixels in np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), np.uint8):
        Image.fromarray(pixels).save(buffer := io.BytesIO(), "JPEG")
        files.append(buffer.getvalue())
    ends = np.cumsum([0, *map(len, files)])
    np.savez(path, jpeg=np.frombuffer(b"".join(files), np.uint8), offset=ends, label=np.arange(count) % 10)
