"""What remains of a network: the analysis of the compact graph under the numbers of the whole."""

from __future__ import annotations

import numpy as np
import pytest

import prunec
from prunec.ir.axes import pinned
from prunec.ir.frontends.onnx import from_onnx
from prunec.passes.base import State
from prunec.passes.canonicalize import canonical
from prunec.passes.groups import Groups, groups_of
from prunec.passes.remaining import remaining
from prunec.passes.rewrite import mask
from prunec.passes.score.l1 import l1
from prunec.passes.score.scoring import Scoring
from prunec.passes.target import find_target

from ..models import oracle
from .test_layout import stream

FAMILIES = (
    "plain", "residual", "channel_shuffle", "dense_concat", "packed_attention", "grouped_query_decoder", "group_norm",
    "layer_norm", "uneven_split", "gru_in_both_directions", "standardised_weights", "global_response_norm",
    "index_of_channels",
)  # fmt: skip


def half(groups: Groups) -> np.ndarray:
    """Half of each group's units."""
    rng = np.random.default_rng(0)
    return np.concatenate([rng.permutation(g.units)[: len(g) // 2] for g in groups.groups] or [np.zeros(0, np.int64)])


def check(groups: Groups, dropped: np.ndarray) -> None:
    """Shapes, costs and weights are those of the whole without ``dropped``."""
    left, alive = remaining(groups, dropped), groups.alive(dropped)
    analysis = left.analysis
    for value in analysis.graph.values():
        axes = analysis.axes[value]
        assert axes is None or [len(a) for a in axes] == list(value.shape or ()), value
    everything = left.all_alive()
    for name in ("macs", "params"):
        assert getattr(left.cost, name)(everything) == getattr(groups.cost, name)(alive)
    np.testing.assert_array_equal(left.prunable, np.setdiff1d(groups.prunable, dropped))
    assert [g.name for g in left.groups] == [g.name for g in groups.groups]
    oracle_graph = mask(groups.analysis, alive)
    indices = {v: [pinned(d) for d in v.shape or ()] for v in oracle_graph.constants if v not in groups.analysis.axes}
    masked = Groups(groups.analysis.over(oracle_graph, indices), groups.groups, groups.group_of, groups.mode)
    expected, found = (l1(Scoring(g, _state(g))) for g in (masked, left))
    np.testing.assert_allclose(found[left.prunable], expected[left.prunable])


def _state(groups: Groups) -> State:
    graph = groups.analysis.graph
    return State(graph, graph, find_target("generic"), facts={"groups": groups})


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family(name: str) -> None:
    groups = oracle.known(name).groups
    check(groups, half(groups))


def test_nothing_is_dropped() -> None:
    groups = oracle.known("plain").groups
    assert remaining(groups, np.zeros(0, np.int64)) is groups


def test_layers_with_channels_of_their_own() -> None:
    groups = groups_of(stream().graph, "unconstrained")
    check(groups, half(groups))


def test_an_onnx_graph() -> None:
    """Sizes in constants are written anew."""
    subject = oracle.known("packed_attention")
    model = prunec.compile(subject.module, subject.inputs, ratio=0, measure=False).onnx
    groups = groups_of(canonical(from_onnx(model, None)))
    check(groups, half(groups))
