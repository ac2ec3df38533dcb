"""Reorder: channels in an order in which layers read neighbours, the network computing what it did."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import ModelProto
from torch import Tensor, nn

import prunec
from prunec.ir import arrays
from prunec.ir.errors import UsageError, VerificationError
from prunec.ir.frontends.onnx import from_onnx
from prunec.ir.graph import Graph
from prunec.models import read
from prunec.passes.base import State
from prunec.passes.canonicalize import canonical
from prunec.passes.eliminate import Eliminate
from prunec.passes.groups import groups_of
from prunec.passes.layout import Layout
from prunec.passes.plan.plan import Plan
from prunec.passes.reorder import Reorder, _Search
from prunec.passes.reordering import Reordering
from prunec.passes.runner import Runner
from prunec.passes.split import Split
from prunec.passes.target import find_target
from prunec.passes.verify import Verify
from prunec.recipe import Recipe

from ..ir.test_onnx_frontend import build, node, weight
from ..models import micro, oracle
from .test_layout import FREE, Stream, compiled, stream, two_readers

ROOT = Path(__file__).parents[2]
NAIVE = FREE.replace("{layout}", "copies=naive,align=1") + ",eliminate"
PROVED = NAIVE + ",reorder{{method={method}}},fold,verify"


def takes(graph: Graph) -> int:
    return sum(n.op == "take" for n in graph.nodes)


def of(module: nn.Module, *shape: int) -> oracle.Subject:
    for part in module.modules():
        micro._unsettle(part)
    return oracle.subject(module.double().eval(), (torch.randn(shape, dtype=torch.float64),))


def reordered(state: State, **options: Any) -> State:
    """The state after the pass, with everything proved anew."""
    state.graph = Reorder(**options).run(state)
    assert Verify().run(state)["ok"]
    return state


def reordering(state: State) -> Reordering:
    """What the pass chose last."""
    found = state.rewritings[-1]
    assert isinstance(found, Reordering)
    return found


def keeping(subject: oracle.Subject | Graph, *kept: Sequence[int]) -> State:
    """The compact graph in which the groups that several readers share keep these channels, one group after another."""
    graph = subject if isinstance(subject, Graph) else subject.graph
    groups = groups_of(graph, "unconstrained")
    sizes = {g.name: len(g) for g in groups.groups}
    chosen = dict(zip(sizes, kept, strict=True))
    dropped = {name: tuple(k for k in range(n) if k not in chosen[name]) for name, n in sizes.items()}
    state = State(graph, graph, find_target("generic"), facts={"groups": groups})
    state.facts["plan"] = Plan(dropped, sizes, {}, {}, "unconstrained")
    state.graph = Eliminate().run(state)
    return state


def line(state: State) -> str:
    return next(note for note in state.notes if note.startswith("reorder:"))


FAMILIES = enumerate(sorted(micro.CASES))


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if k % 4 else n for k, n in FAMILIES])
def test_every_family_is_exact(name: str) -> None:
    state = compiled(oracle.subject(*micro.build(name)), PROVED.format(ratio=0.4, method="exact"))
    assert state.facts["verified"]["ok"]
    assert line(state)


@pytest.mark.parametrize("method", ["exact", "upscale"])
@pytest.mark.parametrize("name", ["dense_concat", "depthwise", "squeeze_excite", "unet"])
def test_the_published_order_is_exact_too(name: str, method: str) -> None:
    state = compiled(oracle.subject(*micro.build(name)), PROVED.format(ratio=0.6, method=method))
    assert state.facts["verified"]["ok"]


# ---------------------------------------------------------------------- what is gained


Part = Callable[[Any, Any], Any]
Layers = dict[str, Callable[[], nn.Module]]


class Between(nn.Module):
    """Two readers of one value, ``wide`` channels of a stem after what ``part`` makes of them."""

    def __init__(self, part: Part | None = None, wide: int = 16, **layers: Any) -> None:
        super().__init__()
        self.stem, self.part = nn.Conv2d(3, wide, 1), part
        self.a, self.b = nn.Conv2d(wide, 8, 1), nn.Conv2d(wide, 8, 1)
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x: Tensor) -> Any:
        y = self.stem(x).relu()
        z = y if self.part is None else self.part(self, y)
        return self.a(z), self.b(z)


def between(part: Part, layers: Layers) -> State:
    """The compact graph of two readers of what ``part`` makes with ``layers``, each picking its own channels."""
    torch.manual_seed(0)
    made: dict[str, Any] = {name: make() for name, make in layers.items()}
    return compiled(of(Between(part, **made), 2, 3, 4, 4), NAIVE.format(ratio=0.4))


def test_two_readers_that_share_one_channel() -> None:
    """B reads 1 and 3, D reads 2 and 3: in the order 1 3 2 both read neighbours."""
    torch.manual_seed(0)
    state = keeping(of(Between(wide=4), 2, 3, 4, 4), (1, 3), (2, 3))
    assert takes(state.graph) == 1
    reordered(state)
    assert takes(state.graph) == 0
    assert [n.attrs["slices"] for n in state.graph.nodes if n.op == "slice"] == [((1, 0, 2, 1),), ((1, 1, 3, 1),)]
    order = reordering(state)
    made, *_ = order.of({"stem.weight": (np.array([1, 2, 3]), None, None, None)})["stem.weight"]
    assert np.array_equal(made if made is not None else [], [1, 3, 2])
    assert line(state) == "reorder: 1 of 1 pick without a copy now"


@pytest.mark.parametrize("ratio", [0.3, 0.5, 0.7])
def test_fewer_readers_of_a_stream_copy(ratio: float) -> None:
    before = compiled(stream(), NAIVE.format(ratio=ratio))
    after = {m: compiled(stream(), PROVED.format(ratio=ratio, method=m)) for m in ("exact", "upscale")}
    assert takes(after["exact"].graph) < takes(before.graph)
    assert takes(after["exact"].graph) <= takes(after["upscale"].graph) <= takes(before.graph)


def test_nested_readers_read_prefixes() -> None:
    torch.manual_seed(0)

    class Nested(Between):
        def forward(self, x: Tensor) -> Any:
            y = self.stem(x).relu()
            return self.a(y), self.b(y), self.c(y)  # type: ignore[operator]

    subject = of(Nested(c=nn.Conv2d(16, 4, 1)), 2, 3, 4, 4)
    state = reordered(keeping(subject, (1, 4, 7, 9, 12), (4, 9, 12), (4, 12)))
    cuts = [n.attrs["slices"][0][1:3] for n in state.graph.nodes if n.op == "slice"]
    assert cuts == [(0, 3), (0, 2)], "the reader of everything has lost its pick"
    assert takes(state.graph) == 0


class Concat(nn.Module):
    """Two layers whose results are concatenated for two readers; the second result is also read alone."""

    def __init__(self) -> None:
        super().__init__()
        self.p, self.q = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 1)
        self.a, self.b, self.c = nn.Conv2d(16, 4, 1), nn.Conv2d(16, 4, 1), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Any:
        p, q = self.p(x).relu(), self.q(x).relu()
        y = torch.cat([p, q], 1)
        return self.a(y), self.b(y), self.c(q)


def test_parts_of_a_concatenation_stay_one_after_another() -> None:
    torch.manual_seed(0)
    state = keeping(of(Concat(), 2, 3, 4, 4), (1, 6, 8, 11, 14), (0, 1, 5, 6, 9, 8, 11, 14, 15), (0, 3, 6))
    assert takes(state.graph) == 2
    reordered(state)
    assert takes(state.graph) == 0


@pytest.mark.parametrize("seed", range(4))
def test_concatenations_are_exact(seed: int) -> None:
    torch.manual_seed(seed)
    state = compiled(of(Concat(), 2, 3, 4, 4), PROVED.format(ratio=0.5, method=("exact", "upscale")[seed % 2]))
    assert state.facts["verified"]["ok"]


PASSING: dict[str, tuple[Part, Layers]] = {
    "depthwise": (lambda m, y: y + m.dw(y), {"dw": lambda: nn.Conv2d(16, 16, 3, padding=1, groups=16)}),
    "norm": (lambda m, y: m.norm(y).relu() + y, {"norm": lambda: nn.BatchNorm2d(16)}),
    "pool": (lambda m, y: F.interpolate(F.max_pool2d(y, 2), scale_factor=2.0) + y, {}),
    "gate": (
        lambda m, y: y * m.up(m.down(y.mean((2, 3), keepdim=True)).relu()).sigmoid(),
        {"down": lambda: nn.Conv2d(16, 4, 1), "up": lambda: nn.Conv2d(4, 16, 1)},
    ),
    "linear": (
        lambda m, y: m.layer(y.permute(0, 2, 3, 1)).relu().permute(0, 3, 1, 2) + y,
        {"layer": lambda: nn.Linear(16, 16)},
    ),
    "flattened": (lambda m, y: y + m.layer(y.amax((2, 3)))[:, :, None, None], {"layer": lambda: nn.Linear(16, 16)}),
    "shuffle": (lambda m, y: y.unflatten(1, (4, 4)).transpose(1, 2).flatten(1, 2), {}),
    "prelu": (lambda m, y: m.act(y) + y, {"act": lambda: nn.PReLU(16)}),
}


@pytest.mark.parametrize("name", PASSING)
@pytest.mark.parametrize("seed", range(2))
def test_channels_move_through(name: str, seed: int) -> None:
    torch.manual_seed(seed)
    part, layers = PASSING[name]
    made: dict[str, Any] = {k: make() for k, make in layers.items()}
    subject = of(Between(part, **made), 2, 3, 4, 4)
    state = compiled(subject, NAIVE.format(ratio=0.4))
    before = takes(state.graph)
    assert takes(reordered(state).graph) < before
    assert "left" not in line(state)


PLACES_COUNT: dict[str, tuple[str, Part, Layers]] = {
    "mean": ("aten.mean", lambda m, y: y * y.mean(1, keepdim=True), {}),
    "flip": ("aten.flip", lambda m, y: y * m.c(y.flip(1)), {"c": lambda: nn.Conv2d(16, 1, 1)}),
    "split": ("aten.split", lambda m, y: y * m.c(y.split((6, 10), 1)[0]), {"c": lambda: nn.Conv2d(6, 1, 1)}),
    "shuffle": (
        "aten.split",
        lambda m, y: y * m.c(y.unflatten(1, (2, 8)).transpose(1, 2).flatten(1, 2).split(8, 1)[0]),
        {"c": lambda: nn.Conv2d(8, 1, 1)},
    ),
    "groups": ("groups or heads", lambda m, y: y + m.c(y), {"c": lambda: nn.Conv2d(16, 16, 1, groups=4)}),
    "heads": (
        "groups or heads",
        lambda m, y: y * m.c(y.unflatten(1, (4, 4)).sum(2)),
        {"c": lambda: nn.Conv2d(4, 1, 1)},
    ),
    "pixel_shuffle": (
        "repeated",
        lambda m, y: y * m.c(F.pixel_shuffle(y, 2)),
        {"c": lambda: nn.Conv2d(4, 1, 2, stride=2)},
    ),
}


@pytest.mark.parametrize("name", PLACES_COUNT)
def test_channels_stay_where_their_places_count(name: str) -> None:
    why, part, layers = PLACES_COUNT[name]
    state = between(part, layers)
    before = takes(state.graph)
    assert before
    assert takes(reordered(state).graph) == before
    assert not reordering(state).constants
    assert why in line(state)


def test_parts_that_are_concatenated_in_several_orders() -> None:
    class Both(Concat):
        def __init__(self) -> None:
            super().__init__()
            self.d = nn.Conv2d(16, 4, 1)

        def forward(self, x: Tensor) -> Any:
            p, q = self.p(x).relu(), self.q(x).relu()
            y, z = torch.cat([p, q], 1), torch.cat([q, p], 1)
            return self.a(y), self.b(y), self.c(q), self.d(z)

    torch.manual_seed(0)
    state = compiled(of(Both(), 2, 3, 4, 4), NAIVE.format(ratio=0.4))
    reordered(state)
    assert "concatenated in several orders" in line(state)
    assert not reordering(state).constants


def test_what_cannot_be_gained_is_said() -> None:
    torch.manual_seed(0)
    state = keeping(of(Between(wide=4), 2, 3, 4, 4), (0, 1), (1, 2, 3))
    assert state.graph is not None
    reordered(state)
    assert line(state) == "reorder: no layer picks channels that are no neighbours, so nothing changed"

    class Three(Between):
        def forward(self, x: Tensor) -> Any:
            y = self.stem(x).relu()
            return self.a(y), self.b(y), self.c(y)  # type: ignore[operator]

    state = keeping(of(Three(wide=3, c=nn.Conv2d(3, 4, 1)), 2, 3, 4, 4), (0, 1), (1, 2), (0, 2))
    reordered(state)
    assert line(state) == "reorder: 0 of 1 pick without a copy now: no order helps, so nothing changed"
    assert not reordering(state).constants


def test_picks_of_the_source_stay_what_they_are() -> None:
    """Picks of an axis of any size, and of one that is returned."""
    nodes = [node("Gather", "x two", "a", axis=2), node("Gather", "x three", "y", axis=1), node("Relu", "a", "z")]
    nodes += [node("Gather", "x two", "b", axis=1), node("Relu", "b", "w")]
    model = build(nodes, {"two": np.arange(2), "three": np.arange(3)}, {"x": (4, 3, "N")})
    for name in ("z", "w"):
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    state = reordered(keeping(canonical(from_onnx(model))))
    found = {n.output.name: (n.op, n.attrs.get("slices")) for n in state.graph.nodes}
    assert found["a"] == ("index", None)
    assert found["y"] == ("slice", ((1, 0, 3, 1),))
    assert found["b"] == ("slice", ((1, 0, 2, 1),))


# ---------------------------------------------------------------------- what comes out


@pytest.mark.parametrize("opset", [9, 17])
@pytest.mark.parametrize("method", ["exact", "upscale"])
def test_onnx_graphs(opset: int, method: Any) -> None:
    graph = canonical(from_onnx(two_readers(opset)))
    state = keeping(graph, (0, 2, 4, 6, 8), (1, 2, 6, 8, 9, 13))
    assert [n.kind for n in state.graph.nodes if n.op in ("slice", "take")] == ["Gather", "Gather"]
    reordered(state, method=method)
    assert [n.kind for n in state.graph.nodes if n.op in ("slice", "take")] == ["Slice", "Slice"]


@pytest.fixture
def onnx_stream() -> ModelProto:
    return prunec.compile(*float_stream(), "score,plan{ratio=0},eliminate", measure=False).onnx


def float_stream() -> tuple[nn.Module, tuple[Tensor]]:
    torch.manual_seed(0)
    model = Stream()
    for part in model.modules():
        micro._unsettle(part)
    return model.eval(), (torch.randn(2, 3, 6, 6),)


def test_a_file_is_reordered_and_verified(tmp_path: Path, onnx_stream: ModelProto) -> None:
    onnx.save(onnx_stream, tmp_path / "dense.onnx")
    plain = prunec.compile(tmp_path / "dense.onnx", pipeline=NAIVE.format(ratio=0.5), measure=False)
    result = prunec.compile(tmp_path / "dense.onnx", pipeline=PROVED.format(ratio=0.5, method="exact"), measure=False)
    onnx.save(result.onnx, tmp_path / "compact.onnx")
    assert prunec.verify(tmp_path / "dense.onnx", tmp_path / "compact.onnx")["ok"]
    gathers = [sum(n.op_type == "Gather" for n in m.graph.node) for m in (result.onnx, plain.onnx)]
    assert gathers[0] < gathers[1]
    read = {name for n in result.onnx.graph.node for name in n.input}
    assert {t.name for t in result.onnx.graph.initializer} <= read


def listed(axes: Any) -> list[Any]:
    return [None if indices is None else indices.tolist() for indices in axes]


def test_kept_indices_are_in_the_new_order(tmp_path: Path) -> None:
    model, inputs = float_stream()
    result = prunec.compile(model, inputs, PROVED.format(ratio=0.5, method="exact"), measure=False)
    dense, module = model.state_dict(), result.module
    assert module is not None
    compact = module.state_dict()
    assert any(k is not None and (np.diff(k) < 0).any() for axes in result.kept.values() for k in axes)
    for name, axes in result.kept.items():
        wanted = dense[name].numpy()
        for d, indices in enumerate(axes):
            wanted = wanted if indices is None else np.take(wanted, indices, axis=d)
        np.testing.assert_array_equal(compact[name].numpy(), wanted)
    result.save(tmp_path / "artifact")
    loaded = prunec.load(tmp_path / "artifact")
    assert loaded.module is not None
    loaded.module.load_state_dict(compact)
    for expected, found in zip(module(*inputs), loaded.module(*inputs), strict=True):
        torch.testing.assert_close(found, expected)
    assert loaded.kept.keys() == result.kept.keys()
    for name, axes in result.kept.items():
        assert listed(loaded.kept[name]) == listed(axes)


# ---------------------------------------------------------------------- the proof can fail


@pytest.mark.parametrize("silent", [False, True])
def test_picks_that_do_not_follow_are_found(silent: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Readers whose weights are zero say nothing by themselves; the proof gives them others."""
    torch.manual_seed(0)
    model = Between(wide=8)
    if silent:
        for layer in (model.a, model.b):
            nn.init.zeros_(layer.weight)
    state = keeping(of(model, 2, 3, 4, 4), (1, 3, 6), (2, 3, 4))
    right = _Search.reordering

    def wrong(search: _Search) -> Reordering:
        found = right(search)
        return replace(found, picks={name: (d, positions[::-1]) for name, (d, positions) in found.picks.items()})

    monkeypatch.setattr(_Search, "reordering", wrong)
    state.graph = Reorder().run(state)
    with pytest.raises(VerificationError, match="differs"):
        Verify().run(state)


