"""The oracle of the tests: the compact network against the source's own module with zeros where positions died.

:func:`compiled` runs the real frontend, passes and emitter.  :func:`masked_source` does not: it zeroes parameters in a
copy of the source module, so a mistake that the compiler and its own check share still shows.  Where a dropped unit is
normalised over, removing is not zeroing, and the compiler's masked graph is the reference.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from prunec.ir.analysis import analyse
from prunec.ir.emit.fx import emit
from prunec.ir.frontends.fx import export, from_exported
from prunec.ir.graph import Graph
from prunec.passes.base import State
from prunec.passes.canonicalize import canonical
from prunec.passes.groups import Groups, find_groups
from prunec.passes.rewrite import eliminate, kept_indices, mask, named
from prunec.passes.target import find_target
from prunec.passes.verify import norm_tied

from . import micro

EXACT = 1e-9
NOTHING = np.zeros(0, np.int64)


@dataclass(eq=False)
class Subject:
    """A module, its inputs and its analysed graph."""

    module: nn.Module
    inputs: micro.Inputs
    graph: Graph

    @cached_property
    def groups(self) -> Groups:
        return find_groups(analyse(self.graph))

    @cached_property
    def norm_tied(self) -> np.ndarray:
        return np.asarray(norm_tied(self.groups))

    def state(self, seed: int = 0) -> State:
        """A fresh state for the runner, with this graph as the canonical source."""
        return State(self.graph, self.graph, find_target("generic"), seed)

    def compact(self, dropped: Any) -> nn.Module:
        """The module without the units ``dropped``."""
        return emit(eliminate(self.groups.analysis, self.groups.alive(np.asarray(dropped, np.int64))))

    def reference(self, dropped: Any) -> nn.Module:
        """What the compact module must equal."""
        dropped = np.asarray(dropped, np.int64)
        if np.intersect1d(dropped, self.norm_tied).size:
            return emit(mask(self.groups.analysis, self.groups.alive(dropped)))
        return masked_source(self.module, self.kept(dropped))

    def kept(self, dropped: Any) -> dict[str, Any]:
        analysis = self.groups.analysis
        return named(analysis.graph, kept_indices(analysis, self.groups.alive(np.asarray(dropped, np.int64))))

    def error(self, dropped: Any, seed: int = 1) -> float:
        """The largest relative error of the compact module on fresh inputs."""
        inputs = fresh_inputs(self.inputs, seed)
        return distance(call(self.reference(dropped), inputs), call(self.compact(dropped), inputs))

    def leaves_something(self, dropped: Any) -> bool:
        """Whether every axis keeps at least one position: what planners see to."""
        alive = self.groups.alive(np.asarray(dropped, np.int64))
        axes = (axis for each in self.groups.analysis.axes.values() for axis in each or () if axis.size)
        return all(alive[axis].any() for axis in axes)


def subject(module: nn.Module, inputs: micro.Inputs) -> Subject:
    """``module`` as the compiler sees it."""
    args, kwargs = split(inputs)
    return Subject(module, inputs, canonical(from_exported(export(module, args, kwargs))))


@cache
def known(name: str) -> Subject:
    """The subject of one micro network; shared, so leave it as it is."""
    return subject(*micro.build(name))


def split(inputs: micro.Inputs) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return ((), dict(inputs)) if isinstance(inputs, dict) else (tuple(inputs), {})


def call(module: nn.Module, inputs: micro.Inputs) -> Any:
    args, kwargs = split(inputs)
    with torch.no_grad():
        return module(*args, **kwargs)


def fresh_inputs(inputs: micro.Inputs, seed: int) -> micro.Inputs:
    """Other inputs of the same kind: floats normal, integers shuffled."""
    generator = torch.Generator().manual_seed(seed)

    def fresh(t: Tensor) -> Tensor:
        if t.is_floating_point():
            return torch.randn(t.shape, generator=generator, dtype=t.dtype)
        return t.flatten()[torch.randperm(t.numel(), generator=generator)].reshape(t.shape)

    made: micro.Inputs = pytree.tree_map_only(Tensor, fresh, inputs)
    return made


def masked_source(module: nn.Module, kept: dict[str, Any]) -> nn.Module:
    """A copy of ``module`` with zeros in every parameter and buffer element that did not survive."""
    masked = copy.deepcopy(module)
    state = {**dict(masked.named_parameters(remove_duplicate=False)), **dict(masked.named_buffers())}
    with torch.no_grad():
        for name, axes in kept.items():
            for d, indices in enumerate(axes):
                if indices is not None:
                    dead = np.setdiff1d(np.arange(state[name].shape[d]), indices)
                    state[name].index_fill_(d, torch.from_numpy(dead), 0)
    return masked


def distance(expected: Any, found: Any) -> float:
    """The largest difference relative to the largest magnitude, over all tensors; inf where structures differ."""
    a, b = pytree.tree_flatten(expected), pytree.tree_flatten(found)
    if a[1] != b[1]:
        return float("inf")
    worst = 0.0
    for x, y in zip(a[0], b[0], strict=True):
        if x.shape != y.shape:
            return float("inf")
        if x.numel():
            worst = max(worst, float((x.double() - y.double()).abs().max() / x.double().abs().max().clamp(min=1e-30)))
    return worst
