"""Networks on their way between steps: the source's own with a state, or a compact one as a graph with its weights.

A compact network has no class of the user's; it travels as ``graph.json``, ``weights.safetensors`` and
``example.safetensors``, as in an artifact; one whose source is ONNX as ``network.onnx``.  Start at :func:`opened`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from ..artifact import Result
from ..ir.emit.fx import emit
from ..ir.errors import ModelError
from ..ir.serial import load_graph, save_graph
from ..sources import load_source
from . import tensors
from .job import Job
from .step import Files

STATE = "state.safetensors"
_GRAPH = "graph.json"
_ONNX = "network.onnx"


def opened(job: Job, files: Files) -> tuple[Any, Any]:
    """The network that a step left in ``files``, else the source's own, and its example inputs; modules to be run."""
    model, inputs = load_source(job.source, job.inputs, job.seed)
    if _GRAPH in files:
        model = _compact(files)
    if _ONNX in files:
        model = _onnx(files)
    if STATE in files:
        model.load_state_dict(tensors.read(files[STATE]))
    if isinstance(model, nn.Module):
        model.eval()
    return model, inputs


def module(job: Job, files: Files) -> tuple[nn.Module, Any]:
    """The same where it is to be trained.

    Raises
    ------
    ModelError
        It is no torch module.
    """
    model, inputs = opened(job, files)
    if not isinstance(model, nn.Module):
        raise ModelError(
            f"training {job.source}: it is a {type(model).__name__}, no torch module",
            hint="give a function that builds the module and loads its weights; or leave --train away",
        )
    return model, inputs


def compact(result: Result) -> nn.Module:
    """The compact module of a compile."""
    assert result.module is not None, "a torch source has a torch module"
    return result.module


def saved(result: Result, model: nn.Module | None) -> Files:
    """The compact network of ``result`` with the weights of ``model`` (None for ONNX), for :func:`opened`."""
    assert result.graph is not None
    if model is None:
        return {_ONNX: result.onnx.SerializeToString(deterministic=True)}
    graph, state = result.graph.copy(), model.state_dict()
    for value, constant in graph.constants.items():
        if constant.name in state:
            graph.constants[value] = replace(constant, data=state[constant.name].detach().cpu().clone())
    with tempfile.TemporaryDirectory(prefix="prunec-network-") as folder:
        save_graph(graph, Path(folder))
        return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


def _onnx(files: Files) -> Any:
    import onnx

    return onnx.load_from_string(files[_ONNX])


def _compact(files: Mapping[str, bytes]) -> nn.Module:
    with tempfile.TemporaryDirectory(prefix="prunec-network-") as folder:
        for name in (_GRAPH, "weights.safetensors", "example.safetensors"):
            (Path(folder) / name).write_bytes(files[name])
        return emit(load_graph(Path(folder)))
