"""The printed form of a graph: stable, and complete enough to read."""

from __future__ import annotations

import torch
from torch import nn

from prunec.ir.frontends.fx import export, from_exported
from prunec.ir.graph import Graph, Node, Value
from prunec.ir.printer import print_graph

from ..models import micro, oracle

CONV = """\
graph fx {
  %x: float64[2*,3,8,8] = input
  %p_0_weight: float64[4,3,3,3] = parameter "0.weight"
  %p_0_bias: float64[4] = parameter "0.bias"
  %p_1_weight: float64[4] = parameter "1.weight"
  %p_1_bias: float64[4] = parameter "1.bias"
  %b_1_running_mean: float64[4] = buffer "1.running_mean"
  %b_1_running_var: float64[4] = buffer "1.running_var"
  %b_1_num_batches_tracked: int64[] = buffer "1.num_batches_tracked"
  %conv2d: float64[2*,4,6,6] = conv(%x, %p_0_weight, %p_0_bias) {groups=1, padded=False}
  %batch_norm: float64[2*,4,6,6] = batch_norm(%conv2d, %p_1_weight, %p_1_bias, %b_1_running_mean, %b_1_running_var) {eps=1e-05}
  return %batch_norm
}
"""  # noqa: E501


def test_a_convolution() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).double()
    printed = print_graph(from_exported(export(model, (torch.randn(2, 3, 8, 8).double(),), {})))
    assert printed.replace("%input_1", "%input").replace("%input", "%x") == CONV


def test_ties_absent_operands_and_opaque_ops_show() -> None:
    tied = print_graph(oracle.known("tied_embedding").graph)
    assert '= parameter "embedding.weight" = "head.weight"' in tied
    assert "linear(%add, %p_embedding_weight, none)" in tied
    assert "opaque[prunec_tests.twice.default](%relu)" in print_graph(oracle.known("custom_op").graph)


def test_long_attributes_are_cut_and_floats_are_short() -> None:
    x, y = Value("x", (20,)), Value("y", (20,))
    attrs = {"indices": tuple(range(20)), "scale": 1 / 3, "none": None, "few": (1, 2)}
    graph = Graph("fx", [x], [y], [Node("y", "take", (x, None), (y,), attrs)], {})
    assert print_graph(graph).splitlines()[2] == (
        "  %y: float32[20] = take(%x, none) {few=(1, 2), indices=(0, 1, 2, 3, 4, 5, 6, 7, … 20 in all), "
        "none=none, scale=0.333333}"
    )
    unknown = Value("u", None, "symint")
    assert "%u: symint = input" in print_graph(Graph("fx", [unknown], [], [], {}))


def test_printing_twice_gives_the_same() -> None:
    for name in ("unet", "grouped_query_decoder"):
        first, second = (print_graph(oracle.subject(*micro.build(name)).graph) for _ in range(2))
        assert first == second
