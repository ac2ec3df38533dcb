"""Models in: what example inputs an ONNX model takes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from onnx import ModelProto, TensorProto, helper

import prunec
from prunec.ir.errors import UsageError
from prunec.models import read

from .runtime.onnx_models import finish


def two_inputs() -> ModelProto:
    spec: tuple[int, list[str | int | None]] = (TensorProto.FLOAT, ["n", "t"])
    return finish([helper.make_node("Add", ["b", "a"], ["y"])], {"b": spec, "a": spec}, {"y": spec}, [])


@pytest.mark.parametrize(
    ("given", "shape"),
    [
        ((np.zeros((3, 7), np.float32), np.zeros((3, 7), np.float32)), (3, 7)),
        ([torch.zeros(3, 7), torch.zeros(3, 7)], (3, 7)),
        ({"a": torch.zeros(3, 7), "b": np.zeros((3, 7), np.float32)}, (3, 7)),
        ((torch.zeros(3, 7),), (3, 7)),
        (torch.zeros(3, 7), (3, 7)),
    ],
)
def test_example_inputs_by_name_or_in_order(given: Any, shape: tuple[int, ...]) -> None:
    graph, _ = read(two_inputs(), given)
    assert [v.name for v in graph.inputs] == ["b", "a"]
    assert [v.shape for v in graph.inputs] == [shape, shape]


def test_more_example_inputs_than_the_model_has() -> None:
    with pytest.raises(UsageError, match="3 example inputs, but the model has 2: b, a"):
        read(two_inputs(), (np.zeros((3, 7), np.float32),) * 3)


def test_a_module_without_example_inputs() -> None:
    with pytest.raises(UsageError) as error:
        prunec.analyze(torch.nn.Linear(3, 2))
    assert "--input 1x3x224x224" in error.value.hint
