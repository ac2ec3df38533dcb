"""Unconstrained groups: each layer keeps channels of its own, and what comes out equals the network masked so."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto
from torch import Tensor, nn

import prunec
from prunec.ir.errors import UsageError
from prunec.ir.frontends.onnx import from_onnx
from prunec.passes import soft_edges as soft_edges_module
from prunec.passes.base import State
from prunec.passes.canonicalize import canonical
from prunec.passes.eliminate import Eliminate
from prunec.passes.groups import groups_of
from prunec.passes.layout import Layout
from prunec.passes.meter import Meter
from prunec.passes.plan.plan import Plan
from prunec.passes.runner import Runner
from prunec.passes.soft_edges import soft_edges
from prunec.passes.target import find_target
from prunec.passes.verify import Verify
from prunec.recipe import Recipe

from ..ir.test_onnx_frontend import build, node, weight
from ..models import micro, oracle

FREE = "score{{method=random}},groups{{mode=unconstrained}},plan{{ratio={ratio},align=1,floor=0}},layout{{{layout}}}"
PROVED = FREE + ",eliminate,fold,verify"


class Stream(nn.Module):
    """A residual stream with three readers, each with a norm of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.a, self.b, self.c = (
            nn.Sequential(nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, n, 1)) for n in (24, 16, 8)
        )
        self.back = nn.Conv2d(24, 16, 1)

    def forward(self, x: Tensor) -> Any:
        y = self.stem(x)
        y = y + self.back(self.a(y).relu())
        return self.b(y), self.c(y)


def stream() -> oracle.Subject:
    torch.manual_seed(0)
    model = Stream()
    for part in model.modules():
        micro._unsettle(part)
    return oracle.subject(model.double().eval(), (torch.randn(2, 3, 6, 6, dtype=torch.float64),))


def compiled(subject: oracle.Subject, pipeline: str) -> State:
    state = State(subject.graph, subject.graph, find_target("generic"))
    Runner(ensured={"canonical"}).run(Recipe.parse(pipeline), state)
    return state


def picks(state: State) -> int:
    return sum(n.op in ("take", "slice") for n in state.graph.nodes)


@pytest.mark.parametrize("name", sorted(micro.CASES))
@pytest.mark.parametrize("layout", ["copies=forbid,restore=none", "copies=naive"])
def test_every_family_is_exact(name: str, layout: str) -> None:
    state = compiled(oracle.subject(*micro.build(name)), PROVED.format(ratio=0.4, layout=layout))
    assert state.facts["verified"]["ok"]


def test_readers_choose_and_makers_follow() -> None:
    groups = groups_of(stream().graph, "unconstrained")
    assert [e.reader.name for e in soft_edges(groups.analysis)] == ["conv2d_1", "add", "conv2d_3", "conv2d_4"]
    assert sorted(len(g) for g in groups.groups) == [16, 16, 16, 24]
    stem, back = sorted(groups.derived, key=lambda g: g.name, reverse=True)
    assert (stem.name, len(stem)) == ("stem.weight:0", 16)
    assert (back.name, len(back)) == ("back.weight:0", 16)
    early, *late = (g for g in groups.groups if len(g) == 16)
    alive = groups.all_alive()
    assert groups.cost.params(groups.alive(np.array([early.units[3]]))) < groups.cost.params(alive)
    gone = groups.analysis.solution.soft
    assert gone is not None
    third = [g.units[3] for g in (*late, early)]
    mask = np.zeros(groups.analysis.solution.units, np.int32)
    mask[third[:1]] = 1
    assert not gone.settled(mask)[[*stem.units, *back.units]].any(), "two readers are left"
    mask[third[:2]] = 1
    assert not gone.settled(mask)[stem.units].any(), "the early reader is left"
    assert gone.settled(mask)[back.units].tolist() == [int(k == 3) for k in range(16)], "it has left the stream"
    mask[third] = 1
    assert gone.settled(mask)[stem.units].tolist() == [int(k == 3) for k in range(16)]