def test_a_weight_that_does_not_follow_is_found() -> None:
    torch.manual_seed(0)
    state = keeping(of(Between(wide=8), 2, 3, 4, 4), (1, 3, 6), (2, 3, 4))
    state.graph = Reorder().run(state)
    order = reordering(state)
    name = next(name for name in order.constants if "weight" in name and "stem" in name)
    value = next(v for v in state.graph.constants if v.name == name)
    back = tuple(None if axis is None else np.argsort(axis) for axis in order.constants[name])
    held = state.graph.constants[value]
    held.data = arrays.keep(held.data, back)
    with pytest.raises(VerificationError, match="differs"):
        Verify().run(state)


def test_the_pass_wants_a_compact_graph() -> None:
    with pytest.raises(UsageError, match="'reorder' requires 'compact'"):
        compiled(stream(), "score{method=random},reorder")
    with pytest.raises(UsageError, match="'reorder' cannot follow a pass that ensures order"):
        compiled(stream(), NAIVE.format(ratio=0.3) + ",reorder,reorder")


def test_the_recipe_is_exact() -> None:
    model, inputs = float_stream()
    result = prunec.compile(model, inputs, ROOT / "recipes" / "upscale.toml", measure=False)
    assert result.report["verify"]["ok"]
    assert any(note.startswith("reorder: ") for note in result.report["notes"])


