"""HRank: ranks of feature maps of the caller's samples, on networks whose maps are known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import prunec
from prunec.ir.emit import fx
from prunec.ir.errors import ModelError, UsageError
from prunec.ir.graph import Graph
from prunec.models import emit_onnx, read
from prunec.passes import samples as passing
from prunec.passes.base import State
from prunec.passes.canonicalize import canonical
from prunec.passes.groups import Groups, Mode, groups_of
from prunec.passes.score.hrank import hrank
from prunec.passes.score.scoring import Score, Scores, Scoring
from prunec.passes.target import find_target

from ..models.micro import Net

PIPELINE = "score{method=hrank,normalize=none},plan{ratio=0.25,align=1,floor=0},eliminate,verify"


def stem(channels: int = 4) -> nn.Conv2d:
    """Every channel is the image itself: x (B, 1, 6, 6), of full rank."""
    conv = nn.Conv2d(1, channels, 1)
    with torch.no_grad():
        conv.weight.fill_(1.0)
        conv.bias.zero_()  # type: ignore[union-attr]
    return conv


class Columns(nn.Module):
    """x (B, c, 6, 6) with zeros behind the first columns of each channel, which has their number as its rank."""

    shown: Tensor

    def __init__(self, ranks: tuple[int, ...] = (1, 2, 3, 4)) -> None:
        super().__init__()
        self.register_buffer("shown", torch.zeros(1, len(ranks), 1, 6))
        for k, rank in enumerate(ranks):
            self.shown[0, k, 0, :rank] = 1.0

    def forward(self, x: Tensor) -> Tensor:
        return x * self.shown


def by_columns(*ranks: int, tail: nn.Module | None = None) -> nn.Sequential:
    tail = nn.Sequential(nn.Conv2d(len(ranks), 3, 3), nn.Flatten()) if tail is None else tail
    return nn.Sequential(stem(len(ranks)), Columns(ranks), tail).eval()


def batches(*sizes: int, shape: tuple[int, ...] = (1, 6, 6)) -> list[tuple[Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(n, *shape, generator=generator),) for n in sizes]


def scored(model: Any, samples: Any, mode: Mode = "constrained", example: Any = None) -> tuple[Groups, Scores, State]:
    given = batches(2)[0] if example is None else example
    return of_graph(canonical(read(model, None if isinstance(model, onnx.ModelProto) else given)[0]), samples, mode)


def of_graph(graph: Graph, samples: Any, mode: Mode = "constrained") -> tuple[Groups, Scores, State]:
    groups = groups_of(graph, mode)
    state = State(graph, graph, find_target("ort-cpu"), facts={"groups": groups}, context={"samples": samples})
    return groups, hrank(Scoring(groups, state)), state


def of_group(groups: Groups, scores: Scores, name: str) -> list[float]:
    (found,) = [g for g in groups.groups if any(place[0] == name for place in g.places)]
    return [float(s) for s in scores[found.units]]


def ranks(maps: Tensor) -> NDArray[np.float64]:
    """(B, c, h, w) -> (c,): what the paper's formula says, one map at a time."""
    numbers = maps.detach().numpy()
    each = [[np.linalg.matrix_rank(m) for m in example] for example in numbers]
    found: NDArray[np.float64] = np.array(each, np.float64).mean(0)
    return found


def test_the_rank_of_a_channel_that_is_known() -> None:
    groups, scores, _ = scored(by_columns(3, 1, 4, 2), batches(2))
    assert of_group(groups, scores, "0.weight") == [3, 1, 4, 2]


