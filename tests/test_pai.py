"""The bench of pruning at initialisation: masks as asked and held, its checks, and what it writes.  No data."""

from __future__ import annotations

import copy
import json
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from prunec.passes.score.scoring import ELEMENTS

from .test_unconstrained_accuracy import of_bench

cifar10, models, masks, checks, accuracy, pai = map(
    of_bench, ("cifar10", "cifar_models", "pai_masks", "pai_checks", "unconstrained_accuracy", "pai")
)
SETTINGS = cifar10.Settings(adapt_epochs=1, adapt_lr=0.1, batch=8, train_images=16, test_images=16)


def small() -> nn.Module:
    """A network that blocks of 16 channels can be cut from."""
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, 2, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 64, 3, 2, bias=False), nn.BatchNorm2d(64), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip


def bed() -> Any:
    """Two convolutions and random images, of which two batches are an epoch; three steps at most."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (16, 3, 32, 32), dtype=torch.uint8, generator=generator)
    images = cifar10.Images(pixels, torch.arange(16) % 10)
    inputs = [cifar10.normalised(part, SETTINGS).contiguous() for part in (pixels[:8], pixels[8:])]
    samples = masks.Samples(inputs, [images.labels[:8], images.labels[8:]])
    return pai.Bed("tiny", checks.drawn(small(), 0), SETTINGS, images, images, samples, 3)


def weights(model: nn.Module) -> dict[str, np.ndarray]:
    return {n: p.detach().numpy() for n, p in model.named_parameters() if p.dim() > 1}


def half() -> Any:
    """Random masks of one half, over the weights of :func:`bed`."""
    generator = torch.Generator().manual_seed(1)
    return {n: torch.rand(w.shape, generator=generator) < 0.5 for n, w in weights(bed().model).items()}


def test_the_vgg_is_vgg_16() -> None:
    model = models.VGG()
    assert sum(isinstance(m, nn.Conv2d) for m in model.modules()) == 13
    assert sum(p.numel() for p in model.parameters() if p.dim() > 1) == 14_715_584
    assert models.VGG(width=4).eval()(torch.randn(2, 3, 32, 32)).shape == (2, 10)


def test_weights_are_drawn_by_he() -> None:
    model = models.VGG(width=16)
    before = copy.deepcopy(model.state_dict())
    one, again, other = (checks.drawn(model, seed) for seed in (0, 0, 1))
    assert all(torch.equal(before[n], t) for n, t in model.state_dict().items())
    for name, weight in weights(one).items():
        assert np.array_equal(weight, weights(again)[name]) and not np.array_equal(weight, weights(other)[name])
        if weight.size > 10_000:
            assert weight.var() * weight[0].size == pytest.approx(2, rel=0.1)


@pytest.mark.parametrize("method", masks.METHODS)
def test_each_method_finds_as_many(method: str) -> None:
    found = bed().found(method, 0.8)
    census = masks.Census.of(found.masks)
    assert census.left == pytest.approx(0.2, abs=1e-3) and census.empty == 0
    assert set(found.masks) == set(weights(bed().model)) and found.seconds > 0


def test_magnitude_keeps_the_largest() -> None:
    at = bed()
    found = at.found("magnitude", 0.9).masks
    size = {n: abs(w) for n, w in weights(at.model).items()}
    kept = min(size[n][m.numpy()].min() for n, m in found.items())
    assert kept >= max(size[n][~m.numpy()].max() for n, m in found.items())


def test_inverted_keeps_what_goes_otherwise() -> None:
    at = bed()
    before = set(ELEMENTS)
    best, worst = at.found("SNIP", 0.9).masks, at.found_inverted("SNIP", 0.9).masks
    assert masks.Census.of(worst).left == pytest.approx(0.1, abs=1e-3)
    assert sum(int((best[n] & worst[n]).sum()) for n in best) <= len(best)  # what a layer keeps at the least
    steps = at.found_inverted("SynFlow", 0.9).masks
    assert masks.Census.of(steps).left == pytest.approx(0.1, abs=1e-3)
    assert set(ELEMENTS) == before


def test_inverted_keeps_out_what_is_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ELEMENTS, "known", lambda scoring: {"a": np.array([3.0, 1, 2]), "b": np.array([4.0])})
    with masks.inverted(masks.Method("known", 7)) as opposite:
        scoring: Any = SimpleNamespace(masks={"a": np.array([True, False, True])})
        scores = ELEMENTS[opposite.criterion](scoring)
    assert opposite.steps == 7
    assert scores["a"].tolist() == [-3, -9, -2] and scores["b"].tolist() == [-4]


def test_a_mask_is_held_in_training_and_after() -> None:
    at, mask = bed(), half()
    module = copy.deepcopy(at.model)
    with masks.held(module, mask):
        module[0].register_forward_hook(lambda part, x, y: seen.append(part.weight.detach().clone()))
        seen: list[torch.Tensor] = []
        at.fit(module, "held")
    assert len(seen) == 2
    assert all(not w[~mask["0.weight"]].any() for w in seen)
    assert not torch.equal(*seen)
    before, after = weights(at.model), weights(module)
    assert set(dict(module.named_parameters())) == set(dict(at.model.named_parameters()))
    for name, kept in mask.items():
        assert not after[name][~kept.numpy()].any()
        assert (after[name] != before[name])[kept.numpy()].mean() > 0.9


def test_a_mask_of_everything_changes_nothing() -> None:
    """The same start, images, order and augmentation for all."""
    at = bed()
    everything = masks.Found({n: torch.ones_like(m) for n, m in half().items()})
    dense, whole = at.trained("dense", 0.0, masks.Found()), at.trained("whole", 0.0, everything)
    for name, weight in weights(dense.module).items():
        np.testing.assert_array_equal(weight, weights(whole.module)[name])


@pytest.mark.parametrize("change", [checks.shuffled, checks.equally_dense])
def test_other_masks_are_as_dense_in_each_layer(change: Any) -> None:
    mask = {n: m & (torch.arange(m.shape[0]).view(-1, *[1] * (m.dim() - 1)) % 3 > 0) for n, m in half().items()}
    one, again, other = (change(mask, seed) for seed in (0, 0, 1))
    for name, before in mask.items():
        assert one[name].shape == before.shape and one[name].sum() == before.sum()
        assert torch.equal(one[name], again[name]) and not torch.equal(one[name], other[name])
        assert one[name][::3].any()  # rows that were all masked


def test_the_census_counts_lost_layers() -> None:
    mask = {"a": torch.zeros(4, 5, dtype=torch.bool), "b": torch.ones(2, 10, dtype=torch.bool)}
    mask["c"] = torch.arange(20).view(4, 5) == 3
    assert masks.Census.of(mask) == masks.Census(left=21 / 60, sparsest=0.0, empty=1, last=1)
    assert masks.Census.of({}) == masks.Census(1.0, 1.0, 0, 0)


PLAN = pai.Plan(small, SETTINGS, ("SynFlow",), (0.5, 0.9), ("SynFlow",))


@pytest.fixture(scope="module")
def grid() -> Any:
    """The network trained dense and with SynFlow's masks."""
    return pai.criteria(bed(), PLAN)


