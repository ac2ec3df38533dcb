"""Training methods: gradients go through masks, what is asked is reached, and any loop, checkpoint or compile fits."""

from __future__ import annotations

import copy
import io
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

import prunec
from prunec.ir.errors import ModelError, UsageError
from prunec.ir.packing import Pattern
from prunec.passes.train import clusters
from prunec.passes.train.clusters import Clusters
from prunec.passes.train.parametrizations import Mask, SoftMask, SoftThreshold, StraightMask
from prunec.passes.train.training import Training
from prunec.recipe import Recipe

IMAGES, LABELS = (torch.tensor(x) for x in load_digits(return_X_y=True))
IMAGES = IMAGES.float().view(-1, 1, 8, 8) / 8 - 1


ALL = [
    "pdp{sparsity=0.8,warm=0,rise=10}",
    "gradual{sparsity=0.8,rise=10}",
    "gradual{n=2,m=4,rise=10}",
    "ste{sparsity=0.8}",
    "str{start=-6.0,decay=0.05}",
    "dkm{bits=3}",
    "dkm{bits=8,scale=true}",
]
"""Every method."""


def net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(), nn.Flatten(), nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip


def epoch(model: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> float:
    """One epoch over the digits; the loss of its last batch."""
    model.train()
    order = torch.randperm(len(IMAGES), generator=torch.Generator().manual_seed(seed))
    loss = torch.zeros(())
    for part in torch.split(order, 128):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(IMAGES[part]), LABELS[part])
        torch.autograd.backward(loss)
        optimizer.step()
    return float(loss.detach())


def accuracy(model: nn.Module) -> float:
    model.eval()
    with torch.no_grad():
        return float((model(IMAGES).argmax(1) == LABELS).float().mean())


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)


def weights(model: nn.Module) -> dict[str, np.ndarray]:
    layers = ((n, m) for n, m in model.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear)))
    return {n: m.weight.detach().numpy() for n, m in layers}


@pytest.mark.parametrize(
    "recipe",
    [
        "pdp{sparsity=0.9,warm=2,rise=6}",
        "gradual{sparsity=0.9,warm=2,rise=6}",
        "ste{sparsity=0.9,warm=2}",
    ],
)
def test_the_sparsity_is_met_and_kept(recipe: str) -> None:
    """To 0.1 %, without a step when soft masks become hard, in parameters that are the same as before."""
    model = net()
    before, optimizer = dict(model.named_parameters()), sgd(model)
    with prunec.train(model, recipe) as sparse:
        for k in range(12):
            sparse.step(epoch(model, optimizer, k))
        soft = accuracy(model)
        assert sparse.sparsity() == pytest.approx(0.9, abs=1e-3)
    found = weights(model)
    assert sum((w == 0).sum() for w in found.values()) / sum(w.size for w in found.values()) == pytest.approx(
        0.9, abs=1e-3
    )
    assert accuracy(model) == pytest.approx(soft, abs=0.003)
    assert accuracy(model) > 0.95
    assert {n: id(p) for n, p in model.named_parameters()} == {n: id(p) for n, p in before.items()}
    assert [h["epoch"] for h in sparse.history] == list(range(1, 13))
    result = prunec.compile(model.eval(), (IMAGES[:2],), "pack,verify", measure=False)
    assert result.forms["bitmask"] >= 2


@pytest.mark.parametrize("recipe", ["pdp{n=2,m=4,warm=1,rise=3}", "pdp{n=1,m=4,v=4,warm=1,rise=3}", "gradual{n=2,m=4}",
                                    "ste{n=2,m=4,decay=0.0002}"])  # fmt: skip
def test_a_pattern_holds_in_every_group(recipe: str) -> None:
    model = net()
    optimizer = sgd(model)
    with prunec.train(model, recipe) as sparse:
        assert len(sparse.notes) == 1 and "left: 0.weight ([16, 1, 3, 3], m=4 does not divide 1 " in sparse.notes[0]
        for k in range(6):
            sparse.step(epoch(model, optimizer, k))
        soft = accuracy(model)
    pattern = Pattern(1, 4, 4) if "v=4" in recipe else Pattern(2, 4)
    found = weights(model)
    fits = [w for w in found.values() if pattern.fits(w.shape)]
    assert len(fits) >= 2 and all(pattern.holds(w) for w in fits)
    assert all((w != 0).mean() == pattern.n / pattern.m for w in fits)
    assert accuracy(model) == pytest.approx(soft, abs=0.003)
    result = prunec.compile(
        model.eval(), (IMAGES[:2],), f"pack{{n={pattern.n},m=4,v={pattern.v}}},verify", measure=False
    )
    assert result.forms["nm"] >= 2