def test_the_formula_behind_batch_norm_activation_and_before_pooling() -> None:
    torch.manual_seed(0)
    block = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.Threshold(0.8, 0.0)).eval()
    model = nn.Sequential(block, nn.MaxPool2d(2), nn.Conv2d(8, 3, 2), nn.Flatten()).eval()
    given = batches(2, 5, shape=(1, 12, 12))
    groups, scores, _ = scored(model, given, example=given[0])
    expected = ranks(block(torch.cat([x for (x,) in given])))
    assert len(set(expected)) > 4, "channels that are alike prove nothing"
    np.testing.assert_allclose(of_group(groups, scores, "0.0.weight"), expected)
    pooled = ranks(model[1](block(given[0][0])))
    assert not np.allclose(of_group(groups, scores, "0.0.weight"), pooled)


def test_batches_count_by_their_examples() -> None:
    """An example of zeros has rank 0: one of four, whatever batch it lies in."""
    zero, (three,) = torch.zeros(1, 1, 6, 6), batches(3)[0]
    one, two = ([(torch.cat([zero, three]),)], [(zero,), (three,)])
    for given in (one, two):
        groups, scores, _ = scored(by_columns(4, 2), given)
        np.testing.assert_allclose(of_group(groups, scores, "0.weight"), [3, 1.5])


@pytest.mark.parametrize("pool", [nn.AdaptiveAvgPool2d(1), nn.MaxPool2d(6)])
def test_a_classifier_reads_the_maps_before_pooling_and_flattening(pool: nn.Module) -> None:
    tail = nn.Sequential(pool, nn.Flatten(), nn.Linear(4, 2))
    model = by_columns(3, 1, 4, 2, tail=tail)
    twin = emit_onnx(canonical(read(model, batches(2)[0])[0]))
    for source in (model, twin):
        groups, scores, _ = scored(source, batches(2))
        assert of_group(groups, scores, "0.weight") == [3, 1, 4, 2]


def test_a_flattened_map_is_a_map() -> None:
    tail = nn.Sequential(nn.Flatten(), nn.Linear(4 * 36, 2))
    groups, scores, _ = scored(by_columns(3, 1, 4, 2, tail=tail), batches(2))
    assert of_group(groups, scores, "0.weight") == [3, 1, 4, 2]


def test_channels_last_are_maps_too() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        return m.out(m.columns(m.stem(x)).permute(0, 2, 3, 1))  # type: ignore[no-any-return]

    net = Net(run, stem=stem(), columns=Columns((3, 1, 4, 2)), out=nn.Linear(4, 2)).eval()
    groups, scores, _ = scored(net, batches(2))
    assert of_group(groups, scores, "stem.weight") == [3, 1, 4, 2]


def test_a_depthwise_layer_reads_maps_and_makes_them() -> None:
    """Both count alike: it shifts the maps of the first channel, and makes nothing of the second."""
    deep = nn.Conv2d(2, 2, (1, 2), groups=2, padding=(0, 1), bias=False)
    with torch.no_grad():
        deep.weight.copy_(torch.tensor([[[[1.0, 0.0]]], [[[0.0, 0.0]]]]))
    tail = nn.Sequential(deep, nn.Conv2d(2, 3, 3), nn.Flatten())
    groups, scores, _ = scored(by_columns(4, 2, tail=tail), batches(2))
    assert of_group(groups, scores, "0.weight") == [4, (2 + 0) / 2]


