"""The end of a training, and what is said of it: what was not reached, what is lost, what is still in training."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import prunec
from prunec.ir.errors import ModelError, UsageError
from prunec.ir.packing.packing import PACKING

from .test_train import IMAGES, epoch, net, sgd


def test_copies_work_on_and_parameters_come_back_in_order() -> None:
    """An EMA or the best epoch is a copy: taking parametrizations off the model must not take them off the copy."""
    model = net()
    names = [n for n, _ in model.named_parameters()]
    with prunec.train(model, "ste{sparsity=0.5}") as sparse:
        sparse.step(epoch(model, sgd(model), 0))
        other = copy.deepcopy(model)
        with pytest.raises(UsageError, match=r"the model is in training by prunec.train: 0.weight"):
            prunec.compile(model, (IMAGES[:2],), "verify")
    torch.testing.assert_close(other.eval()(IMAGES), model.eval()(IMAGES))
    assert [n for n, _ in model.named_parameters()] == names
    assert type(model[0]) is nn.Conv2d
    with pytest.raises(UsageError, match="of a copy that was made inside"):
        prunec.compile(other, (IMAGES[:2],), "verify")
    again = net()
    with prunec.train(again, "ste{sparsity=0.5}") as sparse:
        again.load_state_dict(other.state_dict())
    torch.testing.assert_close(again.eval()(IMAGES), model(IMAGES))


def test_weights_of_the_graph_itself_stay() -> None:
    """A graph's module makes its copy without the class that a parametrization gave it."""

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.w = nn.Linear(64, 128), nn.Parameter(torch.randn(10, 128))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.linear(self.first(x.flatten(1)).relu(), self.w)

    compact = prunec.compile(Own().eval(), (IMAGES[:2],), ratio=0.5, measure=False).module
    assert isinstance(compact, nn.Module)
    with prunec.train(compact, "ste{sparsity=0.5}") as sparse:
        assert [row.name for row in sparse.table().rows] == ["first.weight"]
        assert "ste: 1 parameter of other layers left: w" in sparse.notes
        sparse.step(epoch(compact, sgd(compact), 0))
        other = copy.deepcopy(compact)
    torch.testing.assert_close(other.eval()(IMAGES), compact.eval()(IMAGES))