@pytest.mark.parametrize(("examples", "memory", "views"), [
    (1, torch.contiguous_format, True), (1, torch.channels_last, False), (2, torch.contiguous_format, False),
])  # fmt: skip
def test_layout_leaves_views_to_reorder(examples: int, memory: torch.memory_format, views: bool) -> None:
    """Where a copy is dear, layers pick what a slice reads in place, and read everything where a slice is a copy."""
    torch.manual_seed(0)
    model = Between(wide=16)
    model.stem = nn.Conv2d(3, 16, 3, padding=1)  # memory of a 1x1 kernel is in any order
    model.eval().to(memory_format=memory)
    inputs = (torch.randn(examples, 3, 4, 4),)
    graph = canonical(read(model, inputs)[0] if examples == 1 else read(torch.export.export(model, inputs), None)[0])
    target = replace(find_target("torch-cpu"), channel_block=1, ns_per_byte=1e3, ns_per_node=0.0)
    pipeline = FREE.format(ratio=0.5, layout="copies=cheapest,align=1,then=reorder") + ",eliminate,reorder,verify"
    state = State(graph, graph, target)
    Runner(ensured={"canonical"}).run(Recipe.parse(pipeline), state)
    assert takes(state.graph) == 0
    assert any(n.op == "slice" for n in state.graph.nodes) == views


