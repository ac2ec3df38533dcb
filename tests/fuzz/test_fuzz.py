"""Random graphs of both frontends: whatever is wired to what, and whichever units go, the compact graph is exact.

``pytest -m fuzz`` draws some hundreds and says at its end what they met; ``--fuzz-graphs 5000 --fuzz-seed 1000`` draws
more, and others.  A failure is reduced by hypothesis; its rules and units stand in the message.
"""

from __future__ import annotations

import copy
import random

import numpy as np
import pytest
import torch
from hypothesis import note

from prunec.ir.emit import torch_onnx
from prunec.ir.emit.fx import emit as emit_module
from prunec.ir.errors import ModelError
from prunec.passes.difference import relative_error
from prunec.passes.rewrite import eliminate

from ..models import oracle
from . import onnx_program, onnx_rules, torch_program, torch_rules
from .batches import throw
from .checks import Checked, OnnxSubject, TorchSubject, drop_sets, mistakes
from .onnx_program import session
from .tally import TALLY

assert torch_rules and onnx_rules, "importing them enters their rules"

pytestmark = pytest.mark.fuzz
_ROUNDING = 1e-3


def _holds(subject: Checked, dice: random.Random, drawn: list[str]) -> None:
    TALLY.enter(subject.graph, subject.groups)
    note(f"rules: {', '.join(drawn)}")
    assert not mistakes(subject, dice)
    TALLY.excuse(subject.excused)


def torch_graph(dice: random.Random) -> None:
    module, inputs, drawn = torch_program.program(dice)
    _holds(TorchSubject(module, inputs), dice, drawn)


def onnx_graph(dice: random.Random) -> None:
    model, drawn = onnx_program.program(dice)
    _holds(OnnxSubject(model), dice, drawn)


def torch_graph_as_onnx(dice: random.Random) -> None:
    """The compact module and the ONNX model written from it agree; what the exporter cannot write, it refuses."""
    module, inputs, drawn = torch_program.program(dice)
    note(f"rules: {', '.join(drawn)}")
    inputs = tuple(t.float() for t in inputs)
    subject = oracle.subject(copy.deepcopy(module).float(), inputs)
    gone = list(drop_sets(subject.groups, dice))[-1]
    compact = eliminate(subject.groups.analysis, subject.groups.alive(np.asarray(gone, np.int64)))
    try:
        model = torch_onnx.emit(compact)
    except ModelError:
        return
    expected = [t.numpy() for t in torch.utils._pytree.tree_leaves(oracle.call(emit_module(compact), inputs))]
    feeds = {v.name: t.numpy() for v, t in zip(model.graph.input, inputs, strict=True)}
    assert relative_error(expected, session(model).run(None, feeds)) < _ROUNDING


def test_random_torch_graphs(batch: int) -> None:
    throw(batch, torch_graph)


def test_random_torch_graphs_as_onnx(batch: int) -> None:
    throw(batch, torch_graph_as_onnx, size=2)


def test_random_onnx_graphs(batch: int) -> None:
    throw(batch, onnx_graph)
