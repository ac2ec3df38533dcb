"""A torch module as ONNX by torch's own exporters: how the dense model and the peer's output reach the runtime."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from typing import Any

import onnx
import torch
from torch import Tensor, nn


def export(model: nn.Module, *example: Tensor) -> onnx.ModelProto:
    """``model`` in inference mode with a dynamic batch, by torch's present exporter; ``example`` has a batch of 2."""
    batch = torch.export.Dim("batch")
    shapes = tuple({0: batch} for _ in example)
    with _quiet():
        program = torch.onnx.export(model.eval(), example, dynamo=True, dynamic_shapes=shapes, verbose=False)
    assert program is not None
    return program.model_proto


def export_script(model: nn.Module, *example: Tensor) -> onnx.ModelProto:
    """``model`` in inference mode with a dynamic batch, by torch's older exporter, which traces TorchScript."""
    names = [f"input_{k}" for k in range(len(example))]
    file: Any = io.BytesIO()  # the older exporter writes to one, though its signature does not say so
    axes = {name: {0: "batch"} for name in names}
    with _quiet():
        torch.onnx.export(model.eval(), example, file, dynamo=False, input_names=names, dynamic_axes=axes)
    made: onnx.ModelProto = onnx.load_from_string(file.getvalue())
    return made


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