def test_a_row_for_each_criterion_and_check(grid: Any) -> None:
    assert list(grid) == [("dense", 0.0), ("SynFlow", 0.5), ("SynFlow", 0.9)]
    assert [g.row.left for g in grid.values()] == pytest.approx([1, 0.5, 0.1], abs=1e-3)
    rows = list(pai.checks(bed(), PLAN, grid))
    assert [r.name for r in rows] == [
        "SynFlow", *(f"SynFlow, {c}" for c in ("shuffled", "random as dense", "weights anew", "inverted")),
        "magnitude after training",
    ]  # fmt: skip
    assert all(r.left == pytest.approx(0.1, abs=1e-3) and 0 <= r.top1 <= 100 for r in rows)


def test_every_file(grid: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accuracy, "_TURN_S", 0.05)
    monkeypatch.setattr(pai, "TURNS", 1)
    rectified: list[Any] = []

    def compact_of(*given: Any) -> Any:
        made = compacted(*given)
        rectified.extend(p["options"] for p in made.report["passes"] if p["name"] == "rectify")
        return made

    compacted = pai.compact
    monkeypatch.setattr(pai, "compact", compact_of)
    cut = {name: pai.compact(bed(), rule, PLAN) for name, rule in pai.COMPACT.items()}
    dense, sparse, *compact = pai.files(bed(), PLAN, grid, cut)
    assert [made.name for made in compact] == ["Reconvene (ours)", "PreCrop"]
    assert rectified == [{"params": 0.5}, {"params": 0.5, "rule": "precrop"}], "the recipe with another budget and rule"
    assert dense.params == 1 and sparse.params == pytest.approx(0.5, abs=0.05)
    for made in compact:
        assert 0.1 < made.params <= 0.5 and made.size_bytes < dense.size_bytes
    assert sparse.size_bytes < 0.8 * dense.size_bytes


