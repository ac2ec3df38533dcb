"""Split: channels in parts, layers that sum over the parts that they need, the network computing what it did."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto
from torch import Tensor, nn

import prunec
from prunec.ir import arrays
from prunec.ir.errors import UsageError, VerificationError
from prunec.ir.frontends.onnx import from_onnx
from prunec.ir.graph import Graph
from prunec.passes import split as splits
from prunec.passes.base import State
from prunec.passes.canonicalize import canonical
from prunec.passes.fold import fold_batch_norms
from prunec.passes.partition import Choice, Work, cheapest
from prunec.passes.rewrite import NOTHING
from prunec.passes.runner import Runner
from prunec.passes.split import Split
from prunec.passes.splitting import Splitting
from prunec.passes.target import Target, find_target
from prunec.passes.verify import Verify
from prunec.recipe import Recipe

from ..ir.test_onnx_frontend import build, node, weight
from ..models import micro, oracle
from .test_layout import FREE, compiled, stream, two_readers
from .test_reorder import Between, Concat, Layers, Part, between, float_stream, keeping, listed, of

NAIVE = FREE.replace("{layout}", "copies=naive,align=1") + ",eliminate"
PROVED = NAIVE + ",split{{force=true}},fold,verify"


def picks(graph: Graph) -> int:
    return sum(n.op in ("take", "slice") for n in graph.nodes)


def count(graph: Graph, *ops: str) -> int:
    return sum(n.op in ops for n in graph.nodes)


def parted(state: State, *, force: bool = True) -> State:
    """The state after the pass, with everything proved anew."""
    state.graph = Split(force).run(state)
    assert Verify().run(state)["ok"]
    return state


def splitting(state: State) -> Splitting:
    """What the pass chose last."""
    found = state.rewritings[-1]
    assert isinstance(found, Splitting)
    return found


def line(state: State) -> str:
    return next(note for note in state.notes if note.startswith("split:"))


def _apart(works: Sequence[Work], sizes: Sequence[int], cells: Sequence[int], target: Target) -> Choice:
    return Choice(tuple((k,) for k in range(len(sizes))), 0.0)


def _joined(works: Sequence[Work], sizes: Sequence[int], cells: Sequence[int], target: Target) -> Choice:
    return Choice(tuple(tuple(k for k, c in enumerate(cells) if c == cell) for cell in sorted(set(cells))), 0.0)


def _mixed(works: Sequence[Work], sizes: Sequence[int], cells: Sequence[int], target: Target) -> Choice:
    """Two parts of each cell, of classes that have little to do with each other."""
    whole = _joined(works, sizes, cells, target).parts
    return Choice(tuple(half for part in whole for half in (part[::2], part[1::2]) if half), 0.0)


WAYS = {"apart": _apart, "joined": _joined, "mixed": _mixed}


@pytest.fixture(params=[n if n == "mixed" else pytest.param(n, marks=pytest.mark.slow) for n in WAYS])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Parts of several kinds, whatever they cost."""
    name = str(request.param)
    monkeypatch.setattr(splits, "cheapest", WAYS[name])
    return name


FAMILIES = enumerate(sorted(micro.CASES))


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if k % 4 else n for k, n in FAMILIES])
def test_every_family_is_exact(name: str) -> None:
    state = compiled(oracle.subject(*micro.build(name)), PROVED.format(ratio=0.4))
    assert state.facts["verified"]["ok"]
    assert line(state)


@pytest.mark.parametrize("name", ["dense_concat", "residual", "squeeze_excite", "unet"])
def test_any_parts_are_exact(name: str, way: str) -> None:
    state = compiled(oracle.subject(*micro.build(name)), PROVED.format(ratio=0.5))
    assert state.facts["verified"]["ok"]
    assert picks(state.graph) == 0
    assert splitting(state).parts


# ---------------------------------------------------------------------- what becomes of a network


def overlapping() -> State:
    """A reads 1 and 3, B reads 2 and 3."""
    torch.manual_seed(0)
    return keeping(of(Between(wide=4), 2, 3, 4, 4), (1, 3), (2, 3))


