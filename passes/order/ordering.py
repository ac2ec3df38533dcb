"""The search for an order of channels in which as many readers as possible read one range.

What a reader reads is free where it is one range of what is there, and a copy at run time elsewhere.  Whether all can
have their range is the consecutive-ones property of the matrix of readers and channels; a PQ-tree decides it, and
holds every order that suits.  Where not all can, the weights decide.  Readers that overlap only within a set of readers
can be decided about set by set: such a set is searched exactly where it is small, and greedily where not.

Of the orders that suit, one is taken in which nested readers begin at the first channel, as along a residual stream,
and in which low channels come first.  What is left out on purpose: that a copy may be cheaper than what an order costs
elsewhere, and streams whose order is not free.  Start at :func:`ordered`.

References
----------
Fulkerson, Gross: Incidence matrices and interval graphs, Pacific J. Math. 15 (1965): consecutive ones.
Hsu: A simple test for the consecutive ones property, J. Algorithms 43 (2002): rows that overlap decide apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import networkx as nx
import numpy as np

from ...ir.errors import UsageError
from .classes import Classes
from .exact import exact
from .fit import Demand, Fit
from .order import IntArray, Order, Reads, matrix
from .pq_tree import Tree
from .upscale import upscale_path

EXACT = 12
"""Up to so many different readers that overlap are searched exactly."""

_START = 1
"""The bit of a leaf of its own, before all channels: what is one range with it begins at the first channel."""


def ordered(reads: Sequence[Reads] | Reads, weights: Sequence[float] | None = None) -> Order:
    """An order in which the readers that read one range weigh as much as possible.

    It is the best one where no more than ``EXACT`` different readers overlap, directly or by others, and where all
    readers can have their range; elsewhere it is no worse than the published one.

    reads: (readers, channels)
    weights: what it is worth that a reader reads one range, 0 or more; if None, the number of channels that it reads.

    Raises
    ------
    UsageError
        There are not as many weights as readers, or one is negative.

    References
    ----------
    Wan et al.: UPSCALE: Unconstrained Channel Pruning, ICML 2023: the problem.  Booth, Lueker (1976): what can be.

    >>> a, b = [False, True, False, True], [False, False, True, True]
    >>> order = ordered(np.array([a, b]))
    >>> order.channels.tolist(), order.contiguous
    ([1, 3, 2, 0], (True, True))
    """
    rows = matrix(reads)
    classes = Classes.of(rows)
    sets = [_leaves(row) for row in classes.readers.T]
    demands = _demands(sets, rows.sum(1).tolist() if weights is None else weights)
    families = _overlapping(demands)
    published = _published(rows, sets) if any(len(family) > EXACT for family in families) else set()
    fit = Fit(_start(len(classes.channels)))
    for family in families:
        fit = exact(fit, family) if len(family) <= EXACT else _greedy(fit, family, published)
    tree = _from_the_first(fit.tree, demands)
    return Order.of(_channels(tree, classes), rows)


def _leaves(classes: Iterable[np.bool_]) -> int:
    """Class k is leaf k + 1."""
    return sum(2 << k for k, is_read in enumerate(classes) if is_read)


def _start(classes: int) -> Tree:
    """All orders of the classes' leaves, with the start before or after them."""
    tree = Tree.of(range(classes + 1))
    return tree.restricted(tree.leaves & ~_START) or tree


def _channels(tree: Tree, classes: Classes) -> IntArray:
    """The start is the lowest leaf, and stands at one end: in the tree's frontier it comes first."""
    return classes.laid_out(leaf - 1 for leaf in tree.frontier()[1:])


def _demands(sets: Sequence[int], weights: Sequence[float]) -> list[Demand]:
    """What the readers ask for; those that read the same ask together."""
    if len(weights) != len(sets) or any(w < 0 for w in weights):
        raise UsageError(
            f"ordering channels: {len(weights)} weights for {len(sets)} readers, the least {min(weights, default=0)}",
            hint="one weight for each reader, 0 or more",
        )
    together: dict[int, float] = {}
    for leaves, weight in zip(sets, weights):
        together[leaves] = together.get(leaves, 0.0) + weight
    return [Demand(leaves, weight) for leaves, weight in together.items() if leaves]


def _overlapping(demands: Sequence[Demand]) -> list[list[Demand]]:
    """The demands in families: those of different families do not overlap, and never stand in each other's way."""
    graph: nx.Graph[int] = nx.Graph()
    graph.add_nodes_from(range(len(demands)))
    graph.add_edges_from((j, k) for k, d in enumerate(demands) for j in range(k) if d.overlaps(demands[j]))
    return [[demands[k] for k in sorted(family)] for family in nx.connected_components(graph)]


def _published(rows: Reads, sets: Sequence[int]) -> set[int]:
    """The sets that are a range of the published order."""
    contiguous = Order.of(upscale_path(rows), rows).contiguous
    return {leaves for leaves, is_range in zip(sets, contiguous) if is_range}


def _greedy(fit: Fit, demands: Sequence[Demand], published: set[int]) -> Fit:
    """The heaviest first, one by one; or before them those of the published order, where that comes to more."""
    heaviest_first = sorted(demands, key=lambda d: -d.weight)
    published_first = sorted(heaviest_first, key=lambda d: d.leaves not in published)
    return max(fit.plus_most(heaviest_first), fit.plus_most(published_first), key=lambda found: found.worth)


def _from_the_first(tree: Tree, demands: Sequence[Demand]) -> Tree:
    """Of these orders those in which nested readers begin at the first channel; who is nested with most comes first."""
    nested_with = {d: sum(d.is_nested_with(other) for other in demands) for d in demands}
    nested = [d for d in demands if nested_with[d]]
    for demand in sorted(nested, key=lambda d: (-nested_with[d], -d.leaves.bit_count())):
        tree = tree.restricted(demand.leaves | _START) or tree
    return tree