class Shared(nn.Module):
    """Two layers read the same channels, each behind a mask of columns of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = stem()
        self.first, self.second = Columns((1, 2, 3, 4)), Columns((6, 4, 2, 0))
        self.a, self.b = nn.Conv2d(4, 3, 3), nn.Conv2d(4, 3, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.stem(x)
        return self.a(self.first(y)), self.b(self.second(y))


def test_readers_that_share_channels_count_alike() -> None:
    groups, scores, _ = scored(Shared().eval(), batches(2))
    assert of_group(groups, scores, "stem.weight") == [3.5, 3, 2.5, 2]


def test_unconstrained_each_reader_is_scored_on_what_it_reads() -> None:
    groups, scores, _ = scored(Shared().eval(), batches(2), "unconstrained")
    assert of_group(groups, scores, "a.weight") == [1, 2, 3, 4]
    assert of_group(groups, scores, "b.weight") == [6, 4, 2, 0]


def test_units_without_maps_get_the_share_that_is_not_zero() -> None:
    """h = relu((x, -x, 0·x, 1)), x of both signs."""
    first = nn.Linear(1, 4)
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[1.0], [-1.0], [0.0], [0.0]]))
        first.bias.copy_(torch.tensor([0.0, 0.0, 0.0, 1.0]))
    model = nn.Sequential(first, nn.ReLU(), nn.Linear(4, 2)).eval()
    x = torch.tensor([[1.0], [2.0], [3.0], [-1.0]])
    tokens = x.reshape(2, 2, 1)
    for given, example in (((x,), (x[:2],)), ((tokens,), (tokens,))):
        groups, scores, _ = scored(model, [given], example=example)
        assert of_group(groups, scores, "0.weight") == [0.75, 0.25, 0, 1]


def test_both_dialects_agree() -> None:
    torch.manual_seed(0)
    block = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.Threshold(0.8, 0.0)).eval()
    model = nn.Sequential(block, nn.MaxPool2d(2), nn.Conv2d(8, 6, 2), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 16, 3))
    given = batches(3, shape=(1, 12, 12))
    dense = canonical(read(model.eval(), given[0])[0])
    modes: tuple[Mode, ...] = ("constrained", "unconstrained")
    for mode in modes:
        groups, scores, _ = of_graph(dense, given, mode)
        twin_groups, twin, _ = of_graph(
            canonical(read(emit_onnx(dense))[0]), [tuple(x.numpy() for x in each) for each in given], mode
        )
        found, same = scores[groups.prunable], twin[twin_groups.prunable]
        assert len(set(found)) > 4
        np.testing.assert_allclose(found, same)


def test_what_is_constant_goes_first() -> None:
    """From the API to the kept indices; inputs by name, of another batch size than the example's."""
    torch.manual_seed(0)
    first = nn.Conv2d(1, 8, 3)
    model = nn.Sequential(first, nn.ReLU(), nn.Conv2d(8, 4, 3), nn.Flatten()).eval()
    assert first.bias is not None
    with torch.no_grad():
        first.weight[[2, 5]] = 0.0
        first.bias[[2, 5]] = torch.tensor([0.0, 3.0])  # rank 0 and rank 1
    samples = [{"input": x} for (x,) in batches(1, 4, shape=(1, 8, 8))]
    result = prunec.compile(model, batches(2, shape=(1, 8, 8))[0], PIPELINE, samples=samples, measure=False)
    assert np.array_equal(np.asarray(result.kept["0.weight"][0]), [0, 1, 3, 4, 6, 7])
    twin = prunec.compile(emit_onnx(read(model, batches(2, shape=(1, 8, 8))[0])[0]), None, PIPELINE,
                          samples=[x.numpy() for (x,) in batches(4, shape=(1, 8, 8))], measure=False)  # fmt: skip
    assert next(list(axes[0]) for axes in twin.kept.values() if axes[0] is not None) == [0, 1, 3, 4, 6, 7]