def test_how_long_syn_flow_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pai, "VGG", small)
    assert pai.synflow_seconds().startswith("SynFlow, 100 steps, VGG-16 for 32x32 to 98.0")


def result() -> dict[str, Any]:
    """What a run returns of one network, made up."""
    row = asdict(pai.Row("SNIP", 0.98, left=0.02, sparsest=0.001, empty=0, last=2, seconds=1.5, top1=51.5))
    made = asdict(pai.File("dense", 1.0, size_bytes=4096, gzip_bytes=2048, latency=1.0, seconds=0.0, top1=60.0))
    settings = {"settings": vars(SETTINGS), "parameters": 272_474, "seconds": 3.0, "command": "a command"}
    return settings | {"criteria": [row], "checks": [], "files": [made]}


def test_the_table_has_a_line_for_each() -> None:
    lines = pai.table({"resnet20": result()}).splitlines()
    assert "resnet20, 0.27 M parameters: 1 epochs of 16 images in 2 steps, tested on 16, seed 0" in lines
    assert "SNIP                           0.98   0.0200   0.00100      0     2    1.5 s   51.50 %" in lines
    assert "dense                         1.0000       4,096       2,048    1.000    0.0 s   60.00 %" in lines
    assert not any(line.startswith("checks") for line in lines)
    assert lines[-1] == "3 s: a command"


@pytest.mark.parametrize(("arguments", "name"), [([], "pai.json"), (["--short"], "pai-short.json")])
def test_a_short_run_is_written_elsewhere(
    arguments: list[str], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pai, "find_data", lambda: tmp_path)
    monkeypatch.setattr(pai, "cache", lambda: tmp_path)
    monkeypatch.setattr(pai, "RESULTS", tmp_path / "pai.json")
    plans: list[tuple[str, Any]] = []

    def run(data: Path, model: str, plan: Any) -> dict[str, Any]:
        plans.append((model, plan))
        return result()

    monkeypatch.setattr(pai, "run", run)
    assert pai.main([*arguments, "--epochs", "7", "--models", "vgg16"]) == 0
    assert [p.name for p in tmp_path.iterdir()] == [name]
    ((model, plan),) = plans
    assert model == "vgg16" and plan.settings.adapt_epochs == 7
    assert pai.main([*arguments, "--models", "resnet20"]) == 0
    assert list(json.loads((tmp_path / name).read_text())) == ["vgg16", "resnet20"], "beside those of other runs"


@pytest.mark.parametrize("arguments", [["--epochs", "0"], ["--images", "255"], ["--short", "--images", "127"]])
def test_too_little_to_train_on(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        pai.main(arguments)
    assert "--epochs is 1 or more, and --images" in capsys.readouterr().err


def test_without_data_nothing_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PRUNEC_DATA", str(tmp_path))
    assert pai.main(["--short"]) == 0
    assert f"no CIFAR-10 in {tmp_path}" in capsys.readouterr().err


def test_the_budget_of_the_full_run_is_within_reach() -> None:
    """Of the narrow network: it has no blocks of channels to leave out."""
    plan = pai.FULL["resnet20"]
    made = replace(bed(), model=checks.drawn(plan.make(), 0))
    for rule in pai.COMPACT.values():
        assert 0.08 < pai.compact(made, rule, plan).report["params"]["ratio"] <= 0.1
