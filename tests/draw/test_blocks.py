"""Which nodes are drawn together, and in which colours."""

from __future__ import annotations

from typing import Any

import networkx as nx
import pytest

from prunec.draw.blocks import Picture, picture, short_kind
from prunec.draw.modules import by_module
from prunec.findings import findings
from prunec.passes.target import find_target

from ..models import micro, oracle


def found(name: str) -> dict[str, Any]:
    return findings(oracle.known(name).groups, find_target("generic"))


def drawn(name: str) -> Picture:
    return picture(oracle.known(name).groups, found(name))


def test_a_layer_stands_with_what_follows_it() -> None:
    first, layer, *_, last = drawn("plain").blocks
    assert (first.title, last.title.partition(" ")[0]) == ("input input", "output")
    assert (first.groups, last.groups) == ((), ())
    assert layer.detail == "B×8×4×4 · conv2d batch_norm relu max_pool2d"
    assert [n.op for n in layer.nodes] == ["conv", "batch_norm", "elementwise", "pool"]
    assert (layer.main, [chip.label for chip in layer.chips]) == (0, ["0", "1", "2", "3"])
    assert [chip.groups for chip in layer.chips] == [(0,), (), (), ()]
    assert "its declaration keeps the axis" in layer.chips[2].about
    assert "an input, or a kept axis" in layer.chips[1].about


def test_a_join_is_a_block_of_its_own_and_a_shortcut_a_link() -> None:
    found = drawn("residual")
    join = next(b for b in found.blocks if b.title.startswith("add"))
    before = [found.blocks[k.source] for k in found.links if k.target == join.number]
    assert len(before) == 2
    assert {b.main for b in before} == {join.main}


def test_the_products_of_an_attention_are_one_block() -> None:
    (core,) = (b for b in drawn("matmul_attention").blocks if "softmax" in b.about)
    assert [n.op for n in core.nodes].count("matmul") == 2


@pytest.mark.parametrize("name", sorted(micro.CASES))
def test_every_link_runs_from_a_block_to_a_later_one(name: str) -> None:
    found = drawn(name)
    assert [b.number for b in found.blocks] == list(range(len(found.blocks)))
    assert all(k.source < k.target for k in found.links)
    assert len({(k.source, k.target) for k in found.links}) == len(found.links)
    assert any(b.title.startswith("output") for b in found.blocks)
    few = by_module(found, _names(name), 3)
    assert len(few.blocks) <= len(found.blocks)
    assert all(k.source < k.target for k in few.links)
    assert {k for b in few.blocks for k in b.groups} == {k for b in found.blocks for k in b.groups}


def _names(name: str) -> list[str]:
    return [g.name for g in oracle.known(name).groups.groups]


@pytest.mark.parametrize("name", sorted(micro.CASES))
def test_every_group_is_drawn(name: str) -> None:
    assert {k for b in drawn(name).blocks for k in b.groups} == set(range(len(oracle.known(name).groups.groups)))


def test_modules_become_one_where_there_are_too_many_blocks() -> None:
    whole = drawn("transformer_encoder")
    few = by_module(whole, _names("transformer_encoder"), 6)
    assert len(few.blocks) < len(whole.blocks)
    graph = nx.DiGraph([(k.source, k.target) for k in few.links])
    assert nx.is_directed_acyclic_graph(graph)
    joined = next(b for b in few.blocks if len(b.modules) > 1)
    assert all(chip.label == str(chip.groups[0] + 1) for chip in joined.chips)
    assert by_module(whole, _names("transformer_encoder"), len(whole.blocks)) is whole


def test_kinds_have_short_names() -> None:
    kinds = ["aten._softmax.default", "Conv", "com.microsoft::Gelu", "acme.scale.default"]
    assert [short_kind(k) for k in kinds] == ["softmax", "Conv", "Gelu", "scale"]
