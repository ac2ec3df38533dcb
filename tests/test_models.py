"""Models in and out: example inputs, types of numbers, weights that changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto, TensorProto, helper
from torch import nn

import prunec
from prunec.ir.errors import ModelError, UsageError
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


@pytest.mark.parametrize(("name", "hint"), [("X", "did you mean 'x'? inputs: x, mask"), ("pixels", "inputs: x, mask")])
def test_an_example_input_that_the_module_does_not_have(name: str, hint: str) -> None:
    class Masked(torch.nn.Linear):
        def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
            y = super().forward(x)
            return y if mask is None else y * mask

    with pytest.raises(UsageError, match=f"the model has no input '{name}'") as error:
        read(Masked(3, 2), {name: torch.zeros(2, 3)})
    assert error.value.hint == hint
    assert len(read(Masked(3, 2), {"x": torch.zeros(2, 3), "mask": torch.zeros(2)})[0].inputs) == 2


def test_example_inputs_of_any_name() -> None:
    class AnyNames(torch.nn.Linear):
        def forward(self, **inputs: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
            return super().forward(inputs["pixels"])

    assert len(read(AnyNames(3, 2), {"pixels": torch.zeros(2, 3)})[0].inputs) == 1


class _Small(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = torch.nn.Linear(8, 32), torch.nn.Linear(32, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.b(torch.relu(self.a(x)))
        return result


def test_half_precision_compiles() -> None:
    result = prunec.compile(_Small().half(), torch.randn(2, 8).half(), ratio=0.5)
    assert result.report["units"]["removed"] == 16
    assert result.onnx.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT16
    assert result.report["latency_ms"]["ratio"] > 0


def test_a_type_that_the_runtime_lacks_is_named() -> None:
    with pytest.raises(ModelError, match="ONNX Runtime cannot load") as error:
        prunec.compile(_Small().bfloat16(), torch.randn(2, 8).bfloat16(), ratio=0.5)
    assert "bfloat16" in error.value.hint


def test_onnx_has_the_weights_that_the_module_has_now() -> None:
    result = prunec.compile(_Small(), torch.randn(2, 8), ratio=0.5, measure=False)
    before = result.onnx
    assert result.onnx is before
    assert result.module is not None
    with torch.no_grad():
        result.module.get_parameter("b.bias").add_(1.0)
    bias = next(t for t in result.onnx.graph.initializer if t.name == "b.bias")
    np.testing.assert_array_equal(
        onnx.numpy_helper.to_array(bias), result.module.get_parameter("b.bias").detach().numpy()
    )


def test_an_artifact_has_the_rights_of_other_new_files(tmp_path: Path) -> None:
    prunec.compile(torch.nn.Linear(4, 3), (torch.randn(2, 4),), ratio=0.5, measure=False).save(tmp_path / "saved")
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    assert (tmp_path / "saved").stat().st_mode == (tmp_path / "folder").stat().st_mode
    assert {p.stat().st_mode for p in (tmp_path / "saved").iterdir()} == {(tmp_path / "file").stat().st_mode}


# ---------------------------------------------------------------------- arguments that hold several tensors


class Batched(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.a, self.b = nn.Embedding(20, 8), nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, batch: dict[str, Any], pair: Any, *, scale: Any = None) -> dict[str, Any]:
        y = self.b(torch.relu(self.a(self.table(batch["ids"]) * batch["mask"][..., None] + pair[0] - pair[1])))
        return {"y": y if scale is None else y * scale["by"]}


@pytest.mark.parametrize(("by_name", "scaled"), [(False, False), (True, False), (True, True)])
def test_an_argument_may_hold_several_tensors(by_name: bool, scaled: bool) -> None:
    batch = {"ids": torch.randint(0, 20, (3, 5)), "mask": torch.ones(3, 5)}
    inputs: dict[str, Any] = {"batch": batch, "pair": (torch.randn(3, 5, 8), torch.randn(3, 5, 8))}
    if scaled:
        inputs["scale"] = {"by": torch.ones(1), "more": torch.ones(1)}
    result = prunec.compile(Batched().eval(), inputs if by_name else tuple(inputs.values()), ratio=0.5, measure=False)
    assert result.report["units"]["removed"]
    assert result.module is not None
    found = result.module(**inputs) if by_name else result.module(*inputs.values())
    assert found["y"].shape == (3, 5, 4)