@pytest.mark.parametrize("recipe", ["ste{n=2,m=4}", "pdp{sparsity=0.5,warm=0,rise=1,settle=1}", "dkm{bits=2,least=1}"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_networks_of_other_dtypes_end_too(recipe: str, dtype: torch.dtype) -> None:
    model = net().to(dtype)
    with prunec.train(model, recipe) as sparse:
        sparse.skip(3)
    assert sparse.finished and set(model.state_dict()) == set(net().state_dict())


def test_what_goes_wrong_at_the_end_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: Any, layers: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("prunec.passes.train.ste.Ste.outcome", fails)
    sparse = prunec.train(model := net(), "ste{sparsity=0.5}")
    sparse.skip()
    with pytest.raises(MemoryError):
        sparse.finish()
    assert sparse.finished and set(model.state_dict()) == set(net().state_dict())


def test_buffers_that_are_infinite_from_the_start() -> None:
    """Masks of attention are; what becomes infinite is not."""
    model = net()
    model.register_buffer("causal", torch.full((4, 4), -torch.inf).triu(1))
    with prunec.train(model, "ste{sparsity=0.5}") as sparse:
        sparse.step(epoch(model, sgd(model), 0))
        model.get_submodule("1").running_var.fill_(torch.inf)  # type: ignore[operator]
        with pytest.raises(ModelError, match=r"1.running_var holds NaN"):
            sparse.step(epoch(model, sgd(model), 0))
        sparse.skip()


def test_a_layer_alone_is_named() -> None:
    layer = nn.Linear(8, 8)
    sparse = prunec.train(layer, "ste{sparsity=0.5}")
    with torch.no_grad():
        dict(layer.named_parameters())["parametrizations.weight.original"].fill_(torch.nan)
    with pytest.raises(ModelError, match=r"epoch 0: weight holds NaN"):
        sparse.step()


@pytest.mark.parametrize(("recipe", "said"), [("pdp{sparsity=0.5,warm=2,rise=10}", True), ("ste{sparsity=0.5}", False)])
def test_an_epoch_that_nobody_ended(recipe: str, said: bool) -> None:
    model = net()
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        with prunec.train(model, recipe) as sparse:
            epoch(model, sgd(model), 0)
    assert any("no epoch has ended" in str(w.message) for w in found) is said
    assert any("no epoch has ended" in note for note in sparse.notes) is said


def test_what_was_known_and_holds_no_more_is_forgotten() -> None:
    model = net()
    for _ in range(3):
        with prunec.train(model, "dkm{bits=4,dim=2}") as sparse:
            sparse.skip()
        with torch.no_grad():
            model.get_submodule("6").weight.mul_(torch.rand(64, 512))  # type: ignore[operator]
    shapes = [form.shape for form in model.meta[PACKING].known]  # type: ignore[union-attr, index]
    assert shapes.count((64, 512)) == 1
    with prunec.train(model, "ste{n=2,m=4}") as sparse:
        sparse.skip()
    assert model.meta[PACKING].patterns  # type: ignore[union-attr, index]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.uniform_(-1, 1)
    with prunec.train(model, "dkm{bits=8}") as sparse:
        sparse.skip()
    assert not model.meta[PACKING].patterns  # type: ignore[union-attr, index]


def test_a_meta_of_the_model_s_own() -> None:
    model = net()
    model.meta = "mine"  # type: ignore[assignment]
    with pytest.warns(UserWarning, match="meta of the model is no dict"), prunec.train(model, "dkm{bits=4}") as sparse:
        sparse.skip()
    assert model.meta == "mine"


def test_what_else_stands_on_a_weight_is_told_apart() -> None:
    model = net()
    nn.utils.parametrizations.weight_norm(model[6])
    with pytest.raises(UsageError, match=r"ste: 6.weight parametrized by something else"):
        prunec.train(model, "ste{sparsity=0.5}")
    prunec.train(model, "ste{sparsity=0.5,targets=[0.*]}")
    with pytest.raises(UsageError, match=r"ste: 0.weight trained already"):
        prunec.train(model, "ste{sparsity=0.5}")


@pytest.mark.parametrize(
    ("recipe", "epochs", "message"),
    [
        ("pdp{sparsity=0.9,warm=1,rise=10}", 3, "pdp: at 20% of what is asked after 3 epochs; the rest goes at once"),
        ("gradual{sparsity=0.9,warm=3,rise=1}", 2, "gradual: at 0% of what is asked after 2 epochs"),
        ("gradual{n=2,m=4,warm=3,rise=1}", 2, "gradual: at 0% of what is asked after 2 epochs"),
    ],
)
def test_an_early_end_is_said_and_comes_to_the_whole(recipe: str, epochs: int, message: str) -> None:
    with pytest.warns(UserWarning, match=message), prunec.train(net(), recipe) as sparse:
        sparse.skip(epochs)
    asked = 0.5 if "n=2" in recipe else 0.9
    assert sparse.sparsity() == pytest.approx(asked, abs=1e-3)
    assert message in str(sparse.table())


@pytest.mark.parametrize("recipe", ["pdp{sparsity=0.9,warm=0,rise=1,settle=1}", "ste{n=2,m=4}"])
def test_what_is_not_what_was_asked_is_said(recipe: str) -> None:
    """Masks of another epoch, as an average over buffers makes them."""
    model = net()
    sparse = prunec.train(model, recipe)
    sparse.skip(3)
    sparse.harden()
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            if name.endswith(".mask"):
                buffer.fill_(True)
    with pytest.warns(UserWarning, match="masks are buffers"):
        sparse.finish()


def test_a_layer_that_goes_altogether_is_said() -> None:
    model = net()
    with torch.no_grad():
        dict(model.named_parameters())["8.weight"].mul_(1e-6)
    sparse = prunec.train(model, "ste{sparsity=0.9}")
    with pytest.warns(UserWarning, match=r"nothing but one element stays of 8.weight"):
        sparse.finish()


def test_a_compact_module_trains_as_any_other() -> None:
    compact = prunec.compile(net().eval(), (IMAGES[:2],), ratio=0.5, measure=False).module
    assert isinstance(compact, nn.Module)
    with prunec.train(compact, "gradual{sparsity=0.5,rise=1}") as sparse:
        assert [row.name for row in sparse.table().rows] == ["0.weight", "3.weight", "6.weight", "8.weight"]
        sparse.step(epoch(compact, sgd(compact), 0))
    assert sparse.sparsity() == pytest.approx(0.5, abs=1e-3)
    result = prunec.compile(compact.eval(), (IMAGES[:2],), "pack,verify", measure=False)
    assert result.report["size_bytes"]["ratio"] < 0.8, "bytes of files, without measuring too"
    assert not [note for note in result.report["notes"] if note.startswith("nothing was pruned")]


def test_rows_of_zeros_may_grow_back() -> None:
    model = net()
    with torch.no_grad():
        dict(model.named_parameters())["6.weight"][:3].zero_()
    for recipe, said in (("ste{sparsity=0.5}", True), ("dkm{bits=2}", False)):
        with prunec.train(copy.deepcopy(model), recipe) as sparse:
            assert any("3 rows of zeros may grow back" in note for note in sparse.notes) is said
            sparse.skip()


def test_zeros_inside_of_vectors_have_no_palette() -> None:
    model = net()
    with torch.no_grad():
        dict(model.named_parameters())["6.weight"][:, ::2].zero_()
    sparse = prunec.train(model, "dkm{bits=2,dim=2}")
    with pytest.warns(UserWarning, match=r"no palette holds 6.weight"):
        sparse.finish()


@pytest.mark.parametrize("start", [-5.0, -4.9])
def test_thresholds_that_no_optimizer_has(start: float) -> None:
    model = net()
    optimizer = sgd(model)
    said = pytest.warns(UserWarning, match="str: no threshold has moved")
    with prunec.train(model, f"str{{start={start}}}") as sparse, said:
        sparse.step(epoch(model, optimizer, 0))
    assert any("no threshold has moved" in note for note in sparse.notes)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with prunec.train(model, f"str{{start={start}}}") as sparse:
            sparse.skip()
            sparse.step(epoch(model, sgd(model), 1))


def test_a_pattern_that_was_lost_since_is_said() -> None:
    model = net()
    with prunec.train(model, "ste{n=2,m=4}") as sparse:
        sparse.skip()
    assert not prunec.compile(model.eval(), (IMAGES[:2],), "pack,verify", measure=False).report["notes"]
    epoch(model, sgd(model), 0)
    result = prunec.compile(model.eval(), (IMAGES[:2],), "pack,verify", measure=False)
    assert any("held 2:4 once, and none does now" in note for note in result.report["notes"])


@pytest.mark.parametrize(
    "state", [None, {"recipe": "ste{sparsity=0.5}"}, {"recipe": "ste{sparsity=0.5}", "epoch": -1, "history": []}]
)
def test_a_damaged_state_changes_nothing(state: Any) -> None:
    with prunec.train(net(), "ste{sparsity=0.5}") as sparse:
        sparse.skip(2)
        with pytest.raises(UsageError, match=r"no state of a training|damaged"):
            sparse.load_state_dict(state)
        assert sparse.epoch == 2
        with pytest.raises(UsageError, match="cannot go by"):
            sparse.skip(-1)


def test_a_bias_that_is_no_number() -> None:
    model = net()
    with prunec.train(model, "ste{sparsity=0.5}") as sparse:
        with torch.no_grad():
            dict(model.named_parameters())["8.bias"][0] = torch.nan
        with pytest.raises(ModelError, match=r"8.bias holds NaN"):
            sparse.step()
        sparse.skip()
