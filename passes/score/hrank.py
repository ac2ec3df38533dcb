"""HRank: feature maps of low rank say little."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ...ir import arrays
from ...ir.graph import Graph, Value, reads
from ...ir.opset import OPS
from ...ir.words import counted
from ..samples import observed
from .scoring import Scores, Scoring, criterion

Place = tuple[Value, int]
"""A value and the axis of it along which the channels lie."""

_POOLS = ("pool", "reduce")


@criterion("hrank")
def hrank(scoring: Scoring) -> Scores:
    """Average rank of a unit's feature maps, over the sample inputs of ``prunec.compile(samples=…)``.

    The feature maps are those that layers read, before any pooling: behind convolution, batch norm and activation.
    Where units are read in several places all of these count alike; in ``groups{mode=unconstrained}`` the units of a
    reader are scored on what it reads itself.  A map (h, w) is the last two axes that are neither the batch nor the
    channels; of further axes, and of the channels that one unit spans, the mean is taken.  Ranks are numpy's
    ``matrix_rank`` in float32.

    A unit without such maps (behind a linear layer, in tokens, in one-dimensional convolutions) gets the share of its
    numbers that are not zero, which for single numbers is their rank; groups in which all scores are equal are noted.

    References
    ----------
    Lin et al., HRank: Filter Pruning using High-Rank Feature Map, CVPR 2020, section 3.
    """
    analysis = scoring.groups.analysis
    for constant in analysis.graph.constants.values():
        arrays.require_values(constant.data)
    places = _Places(scoring).found()
    averages = _Averages(scoring)
    for value, numbers in observed(analysis.graph, list(places), scoring.state, "criterion 'hrank'"):
        for dim in places[value]:
            averages.add((value, dim), numbers)
    scores = averages.scores()
    _note_ties(scoring, scores)
    return scores


def _note_ties(scoring: Scoring, scores: Scores) -> None:
    groups = [g for g in scoring.groups.groups if len(g) > 1]
    tied = [g.name for g in groups if (scores[g.units] == scores[g.units[0]]).all()]
    if tied and len(tied) < len(groups):
        listed = ", ".join(tied[:3]) + (", …" if len(tied) > 3 else "")
        scoring.state.notes.append(
            f"score: hrank does not tell the units of {counted(len(tied), 'group')} apart: {listed}"
        )


def _spatial(rank: int, dim: int) -> int:
    """How many axes of a value are neither the batch, its first one, nor the channels."""
    return rank - 1 - (dim > 0)


class _Averages:
    """Scores of units as they add up, by what they are: ranks of maps (0), or shares of numbers (1)."""

    def __init__(self, scoring: Scoring) -> None:
        self.analysis = scoring.groups.analysis
        self.sums = np.stack([scoring.zeros(), scoring.zeros()])
        self.weights = np.zeros_like(self.sums)

    def add(self, place: Place, numbers: NDArray[np.float32]) -> None:
        value, dim = place
        position, unit = self.analysis.solution.needs((self.analysis.axes[value] or [])[dim])
        examples = numbers.shape[0] if dim else 1
        form = 0 if _spatial(numbers.ndim, dim) > 1 else 1
        np.add.at(self.sums[form], unit, examples * _of_positions(numbers, dim)[position])
        np.add.at(self.weights[form], unit, examples)

    def scores(self) -> Scores:
        ranks, shares = self.sums / np.maximum(self.weights, 1)
        found: Scores = np.where(self.weights[0] > 0, ranks, shares)
        return found


def _of_positions(numbers: NDArray[np.float32], dim: int) -> Scores:
    """For each position of ``dim`` the mean rank of its maps; the share that is not zero where there are none."""
    channels = np.moveaxis(numbers, dim, 0)
    maps = _spatial(numbers.ndim, dim) > 1
    found = np.linalg.matrix_rank(channels) if maps else channels != 0
    means: Scores = found.reshape(len(channels), -1).mean(1, dtype=np.float64)
    return means


class _Places:
    """Where the feature maps of each unit lie."""

    def __init__(self, scoring: Scoring) -> None:
        self.analysis, self.prunable = scoring.groups.analysis, scoring.groups.prunable
        self.graph = self.analysis.graph
        self.makers, self.flowing = self.graph.producers(), _flowing(self.graph)

    def found(self) -> dict[Value, list[int]]:
        """Values, in the order of the graph, with the axes of their channels."""
        places = {self._before_pooling(place) for place in self._read_by_layers()}
        missing = np.setdiff1d(self.prunable, self._units(places))
        for node in reversed(self.graph.nodes):  # what no layer reads counts where it is seen last
            for place in self._with_channels(v for v in node.outputs if v in self.flowing):
                if np.isin(missing, units := self._units({place})).any():
                    places.add(self._before_pooling(place))
                    missing = np.setdiff1d(missing, units)
        every = ((v, d) for v in self.makers for d in range(len(v.shape or ())))
        ordered: dict[Value, list[int]] = {}
        for value, dim in (place for place in every if place in places):
            ordered.setdefault(value, []).append(dim)
        return ordered

    def _read_by_layers(self) -> Iterator[Place]:
        """Channels that are multiplied with learned weights and summed."""
        for node in self.graph.nodes:
            op = OPS.get(node.op) if node.name in self.analysis.sites else None
            carriers = {k for each in op.contracts(node).values() for k in each} if op is not None else set()
            read = [node.inputs[k] for k in carriers if node.inputs[k] in self.flowing]
            if len(read) == 1 < len(carriers):
                yield from self._with_channels(v for v in read if v in self.makers)

    def _with_channels(self, values: Iterator[Value | None]) -> Iterator[Place]:
        for value in values:
            if value is None:
                continue
            for d, axis in enumerate(self.analysis.axes[value] or ()):
                if self.analysis.solution.may_shrink(axis):
                    yield value, d

    def _before_pooling(self, place: Place) -> Place:
        """The same channels as far up as there are maps, and these are not pooled; ``place`` where there are none."""
        at: Place | None = place
        while at is not None:
            value, dim = at
            if _spatial(len(value.shape or ()), dim) > 1 and self.makers[value].op not in _POOLS:
                return at
            at = self._above(at)
        return place

    def _above(self, place: Place) -> Place | None:
        """The same units in what the value is made of, if that is one value."""
        read = {v for v in reads(self.makers[place[0]]) if v in self.flowing and v.is_tensor}
        units = self._units({place})
        same = [p for p in self._with_channels(iter(read)) if np.array_equal(self._units({p}), units)]
        return same[0] if len(read) == len(same) == 1 else None

    def _units(self, places: set[Place]) -> NDArray[np.int64]:
        axes = [(self.analysis.axes[value] or [])[dim] for value, dim in places]
        needed = [self.analysis.solution.needs(axis)[1] for axis in axes]
        return np.unique(np.concatenate([np.zeros(0, np.int64), *needed]))


def _flowing(graph: Graph) -> set[Value]:
    """The values that depend on the inputs."""
    found = set(graph.inputs)
    for node in graph.nodes:
        if any(v in found for v in reads(node)):
            found.update(node.outputs)
    return found
