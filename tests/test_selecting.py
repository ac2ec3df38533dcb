"""Models that select: the k largest, boxes without overlap, the largest, places in a table, those above a threshold.

What is selected shows little of what went into it, so a mistake there could hide.  Each model is compiled, broken on
purpose in one place, and held against its dense form: in the graph for inference, in the ONNX that is emitted, as a
file.  As it is, each passes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F

import prunec
from prunec import artifact, cli
from prunec.ir import arrays
from prunec.ir.emit.onnx_external import Emitted
from prunec.ir.errors import VerificationError
from prunec.ir.graph import Graph
from prunec.passes.base import State
from prunec.passes.difference import Border, difference, run
from prunec.passes.runner import Runner
from prunec.passes.target import find_target
from prunec.passes.verify import Verify, sample_inputs
from prunec.recipe import Recipe

from .ir.test_onnx_frontend import analysed, build, ints, node, weight
from .models import micro, oracle

HALF = "score,plan{ratio=0.5,align=1},eliminate,fold,verify"

IMAGE = (torch.randn(2, 3, 10, 10, generator=torch.Generator().manual_seed(0)).double(),)
BACKBONE = [
    node("Conv", "x w1", "a", pads=[1, 1, 1, 1]), node("BatchNormalization", "a g b m v", "n"), node("Relu", "n", "p"),
    node("Conv", "p w2", "c"), node("Relu", "c", "r"), node("Conv", "r ws", "s"), node("Conv", "r wb", "o"),
    node("Reshape", "s flat", "scores"), node("Reshape", "o four", "t"),
    node("Transpose", "t", "boxes", perm=[0, 2, 1]),
]  # fmt: skip
WEIGHTS: dict[str, Any] = {
    "w1": weight(8, 3, 3, 3), "g": weight(8) + 2, "b": weight(8, seed=1), "m": weight(8, seed=2),
    "v": weight(8) ** 2 + 1, "w2": weight(12, 8, 1, 1), "ws": weight(1, 12, 1, 1), "wb": weight(4, 12, 1, 1),
    "flat": ints(0, -1), "four": ints(0, 4, -1), "one": ints(1), "two": ints(2), "five": ints(5),
    "rows": ints(1, 1, 4), "limit": np.float32(0.1), "zero": np.float32(0),
    "iou": np.asarray([0.5], np.float32), "table": weight(2, 6),
}  # fmt: skip
AT_BOXES = [
    node("Unsqueeze", "at two", "u"), node("Expand", "u rows", "each"),
    node("GatherElements", "boxes each", "y", axis=1),
]  # fmt: skip
NMS = [
    node("Unsqueeze", "scores one", "q"), node("NonMaxSuppression", "boxes q five iou least", "kept"),
    node("Gather", "kept columns", "at", axis=1), node("GatherND", "boxes at", "y"),
]  # fmt: skip
SELECTIONS: dict[str, list[NodeProto]] = {
    "largest_five": [node("TopK", "scores five", "best at", axis=1), *AT_BOXES],
    "largest": [node("ArgMax", "scores", "at", axis=1), *AT_BOXES],
    "above_a_threshold": [
        node("Greater", "scores limit", "good"), node("Unsqueeze", "good two", "u"), node("Where", "u boxes zero", "y"),
    ],
    "where_above": [
        node("Greater", "scores limit", "good"), node("NonZero", "good", "k"),
        node("Transpose", "k", "at", perm=[1, 0]), node("GatherND", "boxes at", "y"),
    ],
    "places_in_a_table": [
        node("Sigmoid", "scores", "part"), node("Mul", "part size", "big"), node("Cast", "big", "at", to=7),
        node("Gather", "table at", "e"), node("Concat", "e boxes", "y", axis=2),
    ],
    "boxes_without_overlap": NMS,
    "no_boxes_at_all": NMS,
}  # fmt: skip


def selecting(name: str) -> ModelProto:
    least = 1e6 if name == "no_boxes_at_all" else -9.0
    numbers = {**WEIGHTS, "least": np.asarray([least], np.float32), "size": np.float32(1.99), "columns": ints(0, 2)}
    nodes = [*BACKBONE, *SELECTIONS[name]]
    read = {n for each in nodes for n in each.input}
    return build(nodes, {n: a for n, a in numbers.items() if n in read}, {"x": (2, 3, 8, 8)})


class Selecting(nn.Module):
    """Features of the best positions, found by data: of one, of five, or of all in their order; and an output apart."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.a, self.norm, self.b = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 12, 1)
        self.scores, self.boxes, self.count = nn.Conv2d(12, 1, 1), nn.Conv2d(12, 4, 1), count
        self.apart = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        y = F.silu(self.b(F.silu(self.norm(self.a(x)))))  # no channel is ever dead
        scores, boxes = self.scores(y).flatten(1), self.boxes(y).flatten(2)
        at = scores.argmax(1, keepdim=True) if self.count == 1 else scores.topk(self.count).indices
        chosen = scores.gather(1, at)
        return chosen, boxes.gather(2, at[:, None].expand(-1, 4, -1)), self.apart(y.mean((2, 3))), chosen


