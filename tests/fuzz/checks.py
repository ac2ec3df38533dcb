"""What is checked of a random graph: the compact one equals the masked source, for random drop sets and units alone.

A drop set obeys nothing but that every axis keeps a position.  Both kinds of graphs have one face: :class:`Checked`.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import ModelProto, helper, numpy_helper
from torch import Tensor, nn

from prunec.ir.analysis import analyse
from prunec.ir.emit import onnx as onnx_emitter
from prunec.ir.emit.fx import emit as emit_module
from prunec.ir.emit.onnx import emit
from prunec.ir.frontends.onnx import from_onnx
from prunec.ir.graph import Graph
from prunec.ir.serial import load_graph, save_graph
from prunec.passes.canonicalize import canonical
from prunec.passes.check import broken
from prunec.passes.difference import relative_error
from prunec.passes.groups import Groups, find_groups
from prunec.passes.rewrite import eliminate, kept_indices, mask, named
from prunec.passes.verify import norm_tied, other_batch

from ..models import oracle
from .onnx_program import session

_SHARES = (0.2, 0.5, 0.9)
_ALONE = 6


class Checked(Protocol):
    """A graph with its source, ready to lose units."""

    graph: Graph
    exact: float
    excused: int
    """Drop sets whose error rounding explains: they prove nothing."""

    @property
    def groups(self) -> Groups: ...

    def error(self, dropped: Any, seed: int) -> float:
        """How far the compact graph is from the masked source on fresh inputs; inf where it does not fit."""


def mistakes(subject: Checked, dice: random.Random) -> list[str]:
    """What is wrong with the compact graphs of ``subject``, a line each; empty when nothing is."""
    found = []
    for gone in drop_sets(subject.groups, dice):
        error = subject.error(gone, dice.randrange(1 << 16))
        if not error < subject.exact:
            found.append(f"without units {gone}: {error:.2g}")
    return found


def every_unit(subject: Checked) -> list[str]:
    """What is wrong with ``subject`` when nothing is dropped, and when each unit is dropped alone."""
    sets = [[], *([int(u)] for u in subject.groups.prunable)]
    errors = {str(gone): subject.error(gone, 1) for gone in sets if leaves_something(subject.groups, gone)}
    return [f"without units {gone}: {error:.2g}" for gone, error in errors.items() if not error < subject.exact]


def drop_sets(groups: Groups, dice: random.Random) -> Iterable[list[int]]:
    """Nothing, some units alone, and random sets of several sizes."""
    units = [int(u) for u in groups.prunable]
    dice.shuffle(units)
    yield []
    yield from ([u] for u in units[:_ALONE] if leaves_something(groups, [u]))
    for share in _SHARES if len(units) > 1 else ():
        dice.shuffle(units)
        gone: list[int] = []
        for unit in units[: round(share * len(units))]:
            if leaves_something(groups, [*gone, unit]):
                gone.append(unit)
        yield gone


def leaves_something(groups: Groups, dropped: Any) -> bool:
    """Whether every axis keeps at least one position: what planners see to."""
    alive = groups.alive(np.asarray(dropped, np.int64))
    return all(alive[axis].any() for each in groups.analysis.axes.values() for axis in each or () if axis.size)


class TorchSubject:
    """A module, run by torch in float64: the compact one emitted, and emitted once more after a trip to disk."""

    exact = 1e-7

    def __init__(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.subject = oracle.subject(module, inputs)
        self.graph = self.subject.graph
        self.excused = 0

    @property
    def groups(self) -> Groups:
        return self.subject.groups

    def error(self, dropped: Any, seed: int) -> float:
        compact = eliminate(self.groups.analysis, self.groups.alive(np.asarray(dropped, np.int64)))
        if broken(compact, self.graph):
            return float("inf")
        inputs = oracle.fresh_inputs(self.subject.inputs, seed)
        if all(0 in v.dynamic for v in self.graph.inputs):
            inputs = tuple(torch.cat([torch.as_tensor(t), torch.as_tensor(t)[:1]]) for t in inputs)
        expected = oracle.call(self.subject.reference(dropped), inputs)
        with tempfile.TemporaryDirectory() as folder:
            save_graph(compact, Path(folder))
            made = [emit_module(g) for g in (compact, load_graph(Path(folder)))]
        return max(oracle.distance(expected, oracle.call(module, inputs)) for module in made)


class OnnxSubject:
    """An ONNX model, run by ONNX Runtime in float32."""

    exact = 1e-4

    def __init__(self, model: ModelProto) -> None:
        self.model = model
        self.graph = canonical(from_onnx(model))
        self.excused = 0

    @cached_property
    def groups(self) -> Groups:
        return find_groups(analyse(self.graph))

    def error(self, dropped: Any, seed: int) -> float:
        analysis, alive = self.groups.analysis, self.groups.alive(np.asarray(dropped, np.int64))
        compact = eliminate(analysis, alive)
        if broken(compact, self.graph):
            return float("inf")
        inputs = onnx_emitter.sample_inputs(self.graph, seed)
        expected, found = (_run(m, inputs) for m in (self._reference(dropped), emit(compact)))
        error = relative_error(expected, found)
        if error < self.exact and self._runs(inputs := other_batch(self.graph, inputs)):
            expected, found = (_run(m, inputs) for m in (self._reference(dropped), emit(compact)))
            error = max(error, relative_error(expected, found))
        if error < self.exact or not self._shaky(dropped, inputs, error):
            return error
        self.excused += 1
        return 0.0

    def _runs(self, inputs: list[Any]) -> bool:
        """Whether the source itself accepts ``inputs``: a size may be written down in it."""
        try:
            _run(self.model, inputs)
        except Exception:  # the runtime's exceptions share no base class
            return False
        return True

    def _shaky(self, dropped: Any, inputs: list[Any], error: float) -> bool:
        """Whether the masked source itself moves that much with the last digits of its inputs."""
        masked = self._reference(dropped)
        nudged = [x * np.float32(1 + 1e-6) if x.dtype.kind == "f" else x for x in inputs]
        noise = relative_error(_run(masked, inputs), _run(masked, nudged))
        return error <= 10 * noise

    def _reference(self, dropped: Any) -> ModelProto:
        """The source with zeros where positions died; the compiler's own masked graph where removing is not zeroing."""
        analysis, alive = self.groups.analysis, self.groups.alive(np.asarray(dropped, np.int64))
        kept = kept_indices(analysis, alive)
        cut = {n: k for n, k in named(analysis.graph, kept).items() if any(i is not None for i in k)}
        known = {t.name for t in self.model.graph.initializer} | {o for n in self.model.graph.node for o in n.output}
        literal = any(
            c.role == "literal" and any(i is not None for i in kept[v]) for v, c in analysis.graph.constants.items()
        )
        shared = len({n.partition(".")[0] for n in named(analysis.graph, kept)}) < len(named(analysis.graph, kept))
        if literal or shared or set(cut) - known or np.intersect1d(dropped, norm_tied(self.groups)).size:
            return emit(mask(analysis, alive))
        return masked_model(self.model, cut)


