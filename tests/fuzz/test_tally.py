"""The excuse that rounding explains an error is for few graphs."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from onnx import ModelProto, numpy_helper

from prunec.ir.emit.onnx import emit
from prunec.ir.graph import Graph

from ..runtime.onnx_models import layers
from . import checks
from .checks import OnnxSubject, every_unit
from .tally import Tally


@pytest.mark.parametrize(("graphs", "allowed"), [(10, 2), (100, 2), (150, 3), (1000, 20)])
def test_few_graphs_are_excused(graphs: int, allowed: int) -> None:
    tally = Tally(Counter(onnx=graphs - 1, fx=1))
    for _ in range(allowed):
        tally.excuse(3)
        tally.excuse(0)
    with pytest.raises(AssertionError, match=f"rounding is said to explain {allowed + 1} graphs"):
        tally.excuse(1)


def test_an_excuse_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights that are wrong, in a graph that is said to move as far by itself."""
    subject = OnnxSubject(layers(3, 4, 2))
    assert not every_unit(subject) and not subject.excused

    def wrong(graph: Graph) -> ModelProto:
        model = emit(graph)
        tensor = model.graph.initializer[0]
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(2), tensor.name))
        return model

    monkeypatch.setattr(checks, "emit", wrong)
    assert len(every_unit(subject)) == 5 and not subject.excused
    monkeypatch.setattr(OnnxSubject, "_shaky", lambda *given: True)
    assert not every_unit(subject)
    assert vars(subject)["excused"] == 5