def test_the_gradient_of_a_soft_mask() -> None:
    """d(m·w)/dw = m + 2 (w²/τ) m (1 - m), which masks that look at ``.data`` do not have."""
    weight = torch.randn(8, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    mask = SoftMask(weight, None, tau=0.5)
    mask.gone.fill_(24)
    mask.reached.fill_(1)
    (grad,) = torch.autograd.grad(mask(weight).sum(), weight)
    soft, width = mask.soft(weight).detach(), 0.5 * weight.detach().square().mean()
    inner = 2 * weight.detach().square() / width * soft * (1 - soft)
    torch.testing.assert_close(grad, soft + inner)
    near = (soft - 0.5).abs() < 0.3
    assert near.sum() > 3 and (inner[near] > 0).all() and inner[near].mean() > 0.1
    assert int((soft < 0.5).sum()) == 24


@pytest.mark.parametrize("pattern", [Pattern(2, 4), Pattern(1, 4, 4)])
def test_soft_masks_of_patterns_agree_with_hard_ones(pattern: Pattern) -> None:
    weight = torch.randn(8, 8, 3, 3, generator=torch.Generator().manual_seed(0))
    mask = SoftMask(weight, pattern, tau=1e-3)
    mask.reached.fill_(1)
    assert torch.equal(mask.soft(weight) >= 0.5, mask.largest(weight))
    np.testing.assert_array_equal(mask.largest(weight).numpy(), pattern.best(np.square(weight.numpy())))


def test_straight_through_and_its_decay() -> None:
    weight = torch.tensor([[3.0, -1.0, 0.5, 2.0]], requires_grad=True)
    mask = StraightMask(weight, Pattern(2, 4), decay=0.1)
    mask.reached.fill_(1)
    out = mask(weight)
    torch.testing.assert_close(out, torch.tensor([[3.0, 0, 0, 2.0]]))
    (grad,) = torch.autograd.grad((out * torch.tensor([[1.0, 2, 3, 4]])).sum(), weight)
    torch.testing.assert_close(grad, torch.tensor([[1.0, 2 - 0.1, 3 + 0.05, 4]]))


def test_thresholds_are_learned_and_decay() -> None:
    """STR: d out / ds = -sign(w) sigmoid'(s) where |w| is above, and the decay beside it."""
    weight = torch.tensor([0.9, -0.7, 0.3, -0.1], dtype=torch.float64)
    held = SoftThreshold(weight, -0.5, decay=0.1)
    level = torch.sigmoid(torch.tensor(-0.5, dtype=torch.float64))
    out = held(weight.requires_grad_())
    torch.testing.assert_close(out, torch.stack([0.9 - level, level - 0.7, level * 0, level * 0]))
    torch.autograd.backward((out * torch.tensor([1.0, 2, 4, 8])).sum())
    assert held.level.grad is not None
    torch.testing.assert_close(held.level.grad, -(1 - 2) * level * (1 - level) + 0.1 * -0.5)
    torch.testing.assert_close(weight.grad, torch.tensor([1.0, 2, 0, 0], dtype=torch.float64))


def test_learned_thresholds_make_a_network_sparse() -> None:
    model = net()
    with prunec.train(model, "str{start=-6.0,decay=0.05}") as sparse:
        optimizer = sgd(model)
        for k in range(6):
            sparse.step(epoch(model, optimizer, k))
            if k == 3:
                sparse.harden()
                zeros = {n: w == 0 for n, w in weights(copy.deepcopy(model)).items()}
        share = sparse.sparsity()
    assert share > 0.2
    assert all((weight[zeros[name]] == 0).all() for name, weight in weights(model).items())
    assert accuracy(model) > 0.9
    assert set(model.state_dict()) == set(net().state_dict())


@pytest.mark.parametrize("recipe", ["gradual{sparsity=0.8,rise=2}", "gradual{n=2,m=4,rise=2}"])
def test_gradual_masks_stay_once_they_are_whole(recipe: str) -> None:
    model = net()
    optimizer = sgd(model)
    with prunec.train(model, recipe) as sparse:
        masks = []
        for k in range(5):
            masks.append([x.mask.clone() for x in model.modules() if isinstance(x, Mask)])
            sparse.step(epoch(model, optimizer, k))
        masks.append([x.mask.clone() for x in model.modules() if isinstance(x, Mask)])
    same = [all(torch.equal(a, b) for a, b in zip(one, two, strict=True)) for one, two in pairwise(masks)]
    assert same == [False, True, True, True, True]


def test_the_schedule_of_the_paper() -> None:
    """r(e) = min(1, ε (e + 1)) of what the global level gives each layer; gradual: cubic."""
    model = net()
    sparse = prunec.train(model, "pdp{sparsity=0.8,warm=1,rise=4}")
    held = [x for x in model.modules() if isinstance(x, Mask)]
    reached = []
    for _ in range(6):
        reached.append(float(held[0].reached))
        sparse.skip()
    assert reached == [0, 0.25, 0.5, 0.75, 1, 1]
    total = sum(h.mask.numel() for h in held)
    assert sum(int(h.gone) for h in held) == pytest.approx(0.8 * total, abs=1)
    gradual = prunec.train(net(), "gradual{sparsity=0.8,rise=4}")
    shares = []
    for _ in range(4):
        shares.append(gradual.sparsity() / 0.8)
        gradual.skip()
    assert shares == pytest.approx([1 - (1 - k / 4) ** 3 for k in (1, 2, 3, 4)], abs=1e-3)


@pytest.mark.parametrize("recipe", ["dkm{bits=2}", "dkm{bits=1}", "dkm{bits=2,dim=2}"])
def test_clusters(recipe: str) -> None:
    model = net()
    optimizer = sgd(model)
    with prunec.train(model, recipe) as sparse:
        for k in range(6):
            sparse.step(epoch(model, optimizer, k))
    bits, dim = int(recipe[9]), 2 if "dim" in recipe else 1
    for name, weight in weights(model).items():
        values = np.unique(weight.reshape(-1, dim), axis=0)
        assert (len(values) <= 1 << bits) == (weight.size >= 2048), name
    assert accuracy(model) > 0.9
    if dim == 1:
        result = prunec.compile(model.eval(), (IMAGES[:2],), "pack,verify", measure=False)
        assert result.forms["palette"] == 2


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_soft_clusters_stay_apart(bits: int) -> None:
    """Step after step, no two centres become one: the nearest of them are as good as those of k-means."""
    layer = nn.Linear(64, 64)
    torch.nn.init.normal_(layer.weight, generator=torch.Generator().manual_seed(0))
    sparse = prunec.train(layer, f"dkm{{bits={bits}}}")
    found, vectors = sparse.layers[0][1][0], layer.weight.detach().reshape(1, -1, 1)
    held, original = found.held, found.original.detach().reshape(1, -1, 1)
    before = float((held.nearest(original) - original).square().mean())
    with torch.no_grad():
        for _ in range(60):
            vectors = layer.weight.reshape(1, -1, 1)
    after = float((held.nearest(original) - original).square().mean())
    assert len(held.centres.unique()) == 1 << bits
    assert after < 1.05 * before
    assert float((held.nearest(original) - vectors).square().mean()) < 0.3 * before, "soft is near hard"


@pytest.mark.parametrize("training", [True, False])
def test_clusters_of_values_are_those_of_elements(training: bool) -> None:
    """A large weight goes by its 16-bit values: the same outputs and gradients, each element its own."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(300, 300, generator=generator) * 0.1
    weight[:5] = weight[5:10]
    weight[10:20] = 0
    slope = torch.randn(300, 300, generator=generator)
    found = []
    for large in (1 << 16, 1 << 30):
        held = Clusters(weight, torch.linspace(-0.2, 0.2, 8)[None, :, None], tau=0.02, rounds=3).train(training)
        leaf = weight.clone().requires_grad_()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(clusters, "_VALUES", large)
            out = held.clustered(leaf)
        (gradient,) = torch.autograd.grad((out * slope).sum(), leaf)
        found.append((out.detach(), gradient, held.centres.clone()))
    (a, b, c), (d, e, f) = found
    torch.testing.assert_close(a, d, atol=1e-4, rtol=0)
    torch.testing.assert_close(c, f, atol=1e-5, rtol=0)
    torch.testing.assert_close(b, e, atol=0.02 * float(e.abs().max()), rtol=0)
    assert (b[:5] - b[5:10]).abs().max() > 0.1 * b.abs().max(), "equal values are not one"
    assert not a[10:20].any() and not b[10:20].any()


def test_pruned_then_clustered() -> None:
    """What was pruned stays zero, what is left is a few values: a bit mask and a palette on disk."""
    model = net()
    optimizer = sgd(model)
    with prunec.train(model, "gradual{sparsity=0.8,rise=1}") as sparse:
        for k in range(2):
            sparse.step(epoch(model, optimizer, k))
    zeros = {n: w == 0 for n, w in weights(copy.deepcopy(model)).items()}
    optimizer = sgd(model)
    with prunec.train(model, "dkm{bits=2,least=1}") as sparse:
        for k in range(6):
            sparse.step(epoch(model, optimizer, k))
    for name, weight in weights(model).items():
        assert (weight[zeros[name]] == 0).all(), name
        assert len(np.unique(weight)) <= 5, name
    assert accuracy(model) > 0.85
    result = prunec.compile(model.eval(), (IMAGES[:2],), "pack,verify", measure=False)
    assert result.report["packed"]["torch"]["size_bytes"]["ratio"] < 0.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("recipe", ["dkm{bits=4,dim=2}", "dkm{bits=4,dim=2,scale=true}", "dkm{bits=2,group=16}"])
def test_what_training_knows_is_packed_in_each_dtype(recipe: str, dtype: torch.dtype, tmp_path: Path) -> None:
    layer = nn.Linear(256, 256).to(dtype)
    with prunec.train(layer, recipe) as sparse:
        sparse.skip()
    assert prunec.pack(layer, tmp_path / "w.safetensors")["forms"]["palette"] == 1
    assert torch.equal(prunec.unpack(tmp_path / "w.safetensors")["weight"], layer.weight)


@pytest.mark.parametrize("recipe", ["dkm{bits=3,scale=true}", "dkm{bits=2,group=16}", "dkm{bits=4,dim=2,scale=true}"])
@pytest.mark.parametrize("pruned", [False, True])
def test_what_training_knows_is_packed(recipe: str, pruned: bool) -> None:
    """Rows of their own scales, groups and vectors are not found in the numbers; the model says what they are."""
    model = net()
    if pruned:
        with torch.no_grad():
            dict(model.named_parameters())["6.weight"][:, ::4] = 0
    optimizer = sgd(model)
    with prunec.train(model, recipe) as sparse:
        for k in range(2):
            sparse.step(epoch(model, optimizer, k))
    assert not pruned or (weights(model)["6"][:, ::4] == 0).all()
    result = prunec.compile(model.eval(), (IMAGES[:2],), "pack,verify", measure=False)
    partly = pruned and "dim=2" in recipe  # zeros that are a part of a vector
    assert result.forms.get("palette", 0) + result.forms.get("bitmask", 0) >= (1 if partly else 2), result.forms
    assert result.report["packed"]["torch"]["size_bytes"]["ratio"] < (0.8 if partly else 0.25)


def test_a_pattern_that_was_trained_is_known() -> None:
    model = net()
    optimizer = sgd(model)
    with prunec.train(model, "ste{n=2,m=4}") as sparse:
        sparse.step(epoch(model, optimizer, 0))
    assert prunec.compile(model.eval(), (IMAGES[:2],), "pack,verify", measure=False).forms["nm"] >= 2


def test_groups_of_rows_have_their_own_centres() -> None:
    model = net()
    optimizer = sgd(model)
    with prunec.train(model, "dkm{bits=1,group=16}") as sparse:
        assert any(
            "left: 0.weight ([16, 1, 3, 3], fewer than 2048 elements), 8.weight" in note for note in sparse.notes
        )
        for k in range(2):
            sparse.step(epoch(model, optimizer, k))
    for name in ("3", "6"):
        rows = weights(model)[name]
        assert all(len(np.unique(part)) == 2 for part in np.split(rows, len(rows) // 16))
        assert len(np.unique(rows)) == 2 * len(rows) // 16
    result = prunec.compile(model.eval(), (IMAGES[:2],), "palette{bits=1,group=16},verify", measure=False)
    assert max(result.report["values"]["palette"]["relative_error"].values()) < 1e-6, "they are found again"


def test_gradients_go_through_the_clusters() -> None:
    weight = torch.randn(40, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    held = Clusters(weight, torch.tensor([[[-1.0], [0.1], [1.0]]], dtype=torch.float64), tau=0.5, rounds=3).eval()
    width = held.width(weight)
    held.width = lambda weight: width  # type: ignore[method-assign]  # it is taken as constant
    assert torch.autograd.gradcheck(held.clustered, (weight,))


@pytest.mark.parametrize("recipe", ALL)
def test_a_layer_that_runs_twice_before_its_gradients(recipe: str) -> None:
    """As in networks that share layers, and losses that are added up; its gradients are those of both."""
    torch.manual_seed(0)
    layer = nn.Linear(64, 64)
    prunec.train(layer, recipe)
    x = torch.randn(4, 64)
    layer(x).square().sum()  # centres move from their start
    original = dict(layer.named_parameters())["parametrizations.weight.original"]
    before = copy.deepcopy(layer.state_dict())
    both = layer(x).square().sum() + layer(-2 * x).square().sum()
    (together,) = torch.autograd.grad(both, original)
    apart = torch.zeros_like(together)
    layer.load_state_dict(before)
    for part in (x, -2 * x):
        apart += torch.autograd.grad(layer(part).square().sum(), original)[0]
    torch.testing.assert_close(together, apart, rtol=1e-3, atol=1e-4 * float(apart.abs().max()))


def test_a_step_between_clusters_has_no_endless_gradient() -> None:
    """Halfway between two centres the slope of a narrow softmax is huge; what a weight gets stays in bounds."""
    weight = torch.tensor([[-1.0, -1.001, 1.0, 0.9, 1e-6, 1.001]]).requires_grad_()
    held = Clusters(weight, torch.tensor([[[-1.0], [1.0]]]), tau=1e-6, rounds=1).eval()
    (steep,), (limited,) = (torch.autograd.grad(made(weight).sum(), weight) for made in (held.clustered, held))
    assert steep.abs().max() > 1e4
    assert limited.abs().max() == 4.0


@pytest.mark.parametrize("recipe", ["pdp{sparsity=0.8,warm=1,rise=3}", "gradual{sparsity=0.8,rise=3}", "dkm{bits=2}"])
def test_resumed_from_a_checkpoint(recipe: str) -> None:
    """The same weights as without a break: masks and centres are in the model's own state."""

    def begun() -> tuple[nn.Module, Any, torch.optim.Optimizer]:
        model = net()
        sparse = prunec.train(model, recipe)
        return model, sparse, sgd(model)

    model, sparse, optimizer = begun()
    for k in range(3):
        sparse.step(epoch(model, optimizer, k))
    saved = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "sparse": sparse.state_dict()}, saved)
    for k in range(3, 6):
        sparse.step(epoch(model, optimizer, k))
    sparse.finish()

    again, resumed, other = begun()
    saved.seek(0)
    checkpoint = torch.load(saved, weights_only=True)
    again.load_state_dict(checkpoint["model"])
    other.load_state_dict(checkpoint["optimizer"])
    resumed.load_state_dict(checkpoint["sparse"])
    for k in range(3, 6):
        resumed.step(epoch(again, other, k))
    resumed.finish()
    for (name, one), two in zip(weights(model).items(), weights(again).values(), strict=True):
        np.testing.assert_array_equal(one, two, err_msg=name)
    assert [h["epoch"] for h in resumed.history] == [1, 2, 3, 4, 5, 6]


