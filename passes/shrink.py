"""Shrink: what a network can do without goes, and it computes what it did.

Training that makes whole units zero, a mask of single elements, or another tool leaves filters of zeros behind.  They
still emit their bias, or the shift of their batch norm; where that is taken in exactly, they go with all that reads
them, and so does what nobody reads.  Start at :class:`Shrink`.

References
----------
DNNShifter's spatial pruning, made lossless: theirs drops the constants of the filters that it removes.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from ..ir import arrays
from ..ir.analysis import analyse
from ..ir.errors import UsageError
from ..ir.graph import Graph
from ..ir.words import counted
from .base import Kind, Pass, State, register
from .constants import Without, without_idle
from .difference import relative_error, run
from .groups import Groups, Units, step_of
from .plan.patterns import chosen
from .rewrite import Kept, composed
from .values import carried_back, kept, revalued
from .verify import sample_inputs
from .weights import Weight, weights


@register
@dataclass(frozen=True)
class Shrink(Pass):
    """Remove the channels that the network can do without: it computes what it did, to rounding.

    Filters of zeros go, and what nobody reads, until there are no more.  Their constants go into the biases of what
    reads them; before a padding, where that is not exact, into the weights of one constant channel that stays.
    tolerance: rows and columns of a weight whose elements are at most this share of its largest count as zero; what
    that changes is measured and reported.
    align: what stays is a multiple of this, as far as something idle is left to fill it up; auto = the target's block.
    targets, ignore: patterns of group or parameter names, as in plan.
    """

    tolerance: float = 0.0
    align: int | Literal["auto"] = 1
    targets: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()

    name: ClassVar[str] = "shrink"
    kind: ClassVar[Kind] = "rewrite"
    requires: ClassVar[frozenset[str]] = frozenset({"groups"})
    ensures: ClassVar[frozenset[str]] = frozenset({"compact", "shrunk"})
    forbids: ClassVar[frozenset[str]] = frozenset({"shrunk", "split"})
    requires_choice: ClassVar[bool] = True
    may_revalue: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 <= self.tolerance < 1:
            raise UsageError(
                f"shrink{{tolerance}} cannot be {self.tolerance}", hint="a share of a weight's largest, from 0"
            )
        if self.align != "auto" and self.align < 1:
            raise UsageError(f"shrink{{align}} cannot be {self.align}", hint="1 or more, or auto")

    def run(self, state: State) -> Graph:
        graph = self._without_faint(state) if self.tolerance else state.graph
        block = state.target.channel_block if self.align == "auto" else self.align
        shrinking = Shrinking(self, block)
        found = shrinking.of_graph(graph)
        state.rewritings.append(replace(shrinking, removed=found.removed, indices=found.kept))
        if not found.removed:
            state.notes.append("shrink: no channel is idle, and nothing goes")
        if found.constant:
            stay = f"{counted(found.constant, 'constant channel')} {'stay' if found.constant > 1 else 'stays'}"
            blocks = f", or to fill blocks of {block}" if block > 1 else ""
            state.notes.append(f"shrink: {stay}, for a padding, a norm or a sum over channels{blocks}")
        return found.graph

    def _without_faint(self, state: State) -> Graph:
        """The graph with zeros for rows and columns that nearly are; what that changes is noted."""
        groups: Groups = state.facts["groups"]
        faint = {w: mask for w in weights(analyse(state.graph), self) if (mask := _faint(w, self.tolerance)).any()}
        if not faint:
            state.notes.append(f"shrink: no row or column of a weight is within {self.tolerance:g} of zero")
            return state.graph
        numbers = {w.value: np.where(mask, 0, arrays.to_numpy(w.constant.data)) for w, mask in faint.items()}
        changed = revalued(state.graph, numbers)
        inputs = sample_inputs(state.graph, state.seed)
        error = relative_error(run(state.graph, inputs), run(changed, inputs))
        zeroed = sum(int((mask & (w.data != 0)).sum()) for w, mask in faint.items())
        state.values["shrink"] = {"tolerance": self.tolerance, "zeroed": zeroed, "relative_error": error}
        state.notes.append(
            f"shrink: {counted(zeroed, 'element')} within {self.tolerance:g} of zero became zero, which moves outputs "
            f"by {error:.2g} relative"
        )
        state.facts["groups"] = carried_back(groups, kept(state, groups), state.graph, changed)
        return changed


@dataclass(frozen=True, eq=False)
class Shrinking:
    """What a shrink removed: how many units, and the ``indices`` of each parameter that are left.

    It is found anew in each graph that it is applied to, for it follows from the numbers.
    """

    options: Shrink
    block: int
    removed: int = 0
    indices: Kept = field(default_factory=dict)

    def of_graph(self, graph: Graph) -> Without:
        """``graph`` without what is idle in it."""
        return without_idle(graph, self._among, self._in_blocks)

    def applied(self, graph: Graph) -> Graph:
        """The same, of the graph alone."""
        return self.of_graph(graph).graph

    def of(self, kept: Kept) -> Kept:
        """The ``kept`` indices of parameters without what went."""
        return {name: composed(axes, self.indices.get(name, ())) for name, axes in kept.items()}

    def _among(self, groups: Groups) -> Units:
        found = [g.units for g in chosen(groups, self.options)]
        return np.concatenate([np.zeros(0, np.int64), *found])

    def _in_blocks(self, groups: Groups, units: Units) -> Units:
        """Of each group so many of ``units`` that whole blocks stay."""
        gone = np.isin(np.arange(groups.group_of.size), units)
        for group in groups.groups if self.block > 1 else ():
            idle = group.units[gone[group.units]]
            spare = -(len(group) - idle.size) % step_of(group, self.block)
            gone[idle[: min(spare, idle.size)]] = False
        return np.flatnonzero(gone).astype(np.int64)


def _faint(weight: Weight, tolerance: float) -> NDArray[np.bool_]:
    """The elements of rows and of columns (of axis 1) in which none is above ``tolerance`` of the largest of all."""
    size = np.abs(weight.data.astype(np.float32))
    small = size <= tolerance * size.max(initial=0)
    rows = small.all(tuple(range(1, small.ndim)), keepdims=True)
    columns = small.all((0, *range(2, small.ndim)), keepdims=True)
    return np.broadcast_to(rows | columns, small.shape)
