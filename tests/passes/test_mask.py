"""Masks of single elements: as sparse as asked, in their pattern, and what is compiled equals the masked network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import prunec
from prunec.ir.errors import ModelError, UsageError, VerificationError
from prunec.ir.frontends.onnx import from_onnx
from prunec.ir.packing import Pattern
from prunec.passes import runner
from prunec.passes.canonicalize import canonical
from prunec.passes.groups import groups_of
from prunec.passes.largest import largest
from prunec.passes.score.scoring import ELEMENTS, Elements, Scoring
from prunec.passes.weights import weights

from ..ir.test_onnx_frontend import build, node, weight
from ..models import micro, oracle

X = (torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(1)),)


class Net(nn.Module):
    """Convolutions, one of them depthwise, norms, a residual add and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32)
        self.wide, self.each = nn.Conv2d(32, 64, 1), nn.Conv2d(64, 64, 3, padding=1, groups=64)
        self.back, self.head = nn.Conv2d(64, 32, 1), nn.Linear(32, 8)

    def forward(self, x: torch.Tensor) -> Any:
        y = self.norm(self.stem(x)).relu()
        y = y + self.back(self.each(self.wide(y).relu()).relu())
        return self.head(y.mean(dim=(2, 3)))


def net() -> Net:
    torch.manual_seed(0)
    model = Net()
    for part in model.modules():
        micro._unsettle(part)
    model.eval()
    return model


def compiled(pipeline: str, model: nn.Module | None = None, **options: Any) -> prunec.Result:
    return prunec.compile(model or net(), X, pipeline, **{"measure": False, **options})


def held(result: prunec.Result) -> dict[str, np.ndarray]:
    assert result.module is not None
    return {n: p.detach().numpy() for n, p in result.module.named_parameters() if p.dim() > 1}


def zeros(arrays: dict[str, np.ndarray]) -> float:
    return sum(int((a == 0).sum()) for a in arrays.values()) / sum(a.size for a in arrays.values())


@pytest.mark.parametrize("method", ["magnitude", "random", "lamp", "snip", "synflow"])
@pytest.mark.parametrize("scope", ["global", "layer"])
def test_as_sparse_as_asked(method: str, scope: str) -> None:
    result = compiled(f"score{{method={method}}},mask{{sparsity=0.8,scope={scope}}},pack,verify")
    assert zeros(held(result)) == pytest.approx(0.8, abs=1e-3)
    assert result.report["values"]["mask"]["sparsity"] == pytest.approx(0.8, abs=1e-3)
    assert result.report["verify"]["onnx_rel_err"] < 1e-5
    if scope == "layer":
        density = result.report["values"]["mask"]["density"]
        assert all(d == pytest.approx(0.2, abs=0.02) for d in density.values())


@pytest.mark.parametrize("schedule", ["exponential", "linear"])
def test_in_steps(schedule: str) -> None:
    result = compiled(f"score{{method=synflow}},mask{{sparsity=0.9,steps=5,schedule={schedule}}},verify")
    assert zeros(held(result)) == pytest.approx(0.9, abs=1e-3)


@pytest.mark.parametrize(("n", "m", "v"), [(2, 4, 1), (1, 4, 4), (1, 2, 2)])
def test_a_pattern_holds_in_every_group(n: int, m: int, v: int) -> None:
    result = compiled(f"score{{method=magnitude}},mask{{n={n},m={m},v={v}}},pack,verify")
    pattern, found = Pattern(n, m, v), held(result)
    assert {name for name, a in found.items() if pattern.holds(a)} == {"wide.weight", "back.weight", "head.weight"}
    assert result.forms["nm"] >= 1
    assert any("stem.weight [32, 3, 3, 3]" in note for note in result.report["notes"])