def test_a_channel_leaves_a_stream_after_its_last_reader() -> None:
    """Only the early reader has the first eight channels: what is added later does not make them."""
    groups = groups_of(stream().graph, "unconstrained")
    _, *late = (g for g in groups.groups if len(g) == 16)
    plan = Plan({g.name: tuple(range(8)) for g in late}, {g.name: len(g) for g in groups.groups}, {}, {})
    plan = replace(plan, mode="unconstrained")
    for layout, made in (("naive", 8), ("forbid", 16)):
        state = State(stream().graph, stream().graph, find_target("generic"), facts={"groups": groups, "plan": plan})
        state.facts["scores"] = np.ones(groups.analysis.solution.units)
        state.facts["plan"] = Layout(copies=layout, align=1, restore="none").run(state)  # type: ignore[arg-type]
        graph = Eliminate().run(state)
        widths = {c.name: c.data.shape for c in graph.constants.values()}
        assert (widths["stem.weight"][0], widths["back.weight"][0]) == (16, made)
        state.graph = graph
        assert Verify().run(state)["ok"]


class Twice(nn.Module):
    """One convolution used twice along a stream: through the joins it would read what lives through itself."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.again, self.head = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 8, 1)
        self.between, self.other = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 8, 1)

    def forward(self, x: Tensor) -> Any:
        y = self.stem(x)
        y = y + self.again(y.relu())
        y = y + self.between(y.relu())
        y = y + self.again(y.relu())
        return self.head(y), self.other(y)


def test_joins_of_a_ring_give_way_before_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    subject = oracle.subject(Twice().double().eval(), (torch.randn(2, 3, 6, 6, dtype=torch.float64),))

    def readers() -> set[str]:
        edges = soft_edges(groups_of(subject.graph, "unconstrained").analysis)
        return {e.name for e in edges if e.reader.op == "conv"}

    found = readers()
    with monkeypatch.context() as patch:
        patch.setattr(soft_edges_module, "_joins", lambda analysis: iter(()))
        assert readers() == found != set()
    for layout in ("copies=naive", "copies=forbid,restore=none", "copies=cheapest"):
        assert compiled(subject, PROVED.format(ratio=0.4, layout=layout)).facts["verified"]["ok"]


def test_a_stream_under_a_layer_norm_keeps_its_channels_together() -> None:
    graph = oracle.subject(*micro.build("transformer_encoder")).graph
    assert not any(e.reader.op == "elementwise" for e in soft_edges(groups_of(graph, "unconstrained").analysis))


def test_a_channel_that_one_layer_reads_is_decided_by_both_ends() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1)).double()
    graph = oracle.subject(model.eval(), (torch.randn(2, 3, 6, 6, dtype=torch.float64),)).graph
    free, tied = groups_of(graph, "unconstrained"), groups_of(graph)
    assert not soft_edges(free.analysis)
    assert [g.name for g in free.groups] == [g.name for g in tied.groups]


def test_nothing_is_copied_where_that_is_forbidden() -> None:
    naive = compiled(stream(), PROVED.format(ratio=0.5, layout="copies=naive,align=1"))
    assert picks(naive) == 4
    forbidden = compiled(stream(), PROVED.format(ratio=0.5, layout="copies=forbid,align=1,restore=none"))
    assert picks(forbidden) == 0
    assert forbidden.facts["plan"].dropped == naive.facts["plan"].dropped
    restored = compiled(stream(), PROVED.format(ratio=0.5, layout="copies=forbid,align=1,restore=all"))
    assert picks(restored) == 0
    sizes = [sum(c.data.numel() for c in s.graph.constants.values()) for s in (forbidden, restored)]
    assert sizes[0] == sizes[1], "weights that come back cost nothing"
    assert sum(map(len, restored.facts["plan"].dropped.values())) < sum(map(len, naive.facts["plan"].dropped.values()))


def test_what_is_made_comes_in_blocks() -> None:
    state = compiled(stream(), PROVED.format(ratio=0.6, layout="copies=forbid,align=8,restore=alignment"))
    stem = next(c for c in state.graph.constants.values() if c.name == "stem.weight")
    assert stem.data.shape[0] in (8, 16)


@pytest.mark.parametrize("seed", range(3))
def test_a_meter_follows_what_nobody_reads(seed: int) -> None:
    groups = groups_of(stream().graph, "unconstrained")
    rng = np.random.default_rng(seed)
    parts = np.array_split(rng.permutation(groups.prunable), 5)
    meter, gone = Meter(groups, ("macs", "params"), parts[0]), list(parts[0])

    def whole() -> dict[str, float]:
        alive = groups.alive(np.array(gone))
        return {"macs": groups.cost.macs(alive), "params": groups.cost.params(alive)}

    assert meter.totals == whole()
    for part in parts[1:4]:
        meter.drop(part)
        gone += list(part)
        assert meter.totals == whole()
    for part in parts[1:3]:
        meter.take_back(part)
        gone = [u for u in gone if u not in set(part)]
        assert meter.totals == whole()


def test_a_plan_keeps_a_reader_of_everything_that_is_made() -> None:
    """Of two parts that are concatenated neither may vanish, though no layer has units of one alone."""

    class Joined(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.p, self.q = nn.Linear(6, 8), nn.Linear(6, 8)
            self.a, self.b = nn.Linear(16, 4), nn.Linear(16, 4)
            nn.init.constant_(self.a.weight[:, 8:], 1e-6)
            nn.init.constant_(self.b.weight[:, 8:], 1e-6)

        def forward(self, x: Tensor) -> Any:
            y = torch.cat([self.p(x).relu(), self.q(x).relu()], 1)
            return self.a(y), self.b(y)

    with torch.no_grad():
        subject = oracle.subject(Joined().double().eval(), (torch.randn(2, 6, dtype=torch.float64),))
    pipeline = PROVED.format(ratio=0.7, layout="copies=naive").replace("method=random", "method=l2")
    state = compiled(subject, pipeline)
    shapes = {c.name: tuple(c.data.shape) for c in state.graph.constants.values()}
    assert shapes["q.weight"][0] == 1
    assert state.facts["verified"]["ok"]


def test_layout_without_soft_edges_says_so() -> None:
    state = compiled(stream(), "score{method=random},plan{ratio=0.5,align=1},layout,eliminate,verify")
    assert any(note.startswith("layout: no layer chooses channels of its own: add groups") for note in state.notes)


def test_a_file_says_how_it_was_laid_out(tmp_path: Any, onnx_stream: ModelProto) -> None:
    onnx.save(onnx_stream, tmp_path / "dense.onnx")
    pipeline = PROVED.format(ratio=0.5, layout="copies=forbid,restore=none")
    result = prunec.compile(tmp_path / "dense.onnx", pipeline=pipeline, measure=False)
    onnx.save(result.onnx, tmp_path / "compact.onnx")
    assert result.plan is not None
    assert result.plan.mode == "unconstrained"
    assert Plan.from_json(result.plan.to_json()) == result.plan
    assert prunec.verify(tmp_path / "dense.onnx", tmp_path / "compact.onnx")["ok"]


@pytest.fixture
def onnx_stream() -> ModelProto:
    torch.manual_seed(0)
    model = Stream()
    for part in model.modules():
        micro._unsettle(part)
    return prunec.compile(model.eval(), (torch.randn(2, 3, 6, 6),), "score,plan{ratio=0},eliminate", measure=False).onnx


def test_options_that_make_no_sense() -> None:
    with pytest.raises(UsageError, match=r"layout\{copies\} cannot be 'no'"):
        Recipe.parse("layout{copies=no}")
    with pytest.raises(UsageError, match=r"layout\{align\} cannot be 0"):
        Layout(align=0)


# ---------------------------------------------------------------------- neighbours


def two_readers(opset: int) -> ModelProto:
    nodes = [
        node("Conv", "x a", "h"),
        node("Relu", "h", "r"),
        node("Conv", "r b", "y"),
        node("Conv", "r c", "z"),
    ]
    weights = {"a": weight(16, 3, 1, 1), "b": weight(8, 16, 1, 1), "c": weight(8, 16, 1, 1)}
    model = build(nodes, weights, {"x": ("N", 3, 4, 4)}, opset=opset)
    model.graph.output.append(onnx.helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, None))
    return model


@pytest.mark.parametrize("opset", [9, 17])
def test_neighbours_are_cut_out(opset: int) -> None:
    graph = canonical(from_onnx(two_readers(opset)))
    groups = groups_of(graph, "unconstrained")
    dropped = {g.name: tuple(range(k * 8, k * 8 + 6)) for k, g in enumerate(groups.groups)}
    sizes = {g.name: len(g) for g in groups.groups}
    state = State(graph, graph, find_target("generic"), facts={"groups": groups})
    state.facts["plan"] = Plan(dropped, sizes, {}, {}, "unconstrained")
    state.graph = Eliminate().run(state)
    assert [n.kind for n in state.graph.nodes if n.op in ("slice", "take")] == ["Slice", "Gather"]
    assert Verify().run(state)["ok"]


@pytest.mark.parametrize(("first", "second"), [((0, 1, 2), (2, 3, 4)), ((2, 3, 4), (0, 3, 7)), ((1, 2), (1, 2))])
def test_two_slices_of_one_value(first: tuple[int, ...], second: tuple[int, ...]) -> None:
    graph = canonical(from_onnx(two_readers(17)))
    groups = groups_of(graph, "unconstrained")
    dropped = {
        g.name: tuple(k for k in range(16) if k not in (*kept, 9))
        for g, kept in zip(groups.groups, (first, second), strict=True)
    }
    state = State(graph, graph, find_target("generic"), facts={"groups": groups})
    state.facts["plan"] = Plan(dropped, {g.name: 16 for g in groups.groups}, {}, {}, "unconstrained")
    state.graph = Eliminate().run(state)
    assert Verify().run(state)["ok"]


class Shared(nn.Module):
    """One head over two streams, each of which another layer reads as well."""

    def __init__(self) -> None:
        super().__init__()
        self.p, self.q = nn.Linear(6, 16), nn.Linear(6, 16)
        self.head, self.a, self.b = nn.Linear(16, 4), nn.Linear(16, 4), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Any:
        u, v = self.p(x).relu(), self.q(x).relu()
        return self.head(u), self.head(v), self.a(u), self.b(v)


class TwoLetters(nn.Module):
    """A layer that sums over two axes, beside another one."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 8)
        self.second, self.third = nn.Parameter(torch.randn(5, 4, 8)), nn.Parameter(torch.randn(5, 4, 8))
        self.rows = nn.Parameter(torch.randn(4, 3))

    def forward(self, x: Tensor) -> Any:
        h = torch.einsum("bnf,rn->brf", self.first(x).relu(), self.rows)
        return torch.einsum("bij,oij->bo", h, self.second), torch.einsum("bij,oij->bo", h, self.third)


