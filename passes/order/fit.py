"""What a reader asks of an order, and the orders that suit some readers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .pq_tree import Tree


@dataclass(frozen=True)
class Demand:
    """Leaves (bits) that are to be one range, and what that is worth: 0 or more."""

    leaves: int
    weight: float

    def overlaps(self, other: Demand) -> bool:
        """Whether they share leaves, and each has others of its own."""
        return self.leaves & other.leaves not in (0, self.leaves, other.leaves)

    def is_nested_with(self, other: Demand) -> bool:
        """Whether one contains the other and more."""
        return self.leaves != other.leaves and self.leaves & other.leaves in (self.leaves, other.leaves)


@dataclass(frozen=True, eq=False)
class Fit:
    """The orders that meet some demands, and what these are worth together."""

    tree: Tree
    worth: float = 0.0

    def plus(self, demand: Demand) -> Fit | None:
        """The orders that meet one demand more; None where there is none."""
        tree = self.tree.restricted(demand.leaves)
        return None if tree is None else Fit(tree, self.worth + demand.weight)

    def plus_most(self, demands: Iterable[Demand]) -> Fit:
        """One demand after the other, leaving out what does not go with those before."""
        fit = self
        for demand in demands:
            fit = fit.plus(demand) or fit
        return fit