def test_masked_after_channels_went() -> None:
    """The masked numbers are carried back to where they came from: what was proved is the network masked so."""
    smaller = "score{method=l1},plan{ratio=0.4,align=4},eliminate"
    result = compiled(f"{smaller},score{{method=magnitude}},mask{{n=2,m=4}},pack,fold,verify")
    assert result.report["params"]["ratio"] < 0.8
    assert Pattern(2, 4).holds(held(result)["back.weight"])
    assert result.report["verify"]["max_rel_err"] < 1e-5


def test_the_proof_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "carried_back", lambda groups, *rest: groups)
    with pytest.raises(VerificationError):
        compiled("score{method=magnitude},mask{sparsity=0.5},verify")


def test_onnx_files_too() -> None:
    model = prunec.compile(net(), X, ratio=0, measure=False).onnx
    result = prunec.compile(model, None, "score{method=magnitude},mask{n=2,m=4},pack,verify", measure=False)
    assert result.forms["nm"] == 2
    again = prunec.compile(result.onnx, None, "score{method=magnitude},pack{n=2,m=4},verify", measure=False)
    assert again.forms["nm"] == 2, "a packed file is read as what it stands for"
    assert again.report["verify"]["max_rel_err"] < 1e-5


def test_matrices_that_are_summed_over_their_first_axis() -> None:
    subject = oracle.subject(net().double(), (X[0].double(),))
    found = weights(groups_of(subject.graph).analysis)
    assert [w.name for w in found] == ["stem.weight", "wide.weight", "each.weight", "back.weight", "head.weight"]
    assert {w.summed for w in found} == {1}
    model = build([node("MatMul", "x w", "y")], {"w": weight(8, 6)}, {"x": ("N", 8)})
    (only,) = weights(groups_of(canonical(from_onnx(model, None))).analysis)
    assert only.summed == 0


def test_no_layer_goes_altogether() -> None:
    model = net()
    with torch.no_grad():
        model.back.weight.mul_(1e-6)
    result = compiled("score{method=magnitude},mask{sparsity=0.9},verify", model)
    assert (held(result)["back.weight"] != 0).sum() == 1
    assert any("back.weight" in note and "would have gone" in note for note in result.report["notes"])
    result = compiled("score{method=magnitude},mask{sparsity=0.9,floor=0.05},verify", model)
    assert (held(result)["back.weight"] != 0).mean() == pytest.approx(0.05, abs=0.001)
    assert zeros(held(result)) == pytest.approx(0.9, abs=1e-3)


def test_only_some_weights() -> None:
    result = compiled("score{method=magnitude},mask{sparsity=0.5,targets=[wide*,back*],ignore=[back*]},verify")
    found = {n: (a == 0).mean() for n, a in held(result).items()}
    assert found["wide.weight"] == pytest.approx(0.5, abs=1e-3)
    assert not any(share for name, share in found.items() if name != "wide.weight")


