"""Which channels may change places: where the network computes the same once they do.

Channels move in every axis that holds them at once, in constants and in what flows.  That is right where each node
gives its results in the new order if its operands come in the new order.  Ops with a signature do: a letter is an index
of which nothing but equality counts, and one whose numbers count is pinned.  Ops that move positions do where an axis
passes as it is.  Whatever is not surely so is an :class:`Obstacle`.  Start at :func:`obstacles`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..ir.analysis import Analysis
from ..ir.axes import Axes, Axis
from ..ir.graph import Node
from ..ir.opset import OPS, Analysed
from ..ir.solve import Solution

Components = NDArray[np.int64]
"""Components of an analysis, by position: what stands where on an axis; 0 is what must stay."""

_EVEN = frozenset({"expand", "zeros"})
"""Ops whose results may have axes of their own, along which all positions hold the same."""

_LETTERS = frozenset({"einsum"})
"""Ops that apply a signature, of their own for each node."""

_PASS = _EVEN | frozenset(
    "batch_statistics cat convert flip layer_norm normalise pad permute pool reduce reshape reshape_as select slice "
    "split stack take weight_norm".split()
)
"""Ops that treat all positions of an axis alike where it passes as it is."""


@dataclass(frozen=True, eq=False)
class Obstacle:
    """Components that keep their places, and what keeps them there."""

    components: Components
    why: str


def obstacles(analysis: Analysis) -> Iterator[Obstacle]:
    """All that keeps components from changing places, but for the order of what is concatenated."""
    yield Obstacle(_in_products(analysis.solution), "channels in groups or heads")
    component = analysis.solution.component
    yield Obstacle(_repeated(component[axis] for axes in analysis.axes.values() for axis in axes or ()), "repeated")
    for site in analysis.sites.values():
        held = _held(site, component)
        if held.size:
            yield Obstacle(held, site.node.kind or site.node.op)


def picked(node: Node) -> tuple[int, Components] | None:
    """The one axis of which ``node``, a take or slice, reads some positions, and which; None for any other node.

    Axes of any size are left out: there positions may be more, or fewer, than in the example.
    """
    x = node.inputs[0] if node.inputs else None
    if x is None or x.shape is None:
        return None
    if node.op == "take" and (d := int(node.attrs["dim"])) not in x.dynamic:
        return d, np.asarray(node.attrs["indices"], np.int64) % max(1, x.shape[d])
    if node.op == "slice" and not any(cut[0] in x.dynamic for cut in node.attrs["slices"]):
        cuts = [cut for cut in node.attrs["slices"] if tuple(cut[1:]) != (0, x.shape[cut[0]], 1)]
        if len(cuts) == 1 and None not in cuts[0] and cuts[0][3] == 1:
            d, start, stop, _ = cuts[0]
            return d, np.arange(start, stop)
    return None


def _in_products(solution: Solution) -> Components:
    """The components that are products of others, or are needed by some."""
    members = solution.members
    needs = np.asarray(members.sum(1)).ravel()
    products = np.asarray(members @ (np.asarray(members.sum(0)).ravel() > 1).astype(np.int32)).ravel()
    return np.flatnonzero((needs != 1) | (products > 0))


def _repeated(axes: Iterable[Components]) -> Components:
    """The components that stand more than once on an axis."""
    found = []
    for axis in axes:
        held, count = np.unique(axis, return_counts=True)
        found.append(held[count > 1])
    return np.unique(np.concatenate([np.zeros(0, np.int64), *found]))


def _held(site: Analysed, component: Components) -> Components:
    """The components that stand on an axis of which it is not known what the node makes of an order."""
    node, op = site.node, OPS.get(site.node.op)
    if node.op in _LETTERS or (op is not None and op.signature is not None):
        return np.zeros(0, np.int64)
    operands = [[component[axis] for axis in axes or ()] for axes in site.operands]
    results = [[component[axis] for axis in axes] for axes in site.results]
    if node.op not in _PASS:
        return _of(axis for axes in (*operands, *results) for axis in axes)
    if (d := along(node)) is not None:
        operands, results = ([axes[:d] + axes[d + 1 :] for axes in each] for each in (operands, results))
    read = [axis for axes in operands for axis in axes]
    made = [axis for axes in results for axis in axes]
    lost = [axis for axis in read if not any(np.array_equal(axis, other) for other in made)]
    new = [axis for axis in made if not any(np.array_equal(axis, other) for other in read)]
    return _of([*lost, *(() if node.op in _EVEN else new)])


def along(node: Node) -> int | None:
    """The axis along which ``node`` picks or concatenates, so that its result has an order of its own."""
    if node.op == "cat":
        return int(node.attrs["dim"])
    pick = picked(node)
    return None if pick is None else pick[0]


def parts(site: Analysed) -> list[Axis]:
    """What a node concatenates, in order, along the axis that it does so; nothing for any other node."""
    if site.node.op != "cat":
        return []
    d, rank = int(site.node.attrs["dim"]), len(site.results[0])
    joined: list[Axes] = [axes for axes in site.operands if axes is not None and len(axes) == rank]
    return [axes[d] for axes in joined]


def _of(axes: Iterable[Components]) -> Components:
    found = np.unique(np.concatenate([np.zeros(0, np.int64), *axes]))
    return found[found > 0]
