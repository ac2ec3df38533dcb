"""Parameter: a trained constant of a graph, its numbers as numpy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from ..ir import arrays
from ..ir.codes import Code
from ..ir.graph import Constant, Graph, Value


@dataclass(frozen=True, eq=False)
class Parameter:
    """A trained constant (o, i, *), the ops that read it and its value in the graph."""

    value: Value
    constant: Constant
    ops: tuple[str, ...] = ()
    code: Code | None = None

    @property
    def name(self) -> str:
        return self.constant.name

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.constant.data.shape)

    @property
    def data(self) -> NDArray[Any]:
        """The whole of it, to be read; a criterion of single elements reads :meth:`blocks` instead."""
        data = arrays.to_numpy(self.constant.data)
        return _read_only(data if self.code is None else self.code.numbers(data))

    def blocks(self) -> Iterator[tuple[int, NDArray[Any]]]:
        """Runs of rows (r, i, *), each with the number of its first row."""
        found = arrays.blocks(self.constant.data if self.code is None else self.data)
        return ((start, _read_only(rows)) for start, rows in found)


def untrained(graph: Graph) -> list[Parameter]:
    """Constants of numbers that are no parameters: with them a channel whose weights are zero is not nothing.

    The running means and variances of batch norms are none: what they do to a channel, a gain of zero undoes.
    """
    statistics = {v for node in graph.nodes if node.op == "batch_norm" for v in node.inputs[3:5]}
    return [
        Parameter(value, constant)
        for value, constant in graph.constants.items()
        if constant.role != "parameter" and value not in statistics and arrays.is_float(constant.data)
    ]


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    """The same numbers, which lie in the user's own model, where nobody may write."""
    view = array.view()
    view.flags.writeable = False
    return view
