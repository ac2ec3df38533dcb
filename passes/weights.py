"""Weights: the parameters that layers multiply and sum, which masks and palettes are for.

Norms, biases and embeddings are none; nor is what reaches a product only through other nodes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from ..ir import arrays
from ..ir.analysis import Analysis
from ..ir.graph import Constant, Value
from ..ir.opset import OPS
from .parameter import Parameter
from .plan.patterns import Choosing, among


@dataclass(frozen=True, eq=False)
class Weight(Parameter):
    """A parameter that nodes multiply and sum over its axis ``summed``."""

    summed: int = 1

    @property
    def rows(self) -> tuple[int, ...]:
        """The shape as (o, i, *): the axis that is summed over second."""
        first, second, *rest = self.shape
        return (first, second, *rest) if self.summed == 1 else (second, first, *rest)

    def rows_first(self, array: NDArray[Any]) -> NDArray[Any]:
        """``array``, of the weight's shape, in the shape :attr:`rows`."""
        return array if self.summed == 1 else array.swapaxes(0, 1)


def weights(analysis: Analysis, by: Choosing | None = None) -> list[Weight]:
    """The weights of the graph: all, or those that ``by`` means.

    Raises
    ------
    UsageError
        A pattern matches no weight.
    """
    found = [w for v, c in analysis.graph.constants.items() if (w := _weight(analysis, v, c)) is not None]
    names = {w.name: [*w.constant.names, *(f"type:{op}" for op in w.ops)] for w in found}
    wanted = names if by is None else among(names, by)
    return [w for w in found if w.name in wanted]


def others(analysis: Analysis, found: Iterable[Weight]) -> list[str]:
    """The names of the other parameters of two axes and more: embeddings, and what reaches layers in other ways."""
    known = {w.name for w in found}
    held = (c for c in analysis.graph.constants.values() if c.role == "parameter" and arrays.is_float(c.data))
    return [c.name for c in held if len(c.data.shape) > 1 and c.name not in known]


def _weight(analysis: Analysis, value: Value, constant: Constant) -> Weight | None:
    rank = len(constant.data.shape)
    if constant.role != "parameter" or rank < 2 or not arrays.is_float(constant.data) or arrays.is_meta(constant.data):
        return None
    readers = analysis.graph.consumers().get(value, [])
    axes = {_summed(analysis, node.name, value) for node in readers}
    if len(axes) != 1 or (axis := axes.pop()) not in (0, 1):
        return None
    return Weight(value, constant, tuple(sorted({n.op for n in readers})), summed=axis)


def _summed(analysis: Analysis, name: str, value: Value) -> int | None:
    """The axis of ``value`` that the node called ``name`` sums over; None where it does something else."""
    site = analysis.sites.get(name)
    op = OPS[site.node.op] if site is not None else None
    if site is None or op is None or op.signature is None:
        return None
    rank = len(value.shape or ())
    for letter, operands in op.contracts(site.node).items():
        for k in operands:
            at = op.signature.place(k, letter)
            if site.node.inputs[k] is value and at is not None:
                return at % rank
    return None
