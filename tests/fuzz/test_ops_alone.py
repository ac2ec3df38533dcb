"""Every op declaration alone, in each frontend that can spell it: a small graph, and every unit dropped alone.

The tables say which rules of the generators make an op; the lists must agree with the registry.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping

import pytest

from prunec.ir.frontends import fx_names, onnx_names
from prunec.ir.opset import OPS

from . import onnx_program, onnx_rules, torch_program, torch_rules
from .checks import Checked, OnnxSubject, TorchSubject, every_unit

assert torch_rules and onnx_rules

TORCH = {
    "attention": "packed_attention",
    "attention_grouped": "grouped_attention",
    "baddbmm": "baddbmm",
    "batch_norm": "batch_norm",
    "batch_statistics": "linear_of_standardised_weights",
    "cat": "cat",
    "conv": "conv2d",
    "conv_transpose": "conv_transpose2d",
    "convert": "converted",
    "einsum": "einsum",
    "elementwise": "function",
    "embedding": "embedding",
    "expand": "repeated",
    "fill": "sized",
    "flip": "reordered",
    "fold": "unfolded",
    "gather": "gathered linear",
    "glu": "glu",
    "group_norm": "group_norm",
    "index": "picked",
    "layer_norm": "layer_norm",
    "linear": "linear",
    "linear_t": "addmm",
    "lstm_cell": "cell",
    "matmul": "linear_attention",
    "matvec": "matvec",
    "normalise": "normalised",
    "pad": "pad",
    "permute": "to_sequence",
    "pixel_shuffle": "pixel_shuffle",
    "pixel_unshuffle": "pixel_shuffle",
    "pool": "pool",
    "prelu": "prelu",
    "rank_along": "ranked",
    "recurrent": "recurrent",
    "recurrent_cell": "cell",
    "reduce": "reduced",
    "repeat_each": "repeated",
    "reshape": "flatten",
    "reshape_as": "there_and_back",
    "scan": "ranked",
    "select": "select",
    "slice": "slice",
    "slice_scatter": "in_place",
    "split": "split",
    "stack": "stack",
    "take": "regrouped",
    "tile": "repeated",
    "unbind": "stack",
    "unfold": "unfolded",
    "weight_norm": "linear_of_normalised_weights",
    "windows": "windowed",
    "zeros": "pad",
}
ONNX = {
    "attention": "attention",
    "attention_grouped": "grouped_attention",
    "batch_norm": "batch_norm",
    "cat": "concat",
    "conv": "conv",
    "conv_transpose": "conv_transpose",
    "depth_to_space": "depth_and_space",
    "einsum": "einsum",
    "elementwise": "function",
    "embedding": "indexed",
    "expand": "expand",
    "fill": "sized",
    "gather": "gather_elements linear",
    "group_norm": "group_norm",
    "index": "indexed",
    "layer_norm": "layer_norm",
    "linear": "linear",
    "linear_t": "linear",
    "local_response_norm": "other_norm conv",
    "matmul": "linear_over_steps",
    "normalise": "normalised",
    "pad": "pad",
    "permute": "to_sequence",
    "pixel_shuffle": "depth_and_space",
    "pool": "pool",
    "rank_along": "ranked",
    "recurrent_stacked": "recurrent",
    "reduce": "reduced",
    "reshape": "flatten",
    "scan": "triangle",
    "select": "gather",
    "slice": "slice",
    "space_to_depth": "depth_and_space",
    "split": "split",
    "take": "gather",
    "tile": "tile",
}
MADE_BY_FRONTENDS = {
    "fx": {"attention_grouped", "batch_statistics", "elementwise", "take"},
    "onnx": {"attention_grouped", "embedding", "linear_t", "pixel_shuffle", "select", "take"},
}
"""Ops that a spelling becomes as its attributes say, or that a pass inserts."""
NO_AXES = {"size"}
"""Computes sizes, and is no declaration of axes."""
OF_OTHER_FILES = {
    "activation_quantised",
    "attention_packed",
    "cat_quantised",
    "conv_quantised",
    "elementwise_quantised",
    "layer_norm_of_sum",
    "layer_norm_of_tables",
    "linear_quantised",
    "matmul_quantised",
    "matmul_t",
    "pool_quantised",
    "quantise",
    "quantise_dynamic",
    "softmax_quantised",
}
"""What ONNX Runtime's own tools write: ``test_onnx_quantised`` and ``test_onnx_others`` hold such files."""
_SEEDS = 60


def test_every_spelled_op_has_a_rule() -> None:
    spelled = {"fx": fx_names.NAMES, "onnx": onnx_names.NAMES}
    for dialect, table in (("fx", TORCH), ("onnx", ONNX)):
        named = {spelling.op for spelling in spelled[dialect].values()} | MADE_BY_FRONTENDS[dialect]
        assert named - NO_AXES - OF_OTHER_FILES == set(table)
    assert set(TORCH) | set(ONNX) | OF_OTHER_FILES == set(OPS)


def _torch_subjects(rules: list[str]) -> Iterator[Checked]:
    for seed in range(_SEEDS):
        module, inputs, drawn = torch_program.program(random.Random(seed), rules)
        if set(rules) <= set(drawn):
            yield TorchSubject(module, inputs)


def _onnx_subjects(rules: list[str]) -> Iterator[Checked]:
    for seed in range(_SEEDS):
        model, drawn = onnx_program.program(random.Random(seed), rules)
        if set(rules) <= set(drawn):
            yield OnnxSubject(model)


def _with(op: str, subjects: Iterator[Checked]) -> Checked:
    """The first graph that holds ``op`` and has units."""
    return next(s for s in subjects if any(n.op == op for n in s.graph.nodes) and len(s.groups.prunable))


@pytest.mark.fuzz
@pytest.mark.parametrize("op", sorted(TORCH))
def test_every_unit_of_an_op_alone_in_torch(op: str) -> None:
    assert not every_unit(_with(op, _torch_subjects(TORCH[op].split())))


@pytest.mark.fuzz
@pytest.mark.parametrize("op", sorted(ONNX))
def test_every_unit_of_an_op_alone_in_onnx(op: str) -> None:
    subject = _with(op, _onnx_subjects(ONNX[op].split()))
    assert not every_unit(subject)
    assert not subject.excused


@pytest.mark.parametrize(("rules", "ops"), [(torch_program.RULES, TORCH), (onnx_program.RULES, ONNX)])
def test_the_table_names_rules_that_exist(rules: Mapping[str, object], ops: Mapping[str, str]) -> None:
    assert {name for names in ops.values() for name in names.split()} <= set(rules)