def test_a_checkpoint_of_another_recipe() -> None:
    state = prunec.train(net(), "pdp{sparsity=0.9}").state_dict()
    sparse = prunec.train(net(), "pdp{sparsity=0.8}")
    with pytest.raises(UsageError, match=r"sparsity=0.9.*sparsity=0.8"):
        sparse.load_state_dict(state)
    assert sparse.epoch == 0


def test_an_error_leaves_the_training_as_it_is() -> None:
    model = net()
    with pytest.raises(KeyboardInterrupt), prunec.train(model, "pdp{sparsity=0.9,warm=0,rise=1}") as sparse:
        raise KeyboardInterrupt
    assert any("original" in name for name in model.state_dict()), "a checkpoint can still be written"
    sparse.finish()
    sparse.finish()
    assert set(model.state_dict()) == set(net().state_dict())


@pytest.mark.parametrize("recipe", ALL)
def test_masks_that_are_settled_before_the_end(recipe: str) -> None:
    """Fine-tuning with the final masks: zeros stay zeros."""
    model = net()
    with prunec.train(model, recipe) as sparse:
        optimizer = sgd(model)
        for k in range(3):
            sparse.step(epoch(model, optimizer, k))
        sparse.harden()
        zeros = {n: w == 0 for n, w in weights(copy.deepcopy(model)).items()}
        for k in range(3, 5):
            sparse.step(epoch(model, optimizer, k))
    for name, weight in weights(model).items():
        assert (weight[zeros[name]] == 0).all()