def test_readers_that_overlap_are_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splits, "cheapest", _apart)
    state = overlapping()
    assert (picks(state.graph), count(state.graph, "conv")) == (2, 3)
    parted(state)
    assert picks(state.graph) == 0
    assert sorted(part.size for part in splitting(state).parts) == [1, 1, 1]
    weights = [n.inputs[1].shape or () for n in state.graph.nodes if n.op == "conv" and n.inputs[1] is not None]
    assert sorted(weights) == [(1, 3, 1, 1)] * 3 + [(8, 1, 1, 1)] * 4
    assert sum(bool(n.attrs.get("sum")) for n in state.graph.nodes) == 2
    assert line(state) == "split: 2 of 2 picks without a copy now, channels in 3 parts"


def test_a_bias_is_added_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splits, "cheapest", _apart)
    state = parted(overlapping())
    readers = [n for n in state.graph.nodes if n.op == "conv" and n.output.shape == (2, 8, 4, 4)]
    held = [state.graph.constants[n.inputs[2]] for n in readers if n.inputs[2] is not None]
    assert [bool(c.data.any()) for c in held] == [True, False, True, False]
    assert {c.name for c in held if c.role == "parameter"} == {"a.bias", "b.bias"}


def test_what_a_reader_does_not_need_has_zeros(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splits, "cheapest", _joined)
    state = parted(overlapping())
    read = {c.name: arrays.to_numpy(c.data) for c in state.graph.constants.values()}
    assert read["a.weight"].shape == read["b.weight"].shape == (8, 3, 1, 1)
    assert [int((~read[n].any((0, 2, 3))).sum()) for n in ("a.weight", "b.weight")] == [1, 1]


@pytest.mark.parametrize("ratio", [0.3, 0.6])
def test_a_stream_that_channels_leave(ratio: float, way: str) -> None:
    before = compiled(stream(), NAIVE.format(ratio=ratio))
    after = compiled(stream(), PROVED.format(ratio=ratio))
    assert picks(before.graph) > 0
    assert picks(after.graph) == 0


PASSING: dict[str, tuple[Part, Layers]] = {
    "depthwise": (lambda m, y: y + m.dw(y), {"dw": lambda: nn.Conv2d(16, 16, 3, padding=1, groups=16)}),
    "norm": (lambda m, y: m.norm(y).relu() + y, {"norm": lambda: nn.BatchNorm2d(16)}),
    "square": (lambda m, y: y + m.c(y).relu(), {"c": lambda: nn.Conv2d(16, 16, 3, padding=1)}),
    "pool": (lambda m, y: nn.functional.interpolate(nn.functional.max_pool2d(y, 2), scale_factor=2.0) + y, {}),
    "gate": (
        lambda m, y: y * m.up(m.down(y.mean((2, 3), keepdim=True)).relu()).sigmoid(),
        {"down": lambda: nn.Conv2d(16, 4, 1), "up": lambda: nn.Conv2d(4, 16, 1)},
    ),
    "linear": (
        lambda m, y: m.layer(y.permute(0, 2, 3, 1)).relu().permute(0, 3, 1, 2) + y,
        {"layer": lambda: nn.Linear(16, 16)},
    ),
    "flattened": (
        lambda m, y: y + m.layer(y.amax((2, 3))).unsqueeze(2).unsqueeze(3),
        {"layer": lambda: nn.Linear(16, 16)},
    ),
    "viewed": (lambda m, y: y.view(2, 16, 16).softmax(2).view(2, 16, 4, 4) + y, {}),
    "transposed": (lambda m, y: y + m.c(y), {"c": lambda: nn.ConvTranspose2d(16, 16, 1)}),
    "prelu": (lambda m, y: m.act(y) + y, {"act": lambda: nn.PReLU(16)}),
    "twice": (lambda m, y: m.c(m.c(y)) + y, {"c": lambda: nn.Conv2d(16, 16, 1)}),
    "logarithm": (lambda m, y: (y + 1.0).log() + y, {}),
}


