"""Networks on their way between steps: the source's own with a state, or a compact one as a graph with its weights.

A compact network has no class of the user's; it travels as ``graph.json``, ``weights.safetensors`` and
``example.safetensors``, as in an artifact; one whose source is ONNX as ``network.onnx``.  Start at :func:`opened`.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from ..artifact import Result
from ..ir.emit.fx import emit
from ..ir.errors import BudgetError, ModelError, first_line
from ..ir.modules import load_module
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
    model, inputs = _loaded(job)
    if _GRAPH in files:
        model = _compact(files)
    if _ONNX in files:
        model = _onnx(files)
    if STATE in files:
        _restore(job, model, tensors.read(files[STATE]))
    if isinstance(model, nn.Module):
        model.eval()
    return model, inputs


def _loaded(job: Job) -> tuple[Any, Any]:
    """The source, as it is before anything is done to it."""
    try:
        model, inputs = load_source(job.source, job.inputs, job.seed)
    except BudgetError as error:  # of the factory's own: it ends no level
        raise ModelError(f"{job.source} failed to build the model: {error.message}", hint=error.hint) from error
    return _copied(job, model) if isinstance(model, nn.Module) and _is_held(job.source, model) else model, inputs


def _is_held(source: str, model: nn.Module) -> bool:
    """Whether the user's module holds on to ``model``, so that what is done to it would be there in the next step."""
    home, _, attribute = source.rpartition(":")
    there = load_module(home)
    named: Any = there
    for name in attribute.split("."):
        named = getattr(named, name, None)
    items = [*vars(there).values(), named]
    return any(model is part for item in items for part in (item if isinstance(item, tuple) else (item,)))


def _copied(job: Job, model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(model)
    except Exception as error:  # whatever its parts do when they are copied
        raise ModelError(
            f"copying {job.source}, which stands in its file as an object: {type(error).__name__}: {first_line(error)}",
            hint="give a function that builds the module and loads its weights",
        ) from error


def _restore(job: Job, model: nn.Module, state: tensors.State) -> None:
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ModelError(
            f"loading the trained state into {job.source} anew: {first_line(error)}",
            hint="a training changes numbers alone: it adds no parameters to the network, and removes or renames none",
        ) from error


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
