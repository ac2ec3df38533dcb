"""Ways of wiring a network that once came out wrong: views changed in place, order that matters, sums over what is not
zero, learned positions.  Random graphs found them (``tests/fuzz``)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .models import micro, oracle
from .models.micro import Net
from .models.oracle import EXACT, Subject


def subject(net: nn.Module, *shape: int) -> Subject:
    for part in net.modules():
        micro._unsettle(part)
    return oracle.subject(net.double().eval(), (torch.randn(*shape, dtype=torch.float64),))


def worst(subject: Subject) -> float:
    """The largest error with nothing dropped, and with each unit dropped alone."""
    alone = [gone for u in subject.groups.prunable if subject.leaves_something(gone := [int(u)])]
    assert alone, "nothing goes: this proves nothing"
    return max(subject.error(gone) for gone in [[], *alone])


def held(subject: Subject) -> float:
    """The error of a network that is wired so that nothing may go."""
    assert not subject.groups.prunable.size, "units go: drop them"
    return subject.error([])


@pytest.mark.parametrize(
    "view",
    [
        lambda y: y.movedim(1, 2),
        lambda y: y.moveaxis(0, 1),
        lambda y: y.mT,
        lambda y: y.ravel(),
        lambda y: y.reshape_as(y),
        lambda y: y.tensor_split(2, 2)[0],
    ],
)
def test_what_changes_a_view_changes_the_value(view: Callable[[Tensor], Tensor]) -> None:
    assert worst(changed(view)) < EXACT


@pytest.mark.parametrize(
    "view",
    [
        lambda y: y.unfold(2, 4, 4),
        lambda y: torch.broadcast_tensors(y, y)[1],  # type: ignore[no-untyped-call]
    ],
)
def test_what_changes_a_view_that_holds_everything_changes_the_value(view: Callable[[Tensor], Tensor]) -> None:
    assert held(changed(view)) < EXACT


def changed(view: Callable[[Tensor], Tensor]) -> Subject:
    def run(m: Any, x: Tensor) -> Tensor:
        y = m.a(x)
        view(y).add_(1.0)
        return m.b(torch.tanh(y))  # type: ignore[no-any-return]

    return subject(Net(run, a=nn.Linear(6, 8), b=nn.Linear(8, 4)), 2, 5, 6)


def test_a_batch_norm_whose_result_is_changed_in_place_keeps_its_batch() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        y = m.norm(m.a(x))
        y[:, :3] += 1.0
        return m.b(torch.relu(y))  # type: ignore[no-any-return]

    layers = {"a": nn.Conv2d(3, 8, 3), "norm": nn.BatchNorm2d(8), "b": nn.Conv2d(8, 4, 3)}
    assert worst(subject(Net(run, **layers), 2, 3, 6, 6)) < EXACT


@pytest.mark.parametrize("triangle", [torch.tril, torch.triu])
def test_a_triangle_keeps_its_matrices(triangle: Callable[[Tensor], Tensor]) -> None:
    net = Net(lambda m, x: m.b(triangle(m.a(x))), a=nn.Linear(6, 8), b=nn.Linear(8, 4))
    assert held(subject(net, 2, 5, 6)) < EXACT


class Learned(nn.Module):
    """Learned queries read the input, and then ``through`` mixes them; the mean over queries is what counts."""

    def __init__(self, through: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.through = through
        self.queries = nn.Parameter(torch.randn(1, 4, 6))
        self.a, self.norm, self.b = nn.Linear(6, 6), nn.LayerNorm(6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        q = self.queries.expand(x.shape[0], -1, -1)
        y = q + F.scaled_dot_product_attention(q, x, x)
        return self.b(self.through(self, y).mean(1))  # type: ignore[no-any-return]


def _between(y: Tensor) -> Tensor:
    return y @ (y.mT @ y)


@pytest.mark.parametrize(
    ("through", "queries"),
    [
        (lambda m, y: F.scaled_dot_product_attention(y, y, y), 4),
        (lambda m, y: F.scaled_dot_product_attention(y, y, y, is_causal=True), 0),
        (lambda m, y: _between(m.a(y)), 0),
        (lambda m, y: _between(m.norm(y)), 0),
        (lambda m, y: _between(y + m.a.bias), 0),
    ],
)
def test_learned_queries_are_units_where_they_can_go(through: Callable[[Any, Tensor], Tensor], queries: int) -> None:
    torch.manual_seed(0)
    learned = subject(Learned(through), 2, 5, 6)
    assert (worst(learned) if queries else held(learned)) < EXACT
    assert sum(len(g) for g in learned.groups.groups if ("queries", 1) in g.places) == queries


def test_query_heads_that_share_a_key_head_are_averages_where_they_are_gone() -> None:
    """An attention without queries is no zero: products with it keep its heads."""

    def run(m: Any, x: Tensor) -> Tensor:
        q, k, v = (f(x).unflatten(2, (-1, 2)).transpose(1, 2) for f in (m.q, m.k, m.v))
        y = F.scaled_dot_product_attention(q, k, v, enable_gqa=True).transpose(1, 2).flatten(2)
        return m.out(y @ y.mT)  # type: ignore[no-any-return]

    layers = {"q": nn.Linear(6, 12), "k": nn.Linear(6, 4), "v": nn.Linear(6, 4), "out": nn.Linear(5, 3)}
    assert worst(subject(Net(run, **layers), 2, 5, 6)) < EXACT


@pytest.mark.parametrize("equation", ["bi,bj->bi", "bi,bj->bj"])
def test_a_letter_of_one_factor_alone(equation: str) -> None:
    """Summed over j alone, the second factor has to be zero itself."""

    def run(m: Any, x: Tensor) -> Tensor:
        return m.c(torch.einsum(equation, torch.tanh(m.a(x)), torch.sigmoid(m.b(x))))  # type: ignore[no-any-return]

    layers = {"a": nn.Linear(6, 8), "b": nn.Linear(6, 8), "c": nn.Linear(8, 4)}
    assert worst(subject(Net(run, **layers), 2, 6)) < EXACT


@pytest.mark.parametrize(
    "layer",
    [
        lambda m, y: F.linear(y, torch.sigmoid(m.w)),
        lambda m, y: torch.addmm(m.bias, y, torch.sigmoid(m.w).T),
        lambda m, y: F.conv2d(y[:, :, None, None], torch.sigmoid(m.w)[:, :, None, None]).flatten(1),
    ],
)
def test_weights_that_are_not_zero_keep_what_is_not_zero_either(layer: Callable[[Any, Tensor], Tensor]) -> None:
    parameters = {"w": nn.Parameter(torch.randn(5, 8)), "bias": nn.Parameter(torch.randn(5))}
    net = Net(lambda m, x: m.b(layer(m, torch.sigmoid(m.a(x)))), a=nn.Linear(6, 8), b=nn.Linear(5, 4), **parameters)
    assert worst(subject(net, 2, 6)) < EXACT


def test_as_many_cells_as_projections() -> None:
    """Torch tells a projection by its size alone."""
    run = lambda m, x: m.b(m.recurrent(x)[0])  # noqa: E731
    net = Net(run, recurrent=nn.LSTM(6, 4, proj_size=3, batch_first=True, bidirectional=True), b=nn.Linear(6, 4))
    assert worst(subject(net, 2, 5, 6)) < EXACT


class AnyInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 4)

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.b(torch.relu(self.a(inputs[0])))  # type: ignore[no-any-return]


def test_the_batch_of_inputs_without_names_stays_open() -> None:
    assert [v.dynamic for v in subject(AnyInputs(), 2, 6).graph.inputs] == [{0}]


def test_a_bias_of_one_number_is_not_zero_where_a_feature_is_gone() -> None:
    """ONNX: the number is broadcast; the sum over features would miss it."""
    from .ir.test_onnx_frontend import analysed, build, node, weight

    nodes = [
        node("Gemm", "x w c", "h"),
        node("Einsum", "h h", "s", equation="bi,bj->bi"),
        node("Gemm", "s out c", "y"),
    ]
    weights = {"w": weight(6, 8), "c": weight(1), "out": weight(8, 3)}
    _, groups = analysed(build(nodes, weights, {"x": ("N", 6)}))
    assert groups.prunable.size == 0


def test_zeros_that_two_nodes_cut_differently() -> None:
    """ONNX: each gets a copy of the zeros, and the sizes of one copy are not those of the other."""
    from prunec.ir.emit.onnx import emit
    from prunec.passes.check import broken
    from prunec.passes.rewrite import eliminate

    from .ir.test_onnx_frontend import analysed, build, ints, node, weight

    nodes = [
        node("Shape", "x", "shape"),
        node("ConstantOfShape", "shape", "zeros"),
        node("Slice", "zeros zero three one", "a"),
        node("Slice", "zeros three six one", "b"),
        node("Concat", "b a", "c", axis=1),
        node("MatMul", "c w", "d"),
        node("MatMul", "x u", "e"),
        node("Add", "d e", "y"),
    ]
    numbers = {"zero": ints(0), "one": ints(1), "three": ints(3), "six": ints(6)}
    graph, groups = analysed(build(nodes, {**numbers, "w": weight(6, 3), "u": weight(6, 3)}, {"x": ("N", 6)}))
    assert groups.prunable.size
    for unit in groups.prunable:
        compact = eliminate(groups.analysis, groups.alive(np.asarray([unit])))
        assert not broken(compact, graph)
        emit(compact)


def test_a_weight_repeated_along_learned_positions_is_not_zero_there() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        mixed = m.w.expand(12, 10) @ torch.sigmoid(m.p)
        return F.relu(m.a(x)) @ mixed  # type: ignore[no-any-return]

    parameters = {"w": nn.Parameter(torch.randn(12, 1)), "p": nn.Parameter(torch.randn(10, 4))}
    net = Net(run, a=nn.Linear(6, 12), **parameters)
    assert worst(subject(net, 2, 6)) < EXACT