def masked_model(model: ModelProto, kept: dict[str, tuple[NDArray[np.int64] | None, ...]]) -> ModelProto:
    """A copy of ``model`` with zeros in every element of a constant that did not survive."""
    masked = ModelProto()
    masked.CopyFrom(model)
    for tensor in masked.graph.initializer:
        if tensor.name in kept:
            tensor.CopyFrom(
                numpy_helper.from_array(_masked(numpy_helper.to_array(tensor), kept[tensor.name]), tensor.name)
            )
    for node in masked.graph.node:
        if node.op_type == "Constant" and node.output[0] in kept:
            array = _masked(numpy_helper.to_array(node.attribute[0].t), kept[node.output[0]])
            node.attribute[0].CopyFrom(helper.make_attribute("value", numpy_helper.from_array(array)))
    return masked


def _masked(array: NDArray[Any], kept: tuple[NDArray[np.int64] | None, ...]) -> NDArray[Any]:
    array = np.array(array)
    for d, indices in enumerate(kept):
        if indices is not None:
            dead = np.setdiff1d(np.arange(array.shape[d]), indices)
            array[(slice(None),) * d + (dead,)] = 0
    return array


def _run(model: ModelProto, inputs: list[Any]) -> list[NDArray[Any]]:
    names = [v.name for v in model.graph.input]
    return [np.asarray(a) for a in session(model).run(None, dict(zip(names, inputs, strict=True)))]
