"""Initialise: weights of layers that lost inputs are drawn anew, as wide as their own initialiser would draw them.

A network that was cut before it was trained has layers whose weights were drawn for more inputs than are left.  Which
initialiser it was is read from the weights: their distribution, and whether their variance follows the number of
inputs, or of outputs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from ..ir import arrays
from ..ir.analysis import analyse
from ..ir.graph import Graph
from ..ir.words import counted
from .base import Kind, Pass, State, register
from .groups import Groups
from .values import revalued
from .weights import Weight, weights

_GAINS = (2.0, 1.0, 1 / 3)
"""Variance times fan of the initialisers in use: He, LeCun (or Xavier of a square), torch's default for layers."""


@register
@dataclass(frozen=True)
class Initialise(Pass):
    """Draw the weights of layers anew whose number of inputs or outputs has changed (of networks not yet trained).

    mode: changed = those whose variance depends on what changed; all = every weight of a layer; rescale = keep the
    numbers of changed ones, and give them the variance.
    """

    mode: Literal["changed", "all", "rescale"] = "changed"

    name: ClassVar[str] = "initialise"
    kind: ClassVar[Kind] = "rewrite"
    requires: ClassVar[frozenset[str]] = frozenset({"groups", "compact"})
    ensures: ClassVar[frozenset[str]] = frozenset({"initialised"})
    forbids: ClassVar[frozenset[str]] = frozenset({"shrunk", "split", "masked"})
    requires_choice: ClassVar[bool] = True
    revalues: ClassVar[bool] = True

    def run(self, state: State) -> Graph:
        groups: Groups = state.facts["groups"]
        before = {c.name: c.data for c in groups.analysis.graph.constants.values()}
        rng = np.random.default_rng(state.seed)
        numbers = {}
        found = weights(analyse(state.graph))
        for weight in found:
            law = _Law.of(weight, before[weight.name])
            if self.mode == "all" or law.changes(weight.shape):
                numbers[weight.value] = law.rescaled(weight) if self.mode == "rescale" else law.drawn(weight.shape, rng)
        done = "rescaled" if self.mode == "rescale" else "drawn anew"
        state.notes.append(
            f"initialise: {counted(len(numbers), 'weight')} {done}" if numbers else "initialise: no weight changed"
        )
        state.values["initialise"] = {"weights": sorted(w.name for w in found if w.value in numbers)}
        return revalued(state.graph, numbers)


@dataclass(frozen=True)
class _Law:
    """How a weight was drawn: with variance ``gain`` / fan, or with ``variance`` where that follows no fan."""

    summed: int
    uniform: bool
    variance: float
    fan: Literal["in", "out", "none"]
    shape: tuple[int, ...]

    @classmethod
    def of(cls, weight: Weight, before: Any) -> _Law:
        """The law behind the numbers ``before``, which ``weight`` is a part of."""
        shape, (variance, fourth) = tuple(before.shape), _moments(before)
        uniform = fourth < 2.4 * variance**2 if variance else False
        loose = 4 * math.sqrt(2 / math.prod(shape)) + 0.02  # what chance does to a variance
        for gain in _GAINS:
            for fan in ("in", "out"):
                size = _fan(shape, weight.summed, fan)
                if abs(variance * size / gain - 1) < loose:
                    return cls(weight.summed, uniform, variance, fan, shape)
        return cls(weight.summed, uniform, variance, "none", shape)

    def changes(self, shape: tuple[int, ...]) -> bool:
        """Whether a weight of ``shape`` would be drawn from another distribution."""
        return self.variance > 0 and self._variance(shape) != self.variance

    def _variance(self, shape: tuple[int, ...]) -> float:
        if self.fan == "none":
            return self.variance
        return self.variance * _fan(self.shape, self.summed, self.fan) / _fan(shape, self.summed, self.fan)

    def drawn(self, shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float64]:
        """New numbers of ``shape``."""
        deviation = math.sqrt(self._variance(shape))
        if self.uniform:
            return rng.uniform(-math.sqrt(3) * deviation, math.sqrt(3) * deviation, shape)
        return rng.normal(0, deviation, shape)

    def rescaled(self, weight: Weight) -> NDArray[Any]:
        """The numbers of ``weight`` with the variance of new ones."""
        numbers: NDArray[Any] = weight.data * math.sqrt(self._variance(weight.shape) / self.variance)
        return numbers


def _moments(data: Any) -> tuple[float, float]:
    """The second and the fourth central moment of all elements."""
    size = math.prod(data.shape)
    mean = sum(float(rows.sum(dtype=np.float64)) for _, rows in arrays.blocks(data)) / size
    second = fourth = 0.0
    for _, rows in arrays.blocks(data):
        square = np.square(rows - mean)
        second += float(square.sum(dtype=np.float64))
        fourth += float(np.vdot(square, square))
    return second / size, fourth / size


def _fan(shape: tuple[int, ...], summed: int, fan: str) -> int:
    """Inputs (or outputs) of one number of the result (of the operand)."""
    axis = summed if fan == "in" else 1 - summed
    return max(1, shape[axis] * math.prod(shape[2:]))