@pytest.mark.parametrize(
    ("pipeline", "message", "hint"),
    [
        ("mask{sparsity=1.0}", "cannot be 1.0", "[0, 1)"),
        ("score{method=magnitude},mask", "give a sparsity, or n and m", "mask{n=2,m=4}"),
        ("mask{n=4,m=4}", "no pattern", "0 < n < m"),
        ("mask{n=2}", "no pattern", "n=2,m=4"),
        ("mask{sparsity=0.5,floor=0.6}", "floor", "1 - sparsity"),
        ("mask{sparsity=0.5,steps=0}", "steps", "1 or more"),
        ("score{method=magnitude},mask{n=1,m=7}", "does not divide stem.weight", "ignore"),
        ("score{method=magnitude},mask{n=1,m=4,targets=[stem*]}", "does not divide stem.weight", "m divides"),
        ("score{method=fpgm},mask{sparsity=0.5}", "scores units", "magnitude"),
        ("score{method=magnitude},mask{sparsity=0.5,targets=[nothing]}", "matches no weight", "weights: stem.weight"),
        ("mask{sparsity=0.5}", "requires 'scores'", "score"),
        ("pack{n=1,m=4}", "holds in no weight", "mask{n=1,m=4"),
        ("pack{n=5,m=4}", "no pattern", "0 < n < m"),
    ],
)
def test_what_cannot_be(pipeline: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        compiled(pipeline)
    assert message in caught.value.message and hint in (caught.value.hint or "")


def test_a_model_without_weights() -> None:
    with pytest.raises(UsageError, match="no weight that a layer sums over"):
        compiled("score{method=magnitude},mask{sparsity=0.5}", nn.Sequential(nn.BatchNorm2d(3)).eval())


def test_a_masked_file_is_not_the_dense_one(tmp_path: Path) -> None:
    dense = prunec.compile(net(), X, ratio=0, measure=False)
    masked = prunec.compile(dense.onnx, None, "score{method=magnitude},mask{sparsity=0.5},pack,verify", measure=False)
    for name, result in (("dense", dense), ("masked", masked)):
        (tmp_path / f"{name}.onnx").write_bytes(result.onnx.SerializeToString())
    with pytest.raises(ModelError, match=r"other numbers .* by mask"):
        prunec.verify(tmp_path / "dense.onnx", tmp_path / "masked.onnx")


def test_channels_that_are_last_in_memory_stay_so() -> None:
    model = net().to(memory_format=torch.channels_last)
    result = compiled("score{method=magnitude},mask{sparsity=0.5},verify", model)
    assert result.module is not None
    assert dict(result.module.named_parameters())["stem.weight"].is_contiguous(memory_format=torch.channels_last)


def test_what_is_no_weight_is_said() -> None:
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.head = nn.Embedding(20, 16), nn.Linear(16, 4)

        def forward(self, x: torch.Tensor) -> Any:
            return self.head(self.table(x))

    words = (torch.arange(12).reshape(2, 6),)
    pipeline = "score{method=magnitude},mask{sparsity=0.5},verify"
    result = prunec.compile(Words().eval(), words, pipeline, measure=False)
    assert any("1 parameter left, no weights of layers: table.weight" in note for note in result.report["notes"])


def test_thelargest_of_many_arrays() -> None:
    """Against a sort, ties in order; levels lie within the sample, beside it, and among zeros."""
    rng = np.random.default_rng(0)
    for size in (1, 7, 60, 200_000):
        for numbers in (rng.standard_normal(size), np.round(rng.standard_normal(size), 1), np.zeros(size)):
            numbers[: size // 3] = 0
            for count in {1, size // 10 + 1, size // 2 + 1, size}:
                kept = np.concatenate(largest(np.split(numbers, [size // 3]), count))
                expected = np.zeros(size, bool)
                expected[np.argsort(-numbers, kind="stable")[:count]] = True
                np.testing.assert_array_equal(kept, expected)


@pytest.mark.parametrize("pipeline", ["mask{sparsity=0.5,steps=3}", "mask{n=2,m=4}", "permute,mask{n=2,m=4}"])
def test_scores_that_are_no_numbers(pipeline: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """None of them masks a whole layer in silence, in whatever step they come."""
    calls = []

    def spoilt(scoring: Scoring) -> Elements:
        calls.append(scoring)
        bad = np.nan if len(calls) > 1 or "n=2" in pipeline else 1.0
        return {p.name: np.square(p.data) * bad for p in scoring.all_parameters()}

    monkeypatch.setitem(ELEMENTS, "magnitude", spoilt)
    with pytest.raises(ModelError, match="NaN or infinite scores for elements of"):
        compiled(f"score{{method=magnitude}},{pipeline},verify")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("n=2,m=4,steps=10", "are for a sparsity"),
        ("n=2,m=4,floor=0.1", "are for"),
        ("sparsity=0.5,v=4", "without a pattern"),
    ],
)
def test_options_that_would_be_ignored(options: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        compiled(f"score{{method=magnitude}},mask{{{options}}},verify")


def test_another_pattern_than_channels_were_ordered_for() -> None:
    result = compiled("score{method=magnitude},permute{n=2,m=4},mask{n=1,m=4},verify")
    assert any("permute ordered channels for 2:4" in note for note in result.report["notes"])