def test_nothing_is_weighed_where_nothing_is_chosen() -> None:
    with pytest.raises(UsageError, match=r"layout\{then\} weighs nothing with copies=naive"):
        Layout(copies="naive", then="reorder")


# ---------------------------------------------------------------------- pieces of a concatenation


class Three(nn.Module):
    """Three branches, concatenated; three layers read that."""

    def __init__(self) -> None:
        super().__init__()
        self.p, self.q, self.r = (nn.Conv2d(3, 4, 1) for _ in range(3))
        self.a, self.b, self.c = (nn.Conv2d(12, 8, 1) for _ in range(3))

    def forward(self, x: Tensor) -> Any:
        y = torch.cat([self.p(x), self.q(x), self.r(x)], 1)
        return self.a(y), self.b(y), self.c(y)


def three() -> ModelProto:
    nodes = [node("Conv", f"x {name}", f"h{name}") for name in "pqr"]
    nodes.append(node("Concat", "hp hq hr", "h", axis=1))
    nodes += [node("Conv", f"h {name}", out) for name, out in zip("abc", "yzw", strict=True)]
    weights = {**{name: weight(4, 3, 1, 1) for name in "pqr"}, **{name: weight(8, 12, 1, 1) for name in "abc"}}
    model = build(nodes, weights, {"x": ("N", 3, 4, 4)})
    for name in "zw":
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    return model