@pytest.mark.parametrize("recipe", [recipe for recipe in ALL if recipe.startswith("dkm")])
def test_autocast_does_not_reach_distances(recipe: str) -> None:
    """They are differences of squares, of which bfloat16 leaves nothing."""
    model = net()
    prunec.train(model, recipe)
    layer = model.eval().get_submodule("6")  # in training each forward moves the centres
    with torch.no_grad():
        plain = layer.weight.clone()  # type: ignore[operator]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            cast = layer.weight.clone()  # type: ignore[operator]
    torch.testing.assert_close(cast, plain)


@pytest.mark.parametrize("recipe", [*ALL, "pdp{channels=0.5,warm=0,rise=1}"])
def test_a_weight_of_zeros_trains(recipe: str) -> None:
    model = net()
    with torch.no_grad():
        dict(model.named_parameters())["6.weight"].zero_()
    with prunec.train(model, recipe, (IMAGES[:2],)) as sparse:
        sparse.step(epoch(model, sgd(model), 0))
    assert all(np.isfinite(weight).all() for weight in weights(model).values())


@pytest.mark.parametrize(
    "recipe", ["pdp{sparsity=0.8}", "pdp{n=2,m=4}", "gradual{n=2,m=4}", "ste{sparsity=0.8}", "str"]
)
def test_what_is_put_on_weights_is_where_they_are(recipe: str) -> None:
    (step,) = Recipe.parse(recipe)
    assert isinstance(step, Training)
    put = step.on(nn.Parameter(torch.empty(64, 64, device="meta")))
    assert {x.device.type for x in (*put.parameters(), *put.buffers())} == {"meta"}


