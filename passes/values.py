"""Other numbers in the weights of a graph, and the same in the dense network that it must equal.

A pass that ``revalues`` gives a graph of the same nodes with other numbers: masked, clustered, initialised anew.  What
is proved afterwards is that the compact graph equals the dense network with those numbers, so that the runner carries
them back to where they came from.  Start at :func:`carried_back`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..ir import arrays
from ..ir.graph import Graph, Value
from .base import State
from .groups import Groups
from .rewrite import Kept, kept_indices, named


def kept(state: State, groups: Groups) -> Kept:
    """Which indices of each parameter are in ``state.graph``, in the order in which they stand there."""
    held = state.facts.get("held", state.facts.get("alive", groups.all_alive()))
    found = named(groups.analysis.graph, kept_indices(groups.analysis, held))
    for rewriting in state.rewritings:
        found = rewriting.of(found)
    return found


def revalued(graph: Graph, numbers: Mapping[Value, NDArray[Any]]) -> Graph:
    """A copy of ``graph`` with other numbers in some constants."""
    changed = graph.copy()
    for value, array in numbers.items():
        held = graph.constants[value]
        changed.constants[value] = replace(held, data=arrays.alike(array, held.data))
    return changed


def carried_back(groups: Groups, indices: Kept, before: Graph, after: Graph) -> Groups:
    """``groups`` of the dense network with the numbers of ``after`` where it differs from ``before``."""
    dense = groups.analysis.graph
    by_name = {c.name: v for v, c in dense.constants.items()}
    numbers: dict[Value, NDArray[Any]] = {}
    for value, constant in after.constants.items():
        if constant.data is not before.constants[value].data:
            source = by_name[constant.name]
            whole = np.array(arrays.to_numpy(dense.constants[source].data))
            axes = indices[constant.name]
            where = np.ix_(*(np.arange(n) if k is None else k for n, k in zip(whole.shape, axes, strict=True)))
            whole[where] = arrays.to_numpy(constant.data)
            numbers[source] = whole
    return replace(groups, analysis=groups.analysis.over(revalued(dense, numbers)))