@pytest.mark.parametrize("dialect", ["fx", "onnx"])
def test_whole_parts_are_concatenated_alone(dialect: str) -> None:
    """A reads the first and the last part, B the second one alone, C everything."""
    torch.manual_seed(0)
    subject = of(Three(), 2, 3, 4, 4) if dialect == "fx" else canonical(from_onnx(three()))
    state = keeping(subject, (0, 1, 2, 3, 8, 9, 10, 11), range(4, 8), range(12))
    assert Verify().run(state)["ok"]
    joins = [len(n.inputs) for n in state.graph.nodes if n.op == "cat"]
    assert (joins, takes(state.graph)) == ([3, 2], 0)
    assert not any(n.op == "slice" for n in state.graph.nodes)


class Odd(Three):
    """Parts that do not stand for themselves in a concatenation."""

    def __init__(self, odd: str) -> None:
        super().__init__()
        self.odd = odd
        self.register_buffer("none", torch.zeros(0))

    def forward(self, x: Tensor) -> Any:
        p, q, r = self.p(x), self.q(x), self.r(x)
        parts = {"half": [p, q.half(), r], "empty": [self.none, p, q, r], "twice": [p, q, p], "returned": [p, q, r]}
        y = torch.cat(parts[self.odd], 1)
        return self.a(y), self.b(y), self.c(y), *([y] if self.odd == "returned" else [])