class Ring(nn.Module):
    """Two streams, each written by the transpose of what reads the other: both would keep each other alive."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(6, 8)
        self.one, self.other = nn.Parameter(torch.randn(8, 8)), nn.Parameter(torch.randn(8, 8))
        self.left, self.right = nn.Linear(8, 4), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Any:
        a, b = self.a(x).relu(), self.b(x).relu()
        b = b + a @ self.one
        a = a + b @ self.other
        return self.left(a), self.right(b), b @ self.one.t(), a @ self.other.t()


ODD = {
    "shared": (Shared, (2, 6)),
    "two_letters": (TwoLetters, (2, 3, 6)),
    "ring": (Ring, (2, 6)),
}


@pytest.mark.parametrize("layout", ["copies=forbid,restore=none", "copies=forbid", "copies=naive", "copies=cheapest"])
@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("seed", range(3))
def test_odd_sharing_is_exact(name: str, layout: str, seed: int) -> None:
    torch.manual_seed(seed)
    make, shape = ODD[name]
    subject = oracle.subject(make().double().eval(), (torch.randn(shape, dtype=torch.float64),))
    assert groups_of(subject.graph, "unconstrained").all_alive().all()
    state = State(subject.graph, subject.graph, find_target("generic"), seed)
    Runner(ensured={"canonical"}).run(Recipe.parse(PROVED.format(ratio=0.6, layout=layout)), state)
    assert state.facts["verified"]["ok"]
    if "forbid" in layout:
        assert picks(state) == 0


@pytest.mark.parametrize("layout", ["copies=forbid,restore=none", "copies=forbid", "copies=naive"])
def test_a_plan_says_what_the_compact_network_costs(layout: str) -> None:
    state = compiled(stream(), PROVED.format(ratio=0.5, layout=layout))
    plan, groups = state.facts["plan"], state.facts["groups"]
    left = sum(c.data.numel() for c in state.graph.constants.values() if c.role == "parameter")
    assert plan.reached["params"] == left / groups.cost.params(groups.all_alive())


@pytest.mark.parametrize("copies", ["forbid", "naive"])
def test_blocks_stay_blocks_once_readers_got_more(copies: str) -> None:
    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.back = nn.Conv2d(3, 64, 1), nn.Conv2d(64, 64, 1)
            self.a, self.b = nn.Conv2d(64, 64, 1), nn.Conv2d(64, 4, 1)

        def forward(self, x: Tensor) -> Any:
            y = self.stem(x)
            y = y + self.back(self.a(y).relu())
            return self.b(y)

    subject = oracle.subject(Wide().double().eval(), (torch.randn(2, 3, 4, 4, dtype=torch.float64),))
    state = compiled(subject, PROVED.format(ratio=0.4, layout=f"copies={copies},align=16"))
    made = {c.name: c.data.shape[0] for c in state.graph.constants.values() if c.name.endswith("weight")}
    assert {made[f"{layer}.weight"] % 16 for layer in ("stem", "back", "a")} == {0}


class OddHalves(nn.Module):
    """Halves of a shuffled stream, in layers that ONNX Runtime leaves in plain order (42 is no multiple of 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 84, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(42, 42, 1), nn.ReLU(), nn.Conv2d(42, 42, 3, padding=1, groups=42), nn.Conv2d(42, 42, 1)
            )
            for _ in range(2)
        )
        self.a, self.b = nn.Conv2d(84, 16, 1), nn.Conv2d(84, 16, 1)

    def forward(self, x: Tensor) -> Any:
        y = self.stem(x)
        for block in self.blocks:
            left, right = y.chunk(2, dim=1)
            y = torch.cat([left, block(right)], dim=1)
            y = y.view(-1, 2, 42, 8, 8).transpose(1, 2).reshape(-1, 84, 8, 8)
        return self.a(y) * self.b(y).sigmoid()


