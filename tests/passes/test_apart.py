"""What is tied by chance alone comes apart: layers of one call, fills, parts of a concatenation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from prunec.ir.emit.fx import emit
from prunec.ir.frontends.fx import export, from_exported
from prunec.ir.graph import Graph
from prunec.passes.apart import fills_apart, picks_apart
from prunec.passes.layers import layers_apart

from ..models import micro, oracle
from ..models.oracle import call, distance, known


def read(run: Any, *inputs: Tensor, **layers: Any) -> tuple[nn.Module, Graph]:
    torch.manual_seed(0)
    module = micro.Net(run, **layers).double().eval()
    return module, from_exported(export(module, inputs, {}))


def same(module: nn.Module, graph: Graph, x: Tensor) -> bool:
    return distance(call(module, (x,)), call(emit(graph), (x,))) < 1e-12


def kinds(graph: Graph, op: str) -> int:
    return sum(n.op == op for n in graph.nodes)


X = torch.randn(2, 5, 6, dtype=torch.float64)


def test_a_call_of_layers_becomes_a_chain() -> None:
    def run(m: Any, x: Tensor) -> Any:
        steps, state = m.r(x)
        return steps, state

    module, graph = read(run, X, r=nn.LSTM(6, 4, num_layers=3, dropout=0.5, batch_first=True, bidirectional=True))
    chain = layers_apart(graph.copy())
    made = [n for n in chain.nodes if n.op == "recurrent"]
    assert [n.attrs["layers"] for n in made] == [1, 1, 1]
    assert [n.kind for n in chain.nodes].count("aten.dropout.default") == 2
    assert kinds(chain, "cat") == 2
    assert kinds(chain, "slice") == 0, "zeros are made anew, not cut"
    assert same(module, chain, X)
    assert same(module, graph, X), "the original is as it was"


@pytest.mark.parametrize(
    ("name", "groups"),
    [
        ("lstm_of_two_layers", [7, 7]),
        ("gru_of_two_layers_that_meet", [7]),
        ("lstm_with_dropout", [5, 6, 6, 6]),
        ("lstm_with_projection", [7, 5, 7, 5]),
        ("learned_initial_state", [6]),
        ("initial_state_of_zeros", [6, 6]),
        ("initial_state_that_is_given", [5]),
        ("lstm_in_both_directions", [5, 6]),
    ],
)
def test_each_layer_has_a_width_of_its_own_unless_they_meet(name: str, groups: list[int]) -> None:
    assert sorted(map(len, known(name).groups.groups)) == sorted(groups)


def test_parts_that_are_picked_leave_the_others_alone() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        joined = torch.cat([m.a(x), m.b(x)], 1)
        return m.c(joined[:, 7]) + m.c(joined[:, 1:3].sum(1))  # type: ignore[no-any-return]

    layers = {"a": nn.Linear(6, 4), "b": nn.Linear(6, 4), "c": nn.Linear(4, 3)}
    module, graph = read(run, X, **layers)
    apart = picks_apart(graph.copy())
    assert kinds(apart, "cat") == 0
    (select,) = (n for n in apart.nodes if n.op == "select")
    assert select.attrs["index"] == 2
    assert same(module, apart, X)


def test_a_pick_across_parts_stays() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        joined = torch.cat([m.a(x), m.a(x.flip(1))], 1)
        return joined[:, 3:7] + joined[:, :, :2].sum()

    module, graph = read(run, X, a=nn.Linear(6, 4))
    apart = picks_apart(graph.copy())
    assert kinds(apart, "cat") == 1
    assert same(module, apart, X)


def test_each_reader_of_a_fill_gets_its_own() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        state = x.new_zeros(1, x.shape[0], 4)
        return m.b(m.a(x, state)[0], state)[0] + m.c(x, state[:, :, :4])[0]  # type: ignore[no-any-return]

    layers = {name: nn.GRU(i, 4, batch_first=True) for name, i in (("a", 6), ("b", 4), ("c", 6))}
    module, graph = read(run, X, **layers)
    apart = fills_apart(graph.copy())
    readers = apart.consumers()
    assert (kinds(graph, "zeros"), kinds(apart, "zeros")) == (1, 3)
    assert all(len(readers[n.output]) == 1 for n in apart.nodes if n.op == "zeros")
    assert same(module, apart, X)


def test_copies_of_what_moves_a_fill_get_fills_of_their_own() -> None:
    """Two layers read one part of the state: the part is copied, and so is the state that it reads."""

    def run(m: Any, x: Tensor) -> Tensor:
        part = x.new_zeros(2, x.shape[0], 4)[:1]
        return m.b(m.a(x, part)[0], part)[0]  # type: ignore[no-any-return]

    layers = {name: nn.GRU(i, 4, batch_first=True) for name, i in (("a", 6), ("b", 4))}
    module, graph = read(run, X, **layers)
    apart = fills_apart(graph.copy())
    assert (kinds(apart, "zeros"), kinds(apart, "slice")) == (2, 2)
    assert all(len(found) == 1 for value, found in apart.consumers().items() if "zeros" in value.name)
    assert same(module, apart, X)


def test_fixed_zeros_come_apart_too() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        state = torch.zeros(1, 2, 6, dtype=x.dtype)
        return m.b(m.a(x, state)[0], state)[0]  # type: ignore[no-any-return]

    torch.manual_seed(0)
    module = micro.Net(run, a=nn.GRU(6, 6), b=nn.GRU(6, 6)).double()
    subject = oracle.subject(module, (torch.randn(5, 2, 6, dtype=torch.float64),))
    assert sorted(map(len, subject.groups.groups)) == [6]  # the second is the output
    assert subject.error(subject.groups.prunable[1:3]) < oracle.EXACT