def test_tied_weights_stay() -> None:
    """Their two places would see different weights."""
    model = nn.Sequential(nn.Embedding(20, 16), nn.Linear(16, 16), nn.Linear(16, 20, bias=False))
    dict(model.named_modules())["2"].weight = dict(model.named_modules())["0"].weight
    with prunec.train(model, "ste{sparsity=0.5}") as sparse:
        assert [layer.name for _, layers in sparse.layers for layer in layers] == ["1.weight"]
        assert "ste: 1 weight left: 2.weight (others share it)" in sparse.notes
        sparse.skip()
    assert model.get_submodule("0").weight is model.get_submodule("2").weight


def test_a_method_that_fails_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: Any, layers: Any, epoch: int) -> None:
        raise MemoryError

    monkeypatch.setattr("prunec.passes.train.ste.Ste.begin_epoch", fails)
    model = net()
    with pytest.raises(MemoryError):
        prunec.train(model, "ste{sparsity=0.5}")
    assert set(model.state_dict()) == set(net().state_dict())


def test_autocast_and_accumulation() -> None:
    model = net()
    optimizer = sgd(model)
    with prunec.train(model, "pdp{sparsity=0.8,warm=0,rise=1}") as sparse:
        for part in torch.split(torch.arange(len(IMAGES)), 256):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = F.cross_entropy(model(IMAGES[part]), LABELS[part])
            torch.autograd.backward(loss / 2)
            if int(part[0]) % 512:
                optimizer.step()
                optimizer.zero_grad()
        sparse.step(loss)
    assert sum((w == 0).sum() for w in weights(model).values()) > 0