def torch_model(count: int) -> nn.Module:
    torch.manual_seed(0)
    model = Selecting(count)
    for part in model.modules():
        micro._unsettle(part)
    return model.double().eval()


# ---------------------------------------------------------------------- mistakes


def one_weight(array: NDArray[Any]) -> NDArray[Any]:
    """The largest element, with the other sign."""
    wrong = array.copy()
    wrong.flat[np.abs(array).argmax()] *= -1
    return wrong


def two_channels(array: NDArray[Any]) -> NDArray[Any]:
    """The first two positions of the first axis that has two, in each other's place."""
    axis = next(d for d, n in enumerate(array.shape) if n > 1)
    order = [1, 0, *range(2, array.shape[axis])]
    return array.take(order, axis)


Mistake = Callable[[NDArray[Any]], NDArray[Any]]
MISTAKES = [one_weight, two_channels]


def trained(names_and_arrays: Iterator[tuple[str, NDArray[Any]]]) -> list[str]:
    """The tensors worth a mistake: those of numbers with more than one element."""
    return [name for name, a in names_and_arrays if a.dtype.kind == "f" and a.size > 1]


def broken_graph(graph: Graph, name: str, mistake: Mistake) -> Graph:
    wrong = graph.copy()
    value = next(v for v, c in graph.constants.items() if c.name == name)
    held = graph.constants[value]
    wrong.constants[value] = replace(held, data=arrays.like(mistake(arrays.to_numpy(held.data)), held.data))
    return wrong


def broken_model(model: ModelProto, name: str, mistake: Mistake) -> ModelProto:
    wrong = ModelProto()
    wrong.CopyFrom(model)
    tensor = next(t for t in wrong.graph.initializer if t.name == name)
    tensor.CopyFrom(numpy_helper.from_array(mistake(numpy_helper.to_array(tensor)), name))
    return wrong


def stored(model: ModelProto) -> list[str]:
    return trained((t.name, numpy_helper.to_array(t)) for t in model.graph.initializer)


# ---------------------------------------------------------------------- after fold


def folded(graph: Graph) -> State:
    """A compile that stands before its proof."""
    state = State(graph, graph, find_target("generic"))
    Runner(ensured={"canonical"}).run(Recipe.parse(HALF.removesuffix(",verify")), state)
    assert state.inference is not None and len(state.inference.nodes) < len(state.graph.nodes), "nothing was folded"
    return state


def answers(names: list[str], prove: Callable[[str], object]) -> dict[str, str]:
    """For each tensor what the proof says once it is wrong; empty where it passes."""
    said = dict.fromkeys(names, "")
    for name in names:
        try:
            prove(name)
        except VerificationError as error:
            said[name] = error.message
    return said


def refusals(state: State, mistake: Mistake) -> dict[str, str]:
    """What is said of each tensor of the graph for inference."""
    right = state.inference
    assert right is not None
    assert Verify().run(state)["ok"]

    def prove(name: str) -> None:
        state.inference = broken_graph(right, name, mistake)
        Verify().run(state)

    return answers(trained((c.name, arrays.to_numpy(c.data)) for c in right.constants.values()), prove)


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("name", SELECTIONS)
def test_mistakes_of_fold_are_found(name: str, mistake: Mistake) -> None:
    said = refusals(folded(analysed(selecting(name))[0]), mistake)
    assert {"w1", "w2", "ws", "wb"} <= set(said)
    assert {n: m for n, m in said.items() if "in the graph for inference: the compact graph differs" not in m} == {}


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("count", [1, 5, 64])
def test_mistakes_of_fold_are_found_in_torch(count: int, mistake: Mistake) -> None:
    said = refusals(folded(oracle.subject(torch_model(count), IMAGE).graph), mistake)
    assert {"a.weight", "b.weight", "scores.weight", "boxes.weight"} <= set(said)
    assert {n: m for n, m in said.items() if "in the graph for inference: the compact graph differs" not in m} == {}


# ---------------------------------------------------------------------- the ONNX that is emitted


def emitted_wrong(monkeypatch: pytest.MonkeyPatch, model: Any, inputs: Any, mistake: Mistake) -> dict[str, str]:
    """What a compile says of each tensor of the emitted model."""
    right = prunec.compile(model, inputs, pipeline=HALF, measure=False).onnx

    def prove(name: str) -> None:
        broken = Emitted(broken_model(right, name, mistake))
        monkeypatch.setattr(artifact, "emitted_onnx", lambda graph, opset: broken)
        prunec.compile(model, inputs, pipeline=HALF, measure=False)

    return answers(stored(right), prove)


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("name", SELECTIONS)
def test_mistakes_in_what_is_emitted_are_found(monkeypatch: pytest.MonkeyPatch, name: str, mistake: Mistake) -> None:
    said = emitted_wrong(monkeypatch, selecting(name), None, mistake)
    assert {"w1", "w2", "ws", "wb"} <= set(said)
    assert {n: m for n, m in said.items() if not m.startswith("verifying the emitted ONNX in ONNX Runtime: it")} == {}


