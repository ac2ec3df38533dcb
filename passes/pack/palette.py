"""Palette: weights take one of a few values each, found by k-means."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from ...ir import arrays
from ...ir.analysis import analyse
from ...ir.errors import UsageError
from ...ir.graph import Graph, Value
from ...ir.packing.packing import Packing
from ...ir.packing.palette import WIDEST, Palette, divides
from ...ir.words import counted, listed
from ..base import Kind, Pass, State, register
from ..values import revalued
from ..weights import Weight, others, weights
from .kmeans import kmeans


@register
@dataclass(frozen=True)
class Palettise(Pass):
    """Replace each weight by the nearest of 2^bits values, and hold the weights as indices into these.

    bits: of each index: 1, 2, 3, 4, 6 or 8; on disk 3 take 4 and 6 take 8.
    method: kmeans = the values that make the squared error small; uniform = values at equal distances.
    dim: how many neighbours in memory share an index, so that an element takes bits / dim; zeros stay zeros, so that
    only vectors share one that are zero in the same elements.
    group: how many rows (of the first axis) share a table; 0 = all of a weight.
    scale: divide each row by its largest magnitude first.
    least: weights of fewer elements are left alone.
    targets, ignore: patterns of weights (globs, re:regex, type:op): only these, none of these.
    """

    bits: int = 4
    method: Literal["kmeans", "uniform"] = "kmeans"
    dim: int = 1
    group: int = 0
    scale: bool = False
    least: int = 2048
    targets: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()

    name: ClassVar[str] = "palette"
    kind: ClassVar[Kind] = "rewrite"
    requires: ClassVar[frozenset[str]] = frozenset({"groups"})
    ensures: ClassVar[frozenset[str]] = frozenset({"packing"})
    forbids: ClassVar[frozenset[str]] = frozenset({"shrunk", "split"})
    requires_choice: ClassVar[bool] = True
    revalues: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.bits not in (1, 2, 3, 4, 6, 8):
            raise UsageError(f"palette{{bits}} cannot be {self.bits}", hint="1, 2, 3, 4, 6 or 8")
        for option in ("dim", "least"):
            if getattr(self, option) < 1:
                raise UsageError(f"palette{{{option}}} cannot be {getattr(self, option)}", hint="1 or more")
        if self.dim > WIDEST:
            raise UsageError(f"palette{{dim}} cannot be {self.dim}", hint=f"{WIDEST} is the most")
        if self.method == "uniform" and self.dim > 1:
            raise UsageError(
                "palette{method=uniform} has values at equal distances, and dim takes vectors", hint="method=kmeans"
            )
        if self.group < 0:
            raise UsageError(f"palette{{group}} cannot be {self.group}", hint="rows that share a table, or 0")

    def run(self, state: State) -> Graph:
        analysis = analyse(state.graph)
        found = weights(analysis, self)
        large = [w for w in found if math.prod(w.shape) >= self.least]
        odd = [w.name for w in large if not divides(w.shape, self.group, self.dim)]
        if not large or len(odd) == len(large):
            raise UsageError(
                "palette: no weight is large enough" if not large else f"palette: none of {listed(odd)} divides so",
                hint=f"least is {self.least} elements; group divides the rows of a weight, dim the elements of a group",
            )
        if odd:
            state.notes.append(
                f"palette: {counted(len(odd), 'weight')} that group and dim do not divide stay: {listed(odd)}"
            )
        if (left := others(analysis, found)) and not (self.targets or self.ignore):
            state.notes.append(f"palette: {counted(len(left), 'parameter')} left, no weights of layers: {listed(left)}")
        tried = {w: self._palette(w, state) for w in large if w.name not in odd}
        made = {w: palette for w, palette in tried.items() if palette is not None}
        self._check_zeros([w.name for w in tried if w not in made], state, some=bool(made))
        packing: Packing = state.facts.get("packing", Packing())
        state.facts["packing"] = replace(packing, known=(*packing.known, *made.values()))
        numbers = {w.value: arrays.to_numpy(p.dense()) for w, p in made.items()}
        self._record(state, made, numbers)
        return revalued(state.graph, numbers)

    def _check_zeros(self, left: list[str], state: State, *, some: bool) -> None:
        """Say which weights are ``left`` because their zeros cannot stay; raise where there are not ``some`` others."""
        if not left:
            return
        what = f"{counted(len(left), 'weight')} whose vectors of {self.dim} are zero in more ways than {1 << self.bits}"
        if not some:
            raise UsageError(
                f"palette: {what}: {listed(left)}", hint="more bits, or fewer elements a vector (dim), hold these zeros"
            )
        state.notes.append(f"palette: {what} stay as they are: {listed(left)}")

    def _palette(self, weight: Weight, state: State) -> Palette | None:
        """The palette of a weight; None where its zeros could not stay zeros."""
        state.tell("palette", weight.name)
        tensor = weight.data
        scale = _largest(tensor) if self.scale else None
        even = tensor if scale is None else (tensor / scale).astype(tensor.dtype)
        runs = even.reshape(weight.shape[0] // (self.group or weight.shape[0]), -1, self.dim)
        found = [each for run in runs if (each := self._table(run, 1 << self.bits, state.seed)) is not None]
        if len(found) < len(runs):
            return None
        tables, chosen = zip(*found, strict=True)
        widest = max(len(t) for t in tables)
        own = arrays.native(weight.constant.data).dtype
        table = np.stack([np.pad(t, ((0, widest - len(t)), (0, 0)), "edge") for t in tables]).astype(own)
        return Palette.of(weight.shape, np.stack(chosen), table, scale)

    def _table(self, vectors: NDArray[Any], k: int, seed: int) -> tuple[NDArray[Any], NDArray[np.int64]] | None:
        """A table (k, d) for ``vectors`` (n, d), and which entry each takes; None where zeros could not stay zeros."""
        if self.method == "uniform":
            low, high = float(vectors.min()), float(vectors.max())
            table = np.linspace(low, high, k)[:, None]
            if (vectors == 0).any():
                table[np.abs(table).argmin()] = 0
            return table, np.abs(vectors - table.T).argmin(1) if len(vectors) < 1 << 16 else _nearest(vectors, table)
        table, chosen = kmeans(vectors, k, seed)
        moved = (table[chosen][vectors == 0] != 0).any()
        return None if moved else (table, chosen)

    def _record(self, state: State, made: dict[Weight, Palette], numbers: dict[Value, NDArray[Any]]) -> None:
        error = {w.name: _relative_error(w.data, numbers[w.value]) for w in made}
        state.values["palette"] = {"bits": self.bits / self.dim, "relative_error": error}


def _relative_error(before: NDArray[Any], after: NDArray[Any]) -> float:
    """How long the difference is, of the length before."""
    before, after = before.astype(np.float32), after.astype(np.float32)
    length = float(np.linalg.norm(before))
    return float(np.linalg.norm(before - after)) / length if length else 0.0


def _largest(tensor: NDArray[Any]) -> NDArray[Any]:
    """The largest magnitude of each row (o, 1, …), 1 where it is zero."""
    found = (
        np.abs(tensor)
        .max(tuple(range(1, tensor.ndim)), keepdims=True)
        .astype(np.promote_types(tensor.dtype, np.float32))
    )
    return np.where(found == 0, 1, found).astype(found.dtype)


def _nearest(vectors: NDArray[Any], table: NDArray[Any]) -> NDArray[np.int64]:
    """Which of the ascending numbers ``table`` (k, 1) each of ``vectors`` (n, 1) is nearest to."""
    between = (table[1:, 0] + table[:-1, 0]) / 2
    return np.searchsorted(between, vectors[:, 0])