def test_a_loss_that_is_no_number() -> None:
    model = net()
    sparse = prunec.train(model, "pdp{sparsity=0.9}")
    with pytest.raises(ModelError, match="the loss is nan"):
        sparse.step(float("nan"))
    with torch.no_grad():
        dict(model.named_parameters())["3.parametrizations.weight.original"][0] = torch.inf
    with pytest.raises(ModelError, match=r"3.weight holds NaN or infinite"):
        sparse.step()
    assert sparse.epoch == 0 and not sparse.history


@pytest.mark.parametrize(
    ("make", "recipe", "message"),
    [
        (net, "pdp", "give a sparsity, or n and m"),
        (net, "pdp{sparsity=1.0}", "cannot be 1.0"),
        (net, "pdp{sparsity=0.5,n=2,m=4}", "both a sparsity and a pattern"),
        (net, "pdp{n=4,m=2}", "no pattern"),
        (net, "pdp{sparsity=0.5,rise=0}", "rise=0"),
        (net, "gradual{sparsity=0.5,rise=0}", "rise=0"),
        (net, "ste{sparsity=0.5,decay=-1.0}", "decay=-1.0"),
        (net, "dkm{bits=9}", "bits=9"),
        (net, "dkm{group=7}", "none of its layers fits"),
        (net, "str{start=1.0}", "start=1.0"),
        (net, "dkm{least=100000000}", "none of its layers"),
        (net, "ste{n=1,m=7}", "none of its layers fits"),
        (net, "pdp{sparsity=0.5,targets=[nothing]}", "matches no weight"),
        (net, "score,pdp{sparsity=0.5}", "score is a pass of a compile"),
        (lambda: nn.Sequential(nn.BatchNorm2d(3)), "pdp{sparsity=0.5}", "no linear or convolution layer"),
        (lambda: net().requires_grad_(False), "pdp{sparsity=0.5}", r"none of its layers fits: 0.weight \(frozen\)"),
        (lambda: nn.Linear(6, 8), "ste{n=2,m=4}", r"weight \(\[8, 6\], m=4 does not divide 6 inputs\)"),
        (lambda: nn.Linear(8, 6), "ste{n=2,m=4,v=4}", r"weight \(\[6, 8\], v=4 does not divide 6 rows\)"),
        (lambda: "model.onnx", "pdp{sparsity=0.5}", "trains an nn.Module"),
    ],
)
def test_what_cannot_be(make: Any, recipe: str, message: str) -> None:
    model = make()
    with pytest.raises(UsageError, match=message):
        prunec.train(model, recipe)
    if isinstance(model, nn.Module):
        assert not any("original" in name for name in model.state_dict()), "nothing is left behind"


def test_one_method_for_each_weight() -> None:
    both = prunec.train(net(), "pdp{sparsity=0.5,ignore=[6.*]},dkm{bits=4,targets=[6.*]}")
    assert [[layer.name for layer in layers] for _, layers in both.layers] == [
        ["0.weight", "3.weight", "8.weight"],
        ["6.weight"],
    ]
    with pytest.raises(UsageError, match=r"dkm: 0.weight, 3.weight, 6.weight and 1 more trained already"):
        prunec.train(model := net(), "pdp{sparsity=0.5},dkm{bits=4,least=1}")
    assert set(model.state_dict()) == set(net().state_dict()), "nothing is left behind"


def test_a_compile_does_not_train() -> None:
    with pytest.raises(UsageError, match="pdp trains a network"):
        prunec.compile(net().eval(), (IMAGES[:2],), "pdp{sparsity=0.9}", measure=False)