def three_times(array: NDArray[Any]) -> NDArray[Any]:
    wrong: NDArray[Any] = array * np.asarray(3, array.dtype)
    return wrong


@pytest.mark.parametrize("mistake", [*MISTAKES, three_times])
@pytest.mark.parametrize("count", [1, 5, 64])
def test_mistakes_in_what_is_emitted_from_torch_are_found(
    monkeypatch: pytest.MonkeyPatch, count: int, mistake: Mistake
) -> None:
    said = emitted_wrong(monkeypatch, torch_model(count).float(), (IMAGE[0].float(),), mistake)
    assert len(said) >= 4
    assert {n: m for n, m in said.items() if not m.startswith("verifying the emitted ONNX in ONNX Runtime: it")} == {}


def test_among_equals_runtimes_choose_as_they_like(monkeypatch: pytest.MonkeyPatch) -> None:
    """All scores of a fresh detection head are its bias.  A note says so, and what is chosen from must still agree."""
    model = torch_model(5).float()
    model.scores.weight.data.zero_()  # type: ignore[operator, union-attr]
    report = prunec.compile(model, (IMAGE[0].float(),), pipeline=HALF, measure=False).report
    assert report["verify"]["ok"]
    assert report["verify"]["onnx_rel_err"] < 1e-4 or any("among equals" in note for note in report["notes"])
    said = emitted_wrong(monkeypatch, model, (IMAGE[0].float(),), three_times)
    right = {name for name, message in said.items() if not message}
    assert len(said) >= 4
    assert all("scores" in name for name in right), "three times nothing"


class Behind(nn.Module):
    """Weights behind what is chosen; all scores that are not chosen are zero, and equal.  It may return the scores."""

    def __init__(self, scores: bool = False) -> None:
        super().__init__()
        self.a, self.s, self.v = nn.Linear(12, 16), nn.Linear(16, 1), nn.Linear(16, 4)
        self.gain, self.shift = nn.Parameter(torch.tensor([1.0, 2, 0.5, -1])), nn.Parameter(torch.ones(4))
        self.scores = scores

    def forward(self, x: Tensor) -> Any:
        h = torch.relu(self.a(x))
        scores = torch.relu(self.s(h)).squeeze(-1)
        at = scores.topk(5, dim=1).indices
        chosen = self.v(h).gather(1, at[..., None].expand(-1, -1, 4)).tanh() * self.gain + self.shift
        return (scores, chosen) if self.scores else chosen


def test_equals_that_nobody_chooses_among_excuse_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    said = emitted_wrong(monkeypatch, Behind(), (torch.randn(2, 40, 12),), three_times)
    assert {"gain", "shift", "v.bias"} <= set(said)
    assert all(said.values())


@pytest.fixture
def level() -> Behind:
    """All its scores are 1, and returned."""
    torch.manual_seed(1)
    model = Behind(scores=True)
    nn.init.zeros_(model.s.weight)
    nn.init.ones_(model.s.bias)
    return model


def test_scores_that_are_returned_may_be_equal_as_well(level: Behind) -> None:
    x = (torch.randn(2, 40, 12),)
    report = prunec.compile(level, x, pipeline=HALF, measure=False).report["verify"]
    assert report["ok"]
    assert report["onnx_rel_err"] < 1e-4 or report["tied"]


def test_a_wrong_shape_is_no_other_choice(level: Behind) -> None:
    subject = oracle.subject(level, (torch.randn(2, 40, 12),))
    inputs = sample_inputs(subject.graph, 0)
    border = replace(Border.of(subject.graph, list(subject.graph.outputs[:1]), True), elsewhere=True)
    scores, chosen = expected = run(subject.graph, inputs)
    assert border.behind == {1}
    assert difference(border, inputs, [scores, -chosen], 1e-4, expected).tied
    assert not difference(border, inputs, [scores, chosen[0]], 1e-4, expected).within(1e-4)
    assert not difference(border, inputs, [-scores, chosen], 1e-4, expected).within(1e-4)


# ---------------------------------------------------------------------- two files


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("name", SELECTIONS)
def test_mistakes_in_a_file_are_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, mistake: Mistake
) -> None:
    dense, compact = str(tmp_path / "dense.onnx"), str(tmp_path / "compact.onnx")
    onnx.save(selecting(name), dense)
    right = prunec.compile(dense, pipeline=HALF, measure=False).onnx
    onnx.save(right, compact)
    assert cli.main(["verify", dense, compact, "--quiet"]) == 0
    assert capsys.readouterr().out.startswith("verify   ok")
    codes = {}
    for tensor in stored(right):
        onnx.save(broken_model(right, tensor, mistake), compact)
        codes[tensor] = cli.main(["verify", dense, compact, "--quiet"])
    assert {"w1", "w2", "ws", "wb"} <= set(codes)
    assert {t: code for t, code in codes.items() if code != VerificationError.exit_code} == {}