class Unreadable:
    def __iter__(self) -> Any:
        raise OSError("no worker")


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (lambda x: None, "criterion 'hrank' needs sample inputs"),
        (lambda x: [], "samples is empty"),
        (lambda x: iter(()), "samples is empty"),
        (lambda x: x, "samples cannot be a Tensor"),
        (lambda x: x.numpy(), "samples cannot be a ndarray"),
        (lambda x: {"input": x}, "samples cannot be a dict"),
        (lambda x: 3, "samples cannot be a int"),
        (lambda x: [(x, x)], "sample batch 1 has 2 inputs, and the model 1"),
        (lambda x: [x, x[:0]], r"sample batch 2: input 'input' of shape \[0, 1, 6, 6\] is empty"),
        (lambda x: (x / k for k in (2, "two")), "sample batch 2 could not be read: TypeError"),
        (lambda x: Unreadable(), "sample batch 1 could not be read: OSError: no worker"),
        (lambda x: [x, {"inputs": x}], "the model has no input 'inputs'"),
        (lambda x: [{}], "input 'input' is missing"),
        (lambda x: [x, x[:, :, :5]], r"sample batch 2: input 'input' is torch.float32 of shape \[2, 1, 5, 6\], and "),
        (lambda x: [x[0]], r"the model takes float32 of shape \[2 \(free\), 1, 6, 6\]"),
        (lambda x: [x.long()], "input 'input' is torch.int64"),
        (lambda x: [x, x / 0 * 0], "sample batch 2: input 'input' holds NaN"),
    ],
)
def test_samples_that_do_not_fit_are_refused(samples: Callable[[Tensor], Any], message: str) -> None:
    ((x,),) = batches(2)
    with pytest.raises(UsageError, match=message) as error:
        scored(by_columns(1, 2), samples(x))
    assert "samples" in error.value.hint or "inputs" in error.value.hint


def test_labels_are_to_be_left_out() -> None:
    ((x,),) = batches(2)
    with pytest.raises(UsageError) as error:
        scored(by_columns(1, 2), [(x, torch.zeros(2))])
    assert "samples=((x,) for x, label in loader)" in error.value.hint


def test_analyze_takes_samples() -> None:
    found = prunec.analyze(by_columns(1, 2), batches(2)[0], score="hrank", samples=batches(4))
    assert found["criterion"] == "hrank"
    with pytest.raises(UsageError, match="needs sample inputs"):
        prunec.analyze(by_columns(1, 2), batches(2)[0], score="hrank")


def test_without_samples_the_user_is_told_what_to_give() -> None:
    with pytest.raises(UsageError, match="criterion 'hrank' needs sample inputs") as error:
        prunec.compile(by_columns(1, 2), batches(2)[0], PIPELINE, measure=False)
    assert "prunec.compile(…, samples=[…])" in error.value.hint
    assert error.value.exit_code == 2


def test_samples_that_are_not_finite() -> None:
    with pytest.raises(ModelError, match=r"on sample batch 1: .* holds NaN or infinite values"):
        scored(by_columns(1, 2), [torch.full((2, 1, 6, 6), np.inf)])


def test_groups_that_are_not_told_apart_are_noted() -> None:
    tail = nn.Sequential(nn.Flatten(), nn.Linear(4 * 36, 5), nn.Softplus(), nn.Linear(5, 2))
    _, _, state = scored(by_columns(3, 1, 4, 2, tail=tail), batches(2))
    (note,) = state.notes
    assert note == "score: hrank does not tell the units of 1 group apart: 2.1.weight:0"
    assert not scored(by_columns(3, 1), batches(2))[2].notes


def test_large_values_are_observed_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing changes."""
    seen: list[int] = []
    observing = fx.observing

    def counted(graph: Graph, values: list[Any]) -> Graph:
        seen.append(len(values))
        return observing(graph, values)

    monkeypatch.setattr(fx, "observing", counted)
    expected = scored(Shared().eval(), batches(2))[1]
    assert seen == [2]
    monkeypatch.setattr(passing, "_HELD", 1)
    np.testing.assert_array_equal(scored(Shared().eval(), batches(2))[1], expected)
    assert seen == [2, 1, 1]


def test_it_is_a_criterion_like_others() -> None:
    ((x,),) = batches(2)
    graph = canonical(read(by_columns(1, 2, 4), (x,))[0])
    groups = groups_of(graph)
    state = State(graph, graph, find_target("ort-cpu"), facts={"groups": groups}, context={"samples": [x]})
    np.testing.assert_allclose(Score("hrank").run(state)[groups.prunable], [0.5, 1, 2])