@pytest.mark.parametrize("name", PASSING)
def test_channels_are_split_through(name: str, way: str) -> None:
    torch.manual_seed(0)
    part, layers = PASSING[name]
    made: dict[str, Any] = {k: make() for k, make in layers.items()}
    state = compiled(of(Between(part, **made), 2, 3, 4, 4), NAIVE.format(ratio=0.4))
    before = picks(state.graph)
    assert before
    assert picks(parted(state).graph) == 0
    assert line(state).startswith(f"split: {before} of {before} picks without a copy now, channels in ")
    assert "left" not in line(state)


@pytest.mark.parametrize("seed", range(3))
def test_concatenations_are_gone(seed: int, way: str) -> None:
    torch.manual_seed(seed)
    state = compiled(of(Concat(), 2, 3, 4, 4), NAIVE.format(ratio=0.4))
    assert picks(state.graph)
    assert count(parted(state).graph, "take", "slice", "cat") == 0


class Rows(nn.Module):
    """Linear layers that read one value."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Linear(6, 16), nn.BatchNorm1d(16)
        self.a, self.b, self.c = nn.Linear(16, 4), nn.Linear(16, 8), nn.Linear(16, 4, bias=False)

    def forward(self, x: Tensor) -> Any:
        y = self.norm(self.stem(x)).relu()
        return self.a(y), self.b(y), self.c(y)


def test_linear_layers(way: str) -> None:
    torch.manual_seed(0)
    state = compiled(of(Rows(), 3, 6), PROVED.format(ratio=0.5))
    assert state.facts["verified"]["ok"]
    assert picks(state.graph) == 0


def test_where_a_function_may_give_no_number_nothing_is_computed_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(splits, "cheapest", _joined)
    for part, joined in ((lambda m, y: y.tanh(), True), (lambda m, y: (y + 1.0).log(), False)):
        state = compiled(of(Between(part), 2, 3, 4, 4), NAIVE.format(ratio=0.4))
        parts = splitting(parted(state)).parts
        assert (len(parts) == 1) == joined


# ---------------------------------------------------------------------- what stays

REFUSED: dict[str, tuple[str, Part, Layers]] = {
    "mean": ("aten.mean", lambda m, y: y * y.mean(1, keepdim=True), {}),
    "softmax": ("aten.softmax", lambda m, y: y.softmax(1) * m.c(y), {"c": lambda: nn.Conv2d(16, 1, 1)}),
    "groups": ("channels in groups or heads", lambda m, y: y + m.c(y), {"c": lambda: nn.Conv2d(16, 16, 1, groups=4)}),
    "flip": ("aten.flip", lambda m, y: y * m.c(y.flip(1)), {"c": lambda: nn.Conv2d(16, 1, 1)}),
    "product": ("aten.matmul", lambda m, y: y * (y.flatten(2).mT @ y.flatten(2)).mean((1, 2)).view(2, 1, 1, 1), {}),
    "pixel_shuffle": (
        "repeated",
        lambda m, y: y * m.c(nn.functional.pixel_shuffle(y, 2)),
        {"c": lambda: nn.Conv2d(4, 1, 2, stride=2)},
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_channels_that_are_needed_side_by_side(name: str) -> None:
    why, part, layers = REFUSED[name]
    state = between(part, layers)
    before = picks(state.graph)
    assert before
    assert picks(parted(state).graph) == before
    assert not splitting(state).parts
    assert f"{'pick' if before == 1 else 'picks'} left as they were ({why}" in line(state)


def test_picking_stays_where_it_is_faster() -> None:
    state = parted(overlapping(), force=False)
    assert picks(state.graph) == 0, "a pick costs two nodes and more"
    state = overlapping()
    state.target = Target("dear", 16, "", ns_per_mac=1.0, ns_per_byte=0.0, ns_per_node=-1.0)
    parted(state, force=False)
    assert picks(state.graph) == 2
    assert "2 picks left as they were (picking is faster: " in line(state) and line(state).endswith(" and 1 more)")


def test_nothing_to_split() -> None:
    state = compiled(stream(), "score{method=random},plan{ratio=0.5,align=1},eliminate,split,verify")
    assert line(state) == "split: no layer picks channels, so nothing changed"


def test_the_pass_wants_a_compact_graph() -> None:
    with pytest.raises(UsageError, match="'split' requires 'compact'"):
        compiled(stream(), "score{method=random},split")
    with pytest.raises(UsageError, match="'split' cannot follow a pass that ensures split"):
        compiled(stream(), NAIVE.format(ratio=0.3) + ",split,split")


def test_what_is_left_can_be_reordered(way: str) -> None:
    pipeline = NAIVE.format(ratio=0.5) + ",split{force=true},reorder,fold,verify"
    assert compiled(stream(), pipeline).facts["verified"]["ok"]


# ---------------------------------------------------------------------- the cheapest partition


def _all_partitions(items: list[int]) -> Iterator[list[list[int]]]:
    if not items:
        yield []
        return
    first, *rest = items
    for found in _all_partitions(rest):
        yield [[first], *found]
        for k in range(len(found)):
            yield [*found[:k], [first, *found[k]], *found[k + 1 :]]


def _needed(parts: list[list[int]], classes: Any) -> list[list[int] | None]:
    return [None] if classes is None else [part for part in parts if any(classes[k] for k in part)]


def _width(part: list[int] | None, sizes: list[int], target: Target, *, in_sets: bool = False) -> int:
    """In whole blocks; in sets each block that is missing counts as some channels."""
    if part is None:
        return 1
    blocks = -(-sum(sizes[k] for k in part) // target.channel_block)
    missing = -blocks % target.blocks_at_once if in_sets else 0
    return blocks * target.channel_block + missing * round(target.idle_share * target.channel_block)


def _time(parts: list[list[int]], works: list[Work], sizes: list[int], target: Target) -> float:
    """The model in plain words."""
    total = 0.0
    for work in works:
        made, read = _needed(parts, work.made), _needed(parts, work.read)
        made_width = sum(_width(part, sizes, target, in_sets=work.in_sets) for part in made)
        total += work.rate_ns * made_width * sum(_width(part, sizes, target) for part in read)
        total += (len(made) * len(read) - 1) * target.ns_per_node
        total += (len(read) - 1) * work.summand_ns * made_width
    return total


def _problem(seed: int, classes: int) -> tuple[list[Work], list[int], list[int], Target]:
    rng = np.random.default_rng(seed)
    rows = [None if rng.random() < 0.3 else np.arange(classes) % 3 != rng.integers(4) for _ in range(8)]
    pairs = zip(rows[::2], rows[1::2], strict=True)
    works = [Work(made, read, rng.uniform(0, 40), rng.uniform(0, 400), bool(rng.integers(2))) for made, read in pairs]
    cells = (np.arange(classes) * rng.integers(1, 3) // classes).tolist()
    block, node = int(rng.choice([1, 8, 16])), float(rng.choice([10.0, 3000.0]))
    target = Target("any", block, "", blocks_at_once=int(rng.choice([1, 4])), idle_share=0.4, ns_per_node=node)
    return works, rng.integers(1, 40, classes).tolist(), cells, target


@pytest.mark.parametrize("seed", range(12))
def test_no_partition_is_cheaper(seed: int) -> None:
    works, sizes, cells, target = _problem(seed, 2 + seed % 5)
    found = cheapest(works, sizes, cells, target)
    fits = [
        p for p in _all_partitions(list(range(len(sizes)))) if all(len({cells[k] for k in part}) == 1 for part in p)
    ]
    times = [_time(parts, works, sizes, target) for parts in fits]
    assert found.time_ns == pytest.approx(min(times))
    assert _time([list(p) for p in found.parts], works, sizes, target) == pytest.approx(found.time_ns)
    assert sorted(k for part in found.parts for k in part) == list(range(len(sizes)))


@pytest.mark.parametrize("classes", [9, 14, 40])
@pytest.mark.parametrize("seed", range(3))
def test_many_classes_are_merged(seed: int, classes: int) -> None:
    works, sizes, cells, target = _problem(seed, classes)
    found = cheapest(works, sizes, cells, target)
    assert sorted(k for part in found.parts for k in part) == list(range(classes))
    assert all(len({cells[k] for k in part}) == 1 for part in found.parts)
    assert _time([list(p) for p in found.parts], works, sizes, target) == pytest.approx(found.time_ns)
    alone = _time([[k] for k in range(classes)], works, sizes, target)
    assert found.time_ns <= alone * (1 + 1e-9)


def test_the_model_chooses_between_copies_of_nothing_and_sums() -> None:
    """Small layers read everything; of large ones each reads its own parts."""
    wide = find_target("ort-cpu")
    sizes, none = [64, 128, 64], None
    a, b, everything = (np.array(x, bool) for x in ([1, 1, 0], [0, 1, 1], [1, 1, 1]))
    for rate, parts in ((1e-3, 1), (1e3, 3)):
        works = [Work(everything, none, rate, 0.0), Work(none, a, rate * 64, 1e3), Work(none, b, rate * 64, 1e3)]
        assert len(cheapest(works, sizes, [0, 0, 0], wide).parts) == parts


# ---------------------------------------------------------------------- what comes out


@pytest.mark.parametrize("opset", [9, 17])
def test_onnx_graphs(opset: int, way: str) -> None:
    state = keeping(canonical(from_onnx(two_readers(opset))), (0, 2, 4, 6, 8), (1, 2, 6, 8, 9, 13))
    assert picks(state.graph) == 2
    parted(state)
    assert picks(state.graph) == 0
    assert "Gather" not in {n.kind for n in state.graph.nodes}


@pytest.mark.parametrize("opset", [9, 17])
def test_onnx_products(opset: int, way: str) -> None:
    nodes = [
        node("Gemm", "x a bias", "h"),
        node("Relu", "h", "r"),
        node("Gemm", "r b bias_b", "y"),
        node("MatMul", "r c", "z"),
    ]
    weights = {"a": weight(3, 16), "bias": weight(16), "b": weight(16, 4), "bias_b": weight(4), "c": weight(16, 4)}
    model = build(nodes, weights, {"x": ("N", 3)}, ("y", "z"), opset=opset)
    state = parted(keeping(canonical(from_onnx(model)), (0, 2, 4, 6, 8), (1, 2, 6, 8, 9, 13)))
    assert picks(state.graph) == 0


def test_a_fused_function_is_no_sum() -> None:
    nodes = [node("Conv", "x a", "h"), node("FusedConv", "h b", "y", domain="com.microsoft", activation="Relu")]
    nodes.append(node("Conv", "h c", "z"))
    weights = {"a": weight(16, 3, 1, 1), "b": weight(8, 16, 1, 1), "c": weight(8, 16, 1, 1)}
    model = build(nodes, weights, {"x": ("N", 3, 4, 4)}, ("y", "z"))
    model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    state = parted(keeping(canonical(from_onnx(model)), (0, 2, 4), (1, 2, 6)))
    assert picks(state.graph) == 2
    assert "FusedConv" in line(state)


@pytest.fixture
def onnx_stream() -> ModelProto:
    return prunec.compile(*float_stream(), "score,plan{ratio=0},eliminate", measure=False).onnx


def test_a_file_is_split_and_verified(tmp_path: Path, onnx_stream: ModelProto, way: str) -> None:
    onnx.save(onnx_stream, tmp_path / "dense.onnx")
    result = prunec.compile(tmp_path / "dense.onnx", pipeline=PROVED.format(ratio=0.5), measure=False)
    onnx.save(result.onnx, tmp_path / "compact.onnx")
    assert prunec.verify(tmp_path / "dense.onnx", tmp_path / "compact.onnx")["ok"]
    assert not {"Gather", "Slice"} & {n.op_type for n in result.onnx.graph.node}
    read = {name for n in result.onnx.graph.node for name in n.input}
    assert {t.name for t in result.onnx.graph.initializer} <= read
    copies = [name for name in result.kept if name.endswith(".2")]
    assert bool(copies) == (way in ("apart", "mixed"))
    assert {name.removesuffix(".2") for name in copies} <= result.kept.keys()


def test_kept_indices_are_those_of_each_copy(tmp_path: Path, way: str) -> None:
    model, inputs = float_stream()
    result = prunec.compile(model, inputs, PROVED.format(ratio=0.5), measure=False)
    dense, module = model.state_dict(), result.module
    assert module is not None
    compact = module.state_dict()
    assert result.kept.keys() == compact.keys()
    for name, axes in result.kept.items():
        wanted = dense[name if name in dense else name.rpartition("_")[0]].numpy()
        for d, indices in enumerate(axes):
            if indices is not None:
                zeros = np.zeros_like(wanted.take([0], d))
                padded = np.concatenate([wanted, zeros], d)
                assert NOTHING == -1
                wanted = padded.take(indices, d)
        np.testing.assert_array_equal(compact[name].numpy(), wanted)
    result.save(tmp_path / "artifact")
    loaded = prunec.load(tmp_path / "artifact")
    assert loaded.module is not None
    loaded.module.load_state_dict(compact)
    for expected, found in zip(module(*inputs), loaded.module(*inputs), strict=True):
        torch.testing.assert_close(found, expected)
    assert {n: listed(axes) for n, axes in loaded.kept.items()} == {n: listed(a) for n, a in result.kept.items()}


def test_the_module_trains(way: str) -> None:
    model, inputs = float_stream()
    module = prunec.compile(model, inputs, PROVED.format(ratio=0.5), measure=False).module
    assert module is not None
    module.train()
    sum(y.square().mean() for y in module(*inputs)).backward()
    missing = [name for name, p in module.named_parameters() if p.grad is None]
    assert not missing


def test_norms_after_sums_are_folded(monkeypatch: pytest.MonkeyPatch) -> None:
    class Normed(Between):
        def forward(self, x: Tensor) -> Any:
            y = self.stem(x).relu()
            return self.n(self.a(y)).relu(), self.m(self.b(y))  # type: ignore[operator]

    torch.manual_seed(0)
    monkeypatch.setattr(splits, "cheapest", _apart)
    model = Normed(n=nn.BatchNorm2d(8), m=nn.BatchNorm2d(8))
    state = parted(keeping(of(model, 2, 3, 4, 4), (1, 3, 6), (2, 3, 6)))
    assert sum(bool(n.attrs.get("sum")) for n in state.graph.nodes) == 2
    state.inference, folded = fold_batch_norms(state.graph)
    assert folded == 2
    assert Verify().run(state)["ok"]


# ---------------------------------------------------------------------- the proof can fail


@pytest.mark.parametrize("name", ["a.weight", "b.weight", "stem.weight", "stem.bias"])
def test_a_clone_with_other_channels_is_found(name: str, way: str) -> None:
    state = overlapping()
    state.graph = Split(force=True).run(state)
    held = next(c for c in state.graph.constants.values() if c.name == name)
    held.data = held.data.flip(1) if name[0] in "ab" and held.data.shape[1] > 1 else held.data + 0.5
    with pytest.raises(VerificationError, match="differs"):
        Verify().run(state)


# ---------------------------------------------------------------------- what layout expects of it


def test_layout_leaves_to_split_what_parts_make_faster() -> None:
    """Where a pick is dear and a node is cheap, reading everything wins, until sums of parts are weighed as well."""
    dear = Target("dear", 1, "", ns_per_mac=1.0, ns_per_byte=0.5, ns_per_node=0.0)
    torch.manual_seed(0)
    subject = of(Between(wide=16), 2, 3, 4, 4)
    found = {}
    for then in ("nothing", "split"):
        pipeline = FREE.format(ratio=0.5, layout=f"copies=cheapest,align=1,then={then}") + ",eliminate,split,verify"
        state = State(subject.graph, subject.graph, dear)
        Runner(ensured={"canonical"}).run(Recipe.parse(pipeline), state)
        found[then] = len(splitting(state).parts)
        assert picks(state.graph) == 0
    assert found == {"nothing": 0, "split": 3}


def test_the_report_counts_what_came_of_it() -> None:
    """Parts are read by more layers than need them: parameters that a plan did not see."""
    model, inputs = float_stream()
    pipeline = NAIVE.format(ratio=0.5) + ",split{force=true},verify"
    result = prunec.compile(model, inputs, pipeline, measure=False)
    assert result.module is not None
    assert result.report["params"]["compact"] == sum(p.numel() for p in result.module.parameters())
    assert (
        result.report["params"]["compact"]
        > prunec.compile(model, inputs, NAIVE.format(ratio=0.5) + ",verify", measure=False).report["params"]["compact"]
    )
