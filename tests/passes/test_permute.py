"""Permute: channels in an order in which a pattern keeps more, the network computing what it did."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import prunec
from prunec.ir.errors import UsageError, VerificationError
from prunec.ir.graph import Graph
from prunec.ir.packing import Pattern
from prunec.passes.reordering import Reordering

from ..models import micro, oracle
from .test_layout import compiled as proved
from .test_mask import X, held, net

SCORED = "score{method=magnitude},"
WORK = "work=0.002"


def compiled(pipeline: str, model: Any = None, inputs: Any = X, **options: Any) -> prunec.Result:
    return prunec.compile(net() if model is None else model, inputs, pipeline, **{"measure": False, **options})


def line(result: prunec.Result) -> str:
    return next(str(note) for note in result.report["notes"] if note.startswith("permute:"))


def values(result: prunec.Result) -> dict[str, Any]:
    found: dict[str, Any] = result.report["values"]["permute"]
    return found


class Residual(nn.Module):
    """Blocks as those of ResNet-18, the second of which is wider."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.first, self.second = Block(16, 16, 1), Block(16, 24, 2)
        self.head = nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.second(self.first(self.stem(x).relu())).mean(dim=(2, 3)))


class Block(nn.Module):
    def __init__(self, i: int, o: int, stride: int) -> None:
        super().__init__()
        self.a, self.one = nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o)
        self.b, self.two = nn.Conv2d(o, o, 3, 1, 1, bias=False), nn.BatchNorm2d(o)
        self.down = nn.Identity() if i == o else nn.Conv2d(i, o, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.two(self.b(self.one(self.a(x)).relu()))
        return torch.relu(y + self.down(x))


class Layer(nn.Module):
    """A transformer's: attention of two heads and an MLP, each on a normalised residual stream."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.between = nn.LayerNorm(16), nn.LayerNorm(16)
        self.query, self.key, self.value = (nn.Linear(16, 16) for _ in range(3))
        self.out, self.up, self.down = nn.Linear(16, 16), nn.Linear(16, 32), nn.Linear(32, 16)
        self.into, self.head = nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Any:
        x = self.into(x)
        y = self.before(x)
        q, k, v = (part(y).unflatten(-1, (2, 8)).transpose(1, 2) for part in (self.query, self.key, self.value))
        mixed = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + self.out(mixed)
        x = x + self.down(nn.functional.gelu(self.up(self.between(x))))
        return self.head(x)


def made(kind: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    torch.manual_seed(0)
    model, inputs = (Residual(), X) if kind == "residual" else (Layer(), (torch.randn(2, 5, 8),))
    for part in model.modules():
        micro._unsettle(part)
    return model.eval(), inputs


def in_order(result: prunec.Result, dense: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The dense weights in the order of ``result.kept``."""
    found = {}
    for name, array in dense.items():
        where = [np.arange(n) if k is None else k for n, k in zip(array.shape, result.kept[name], strict=True)]
        found[name] = array[np.ix_(*where)]
    return found


@pytest.mark.parametrize("kind", ["residual", "transformer"])
@pytest.mark.parametrize("dialect", ["fx", "onnx"])
@pytest.mark.parametrize("pattern", [Pattern(2, 4), Pattern(1, 4, 4)])
def test_what_is_masked_after_it_keeps_what_it_says(kind: str, dialect: str, pattern: Pattern) -> None:
    """Exact, and the weights are those of the source in the order of the kept indices, but for zeros."""
    model, inputs = made(kind)
    of = f"n={pattern.n},m={pattern.m},v={pattern.v}"
    pipeline = f"{SCORED}permute{{{of},{WORK}}},mask{{{of}}},pack,verify"
    source = (model, inputs) if dialect == "fx" else (compiled("verify", model, inputs).onnx, None)
    result = compiled(pipeline, *source)
    assert result.report["verify"]["max_rel_err"] < 1e-5 and result.report["verify"]["onnx_rel_err"] < 1e-5
    assert kind == "transformer" or result.forms["nm"] >= 4
    said = values(result)
    assert said["after"] > said["before"] and f"permute: {pattern} keeps {100 * said['after']:.2f} %" in line(result)
    if dialect == "onnx":
        return
    dense, found = {n: p.detach().numpy() for n, p in model.named_parameters() if p.dim() > 1}, held(result)
    ordered = in_order(result, dense)
    for name, weight in found.items():
        np.testing.assert_array_equal(weight[weight != 0], ordered[name][weight != 0])
    for name, each in said["weights"].items():
        assert pattern.holds(found[name])
        assert (found[name] ** 2).sum() / (dense[name] ** 2).sum() == pytest.approx(each["after"], rel=1e-5)
        before = pattern.best(dense[name] ** 2) * dense[name] ** 2
        assert before.sum() / (dense[name] ** 2).sum() == pytest.approx(each["before"], rel=1e-5)


def test_heads_keep_their_order() -> None:
    model, inputs = made("transformer")
    result = compiled(f"{SCORED}permute{{{WORK}}},mask{{n=2,m=4}},verify", model, inputs)
    assert {n for n in result.kept if result.kept[n][0] is not None and n.endswith("weight")} == {
        "into.weight", "before.weight", "between.weight", "out.weight", "up.weight", "down.weight",
    }  # fmt: skip
    assert "channels in groups or heads: out.weight" in line(result) and "kept channels: into.weight" in line(result)
    assert result.kept["query.weight"][0] is None and result.kept["query.weight"][1] is not None


def test_after_channels_went() -> None:
    """Kept indices name the source's channels, in the new order."""
    smaller = "score{method=l1},plan{ratio=0.4,align=4},eliminate"
    model = net()
    result = compiled(f"{smaller},{SCORED}permute{{{WORK}}},mask{{n=2,m=4}},pack,fold,verify", model)
    assert result.report["params"]["ratio"] < 0.8 and result.report["verify"]["max_rel_err"] < 1e-5
    dense = {n: p.detach().numpy() for n, p in model.named_parameters() if p.dim() > 1}
    ordered, found = in_order(result, dense), held(result)
    assert any((np.diff(k) < 0).any() for axes in result.kept.values() for k in axes if k is not None)
    for name, weight in found.items():
        np.testing.assert_array_equal(weight[weight != 0], ordered[name][weight != 0])


@pytest.mark.parametrize("method", ["l1", "lamp", "synflow"])
def test_by_any_criterion_of_elements(method: str) -> None:
    if method == "l1":
        with pytest.raises(UsageError, match="scores of elements"):
            compiled(f"score{{method={method}}},permute")
        return
    result = compiled(f"score{{method={method}}},permute{{{WORK}}},mask{{n=2,m=4}},verify")
    assert values(result)["after"] > values(result)["before"] and f"({method})" in line(result)


def test_without_a_criterion_by_magnitude() -> None:
    result = compiled(f"permute{{{WORK}}},verify")
    assert "(magnitude)" in line(result) and result.report["verify"]["ok"]
    dense = {n: p.detach().numpy() for n, p in net().named_parameters() if p.dim() > 1}
    for name, weight in in_order(result, dense).items():
        np.testing.assert_array_equal(weight, held(result)[name])


def test_a_criterion_that_scores_places() -> None:
    result = compiled(f"score{{method=random}},permute{{{WORK}}},mask{{n=2,m=4}},verify")
    if "permute" not in result.report["values"]:
        assert line(result) == "permute: nothing changed, for random scores places and not channels"
        assert all(k is None for axes in result.kept.values() for k in axes)


def test_some_weights_alone() -> None:
    result = compiled(f"permute{{targets=[back*],{WORK}}},verify")
    assert list(values(result)["weights"]) == ["back.weight"]
    changed = {n for n, axes in result.kept.items() if any(k is not None for k in axes)}
    assert changed == {"wide.weight", "wide.bias", "each.weight", "each.bias", "back.weight"}


def test_the_same_each_time() -> None:
    first, again = (compiled(f"permute{{{WORK}}}", seed=3).kept for _ in range(2))
    other = compiled(f"permute{{{WORK}}}", seed=4).kept
    for name, axes in first.items():
        for a, b in zip(axes, again[name], strict=True):
            np.testing.assert_array_equal(a, b)
    assert any(not np.array_equal(a, b) for n in first for a, b in zip(first[n], other[n], strict=True))


class Grouped(nn.Module):
    """A convolution in groups, whose channels stay in theirs."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 16, 3, padding=1, groups=2)
        self.c = nn.Conv2d(16, 8, 1)

    def forward(self, x: Tensor) -> Any:
        return self.c(self.b(self.a(x)).relu())


def test_groups_keep_their_channels() -> None:
    torch.manual_seed(0)
    result = compiled(f"{SCORED}permute{{{WORK}}},mask{{n=2,m=4}},verify", Grouped().eval())
    assert line(result).startswith(
        "permute: nothing changed in 2 weights that 2:4 divides (channels in groups or heads"
    )
    assert "permute" not in result.report["values"] and result.report["verify"]["ok"]


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (nn.Conv2d(3, 8, 1), "nothing changed, for 2:4 divides none of 1 weight"),
        (nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 8, 1)), "(no order was found that keeps more: 1.weight)"),
        (nn.Linear(12, 4), "(kept channels: weight)"),
    ],
)
def test_why_nothing_changed(model: nn.Module, why: str) -> None:
    result = compiled("permute,verify", model.eval())
    assert why in line(result) and all(k is None for axes in result.kept.values() for k in axes)
    assert not result.report["values"]


class Loop(nn.Module):
    """A weight that reads the stream that it adds to."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.mix, self.head = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 16, 1), nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> Any:
        y = self.stem(x)
        return self.head(y + self.mix(y).relu())


def test_rows_and_neighbours_of_one_weight() -> None:
    torch.manual_seed(0)
    model = Loop().eval()
    assert values(compiled(f"permute{{{WORK}}},verify", model))["after"]
    left = line(compiled(f"permute{{n=1,v=4,{WORK}}},verify", model))
    assert "nothing changed" in left and "rows and neighbours of one weight" in left


class Dense(nn.Module):
    """Readers of what grows by concatenation, in parts that fill no blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 10, 3, padding=1), nn.Conv2d(16, 8, 1)
        self.d = nn.Conv2d(24, 8, 1)

    def forward(self, x: Tensor) -> Any:
        x = self.a(x).relu()
        x = torch.cat([x, self.b(x).relu()], 1)
        return self.d(torch.cat([self.c(x), x], 1))


@pytest.mark.parametrize("of", ["n=2,m=4", "n=1,m=4", "n=1,m=2,v=2"])
def test_parts_of_concatenations_keep_their_places(of: str) -> None:
    torch.manual_seed(0)
    result = compiled(f"{SCORED}permute{{{of},{WORK}}},mask{{{of}}},pack,verify", Dense().eval())
    assert values(result)["after"] > values(result)["before"] and result.report["verify"]["max_rel_err"] < 1e-5
    order = result.kept["d.weight"][1]
    assert order is not None
    np.testing.assert_array_equal(np.sort(order[:8]), np.arange(8))
    np.testing.assert_array_equal(np.sort(order[8:14]), np.arange(8, 14))


FAMILIES = enumerate(sorted(micro.CASES))


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if k % 4 else n for k, n in FAMILIES])
def test_every_family_is_exact(name: str) -> None:
    """Whatever stands between the channels of a micro network: in another order it computes the same."""
    state = proved(oracle.subject(*micro.build(name)), f"permute{{n=1,m=2,{WORK}}},verify")
    assert state.facts["verified"]["ok"]
    assert any(note.startswith("permute:") for note in state.notes)


def test_after_layers_chose_their_own_channels() -> None:
    model, inputs = made("residual")
    pipeline = "score{method=l1},groups{mode=unconstrained},plan{ratio=0.3,align=4},layout{copies=naive},eliminate"
    result = compiled(f"{pipeline},reorder,{SCORED}permute{{{WORK}}},mask{{n=2,m=4}},verify", model, inputs)
    assert result.report["verify"]["max_rel_err"] < 1e-5 and line(result)


@pytest.mark.parametrize(
    ("pipeline", "message", "hint"),
    [
        ("permute{n=4}", "no pattern", "0 < n < m"),
        ("permute{work=0}", "cannot be 0", "positive"),
        (f"{SCORED}plan{{ratio=0.5}},permute,eliminate", "'eliminate' cannot follow", "put eliminate before permute"),
        (f"{SCORED}permute,groups", "'groups' cannot follow", ""),
        (f"{SCORED}mask{{n=2,m=4}},permute", "'permute' cannot follow", "put permute before mask"),
        ("palette{bits=4,least=1},permute", "'permute' cannot follow", "put permute before palette"),
        ("permute{targets=[nothing]}", "matches no weight", "weights: stem.weight"),
    ],
)
def test_what_cannot_be(pipeline: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        compiled(pipeline)
    assert message in caught.value.message and hint in (caught.value.hint or "")


def test_the_proof_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """One axis that is forgotten, as if a reader did not follow."""
    right = Reordering.applied

    def wrong(self: Reordering, graph: Graph) -> Graph:
        constants = {k: v for k, v in self.constants.items() if "back" not in k}
        return right(Reordering(constants, self.parameters, self.picks), graph)

    monkeypatch.setattr(Reordering, "applied", wrong)
    with pytest.raises(VerificationError):
        compiled(f"permute{{{WORK}}},verify")


def test_a_file_whose_channels_moved_is_the_masked_dense_one(tmp_path: Any) -> None:
    dense = compiled("verify")
    small = compiled(f"{SCORED}plan{{ratio=0.4,align=4}},eliminate,permute{{{WORK}}},verify", dense.onnx, None)
    for name, result in (("dense", dense), ("small", small)):
        (tmp_path / f"{name}.onnx").write_bytes(result.onnx.SerializeToString())
    assert "permute" in small.report["values"]
    assert prunec.verify(tmp_path / "dense.onnx", tmp_path / "small.onnx")["ok"]
