"""PQ-trees: all the orders of some leaves in which each of some sets is one range.

A node stands for its leaves, which are one range.  The children of a P-node may stand in any order, those of a Q-node
in the given one or its reverse.  To ask for one more range makes another tree, or none where no order suits.  Sets of
leaves are integers, bit by bit, and nodes never change: a search keeps as many trees as it likes.

Booth and Lueker's nine templates work upwards from the leaves in linear time.  Going downwards from the root, two
cases say the same, in time that grows with the number of nodes.  Start at :meth:`Tree.restricted`.

References
----------
Booth, Lueker: Testing for the consecutive ones property, interval graphs, and graph planarity using PQ-tree
algorithms, J. Comput. Syst. Sci. 13 (1976), section 3.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce

_EMPTY, _PARTIAL, _FULL = range(3)


@dataclass(frozen=True, eq=False)
class Tree:
    """A node and all below it.

    Attributes
    ----------
    leaves
        The leaves below, as bits; of a leaf its own bit.
    children
        None for a leaf.
    is_q
        Whether the children's order is fixed but for its direction.
    """

    leaves: int
    children: tuple[Tree, ...] = ()
    is_q: bool = False

    @classmethod
    def of(cls, leaves: Iterable[int]) -> Tree:
        """All orders of these leaves, of which there is at least one."""
        return _p([cls(1 << leaf) for leaf in leaves])

    def frontier(self) -> list[int]:
        """One of the orders: of those that the tree allows the one that keeps low leaves first where it can."""
        if not self.children:
            return [self.leaves.bit_length() - 1]
        children = list(self.children)
        if not self.is_q:
            children.sort(key=_first)
        elif _first(children[0]) > _first(children[-1]):
            children.reverse()
        return [leaf for child in children for leaf in child.frontier()]

    def restricted(self, together: int) -> Tree | None:
        """The tree of those orders in which the leaves ``together`` are one range; None where there is none."""
        inside = [k for k, child in enumerate(self.children) if child.leaves & together]
        if _kind(self, together) != _PARTIAL:
            return self
        if len(inside) == 1:
            return self._restricted_in(inside[0], together)
        return self._meeting_q(inside[0], inside[-1], together) if self.is_q else self._meeting_p(together)

    def _restricted_in(self, k: int, together: int) -> Tree | None:
        """All of ``together`` lies below one child."""
        child = self.children[k].restricted(together)
        if child is None:
            return None
        return Tree(self.leaves, (*self.children[:k], child, *self.children[k + 1 :]), self.is_q)

    def _meeting_p(self, together: int) -> Tree | None:
        """The full children gather in one child, between the two at most that are full in part."""
        empty, partial, full = _by_kind(self.children, together)
        ends = _ends(partial, together)
        if ends is None:
            return None
        left, right = ends
        return _p([*empty, _q([*left, *_gathered(full), *reversed(right)])])

    def _meeting_q(self, first: int, last: int, together: int) -> Tree | None:
        """From the first child to the last one that is not empty all are full, these two perhaps in part."""
        c = self.children
        if any(_kind(child, together) != _FULL for child in c[first + 1 : last]):
            return None
        ends = _ends([c[first], c[last]], together)
        if ends is None:
            return None
        left, right = ends
        return _q([*c[:first], *left, *c[first + 1 : last], *reversed(right), *c[last + 1 :]])


def _ends(nodes: Sequence[Tree], together: int) -> tuple[list[Tree], list[Tree]] | None:
    """Up to two nodes with their full leaves last; None where there are more, or one cannot be so."""
    found = [_full_last(node, together) for node in nodes]
    sides = [side for side in found if side is not None]
    if len(sides) < len(found) or len(sides) > 2:
        return None
    left, right = (*sides, [], [])[:2]
    return left, right


def _full_last(node: Tree, together: int) -> list[Tree] | None:
    """The node taken apart into children of a Q-node, first the empty and last the full ones; None if it cannot be."""
    if _kind(node, together) != _PARTIAL:
        return [node]
    children = _rising(node, together)
    empty, partial, full = _by_kind(children or (), together)
    middle = _full_last(partial[0], together) if len(partial) == 1 else []
    if children is None or len(partial) > 1 or middle is None:
        return None
    if node.is_q:
        return [*empty, *middle, *full]
    return [*_gathered(empty), *middle, *_gathered(full)]


def _rising(node: Tree, together: int) -> Sequence[Tree] | None:
    """The children with the full ones last; None where a Q-node's cannot stand so."""
    if not node.is_q:
        return node.children
    for children in (node.children, node.children[::-1]):
        kinds = [_kind(child, together) for child in children]
        if kinds == sorted(kinds):
            return children
    return None


def _kind(node: Tree, together: int) -> int:
    common = node.leaves & together
    if not common:
        return _EMPTY
    return _FULL if common == node.leaves else _PARTIAL


def _by_kind(nodes: Iterable[Tree], together: int) -> tuple[list[Tree], list[Tree], list[Tree]]:
    """The empty nodes, the partial ones, the full ones, each in their order."""
    found: tuple[list[Tree], list[Tree], list[Tree]] = [], [], []
    for node in nodes:
        found[_kind(node, together)].append(node)
    return found


def _first(node: Tree) -> int:
    """The bit of the lowest leaf."""
    return node.leaves & -node.leaves


def _gathered(nodes: Sequence[Tree]) -> list[Tree]:
    return [_p(nodes)] if nodes else []


def _p(children: Sequence[Tree]) -> Tree:
    return children[0] if len(children) == 1 else Tree(_union(children), tuple(children))


def _q(children: Sequence[Tree]) -> Tree:
    return children[0] if len(children) == 1 else Tree(_union(children), tuple(children), is_q=True)


def _union(nodes: Iterable[Tree]) -> int:
    return reduce(int.__or__, (node.leaves for node in nodes), 0)