def test_what_is_in_plain_order_stays_so_where_copies_are_forbidden() -> None:
    torch.manual_seed(0)
    pipeline = (
        "score{method=random},groups{mode=unconstrained},plan{ratio=0.4,floor=0},layout{copies=forbid},eliminate,fold"
    )
    result = prunec.compile(OddHalves().eval(), (torch.randn(1, 3, 8, 8),), pipeline)
    assert result.module is not None
    inner = [c.shape[0] for name, c in result.module.state_dict().items() if name.endswith("blocks.0.2.weight")]
    assert inner[0] < 42 and inner[0] % 4 == 2
    assert result.report["copies"] == 0


def test_names_that_are_taken() -> None:
    model = two_readers(17)
    for n in model.graph.node:
        n.name = {"y": "B", "z": "B_reads"}.get(n.output[0], n.output[0])
    result = prunec.compile(model, pipeline=PROVED.format(ratio=0.4, layout="copies=naive"), measure=False)
    assert result.report["verify"]["ok"]


def test_groups_cannot_change_under_a_plan() -> None:
    with pytest.raises(UsageError, match="pass 'groups' cannot follow a pass that ensures plan, scores"):
        compiled(stream(), "groups,score,plan{ratio=0.5},groups{mode=unconstrained},layout,eliminate")


def test_units_under_norms_are_counted_though_nobody_chooses_them() -> None:
    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.norm = nn.Linear(6, 16), nn.LayerNorm(16)
            self.a, self.b = nn.Linear(16, 4), nn.Linear(16, 4)

        def forward(self, x: Tensor) -> Any:
            y = self.norm(self.stem(x))
            return self.a(y), self.b(y)

    subject = oracle.subject(Normed().double().eval(), (torch.randn(2, 6, dtype=torch.float64),))
    state = compiled(subject, PROVED.format(ratio=0.4, layout="copies=naive"))
    assert state.facts["verified"]["norm_tied"] == 16