@pytest.mark.parametrize("odd", ["half", "empty", "twice", "returned"])
@pytest.mark.parametrize(
    "kept", [((0, 1, 2, 3), range(4, 8), (0, 1, 2, 3, 8, 9, 10, 11)), ((0, 2, 5), range(4, 8), (0, 1, 2, 3, 9))]
)
def test_parts_that_are_not_what_they_are_in_a_concatenation(odd: str, kept: Sequence[Sequence[int]]) -> None:
    torch.manual_seed(0)
    model = Odd(odd).eval()
    graph = canonical(read(model, (torch.randn(2, 3, 4, 4),))[0])
    groups = groups_of(graph, "unconstrained")
    chosen = [kept[k % len(kept)] for k, _ in enumerate(groups.groups)]
    state = keeping(graph, *([c for c in each if c < len(g)] for each, g in zip(chosen, groups.groups, strict=True)))
    for step in (None, Reorder(), Split(force=True)):
        state.graph = state.graph if step is None else step.run(state)
        assert Verify().run(state)["ok"]


def test_what_layout_counts_on_must_follow() -> None:
    pipeline = FREE.format(ratio=0.5, layout="copies=cheapest,then=split") + ",eliminate,reorder"
    with pytest.raises(UsageError, match="pass 'layout' counts on 'split', which does not follow"):
        compiled(stream(), pipeline)


def test_a_concatenation_that_nobody_reads_is_gone() -> None:
    torch.manual_seed(0)
    state = keeping(of(Three(), 2, 3, 4, 4), range(4), range(4, 8), range(8, 12))
    assert Verify().run(state)["ok"]
    assert not any(n.op in ("cat", "take", "slice") for n in state.graph.nodes)
