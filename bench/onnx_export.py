"""A torch module as ONNX by torch's own exporter: how the dense model and the peer's output reach the runtime."""

from __future__ import annotations

import contextlib
import io
import warnings

import onnx
import torch
from torch import Tensor, nn


def export(model: nn.Module, example: Tensor) -> onnx.ModelProto:
    """``model`` in inference mode with a dynamic batch; ``example`` has a batch of 2 or more, else it is fixed."""
    batch = torch.export.Dim("batch")
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(model.eval(), (example,), dynamo=True, dynamic_shapes=({0: batch},), verbose=False)
    assert program is not None
    return program.model_proto
