"""What a training came to, layer by layer: a table for people, and its rows as data."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ...ir.words import counted
from .history import in_words

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

_MANY, _LEAST = 256, 2048
"""Distinct values that are counted, in weights of at least so many elements: else they are not few."""


@dataclass(frozen=True)
class Row:
    """A weight in training: by which method, its shape, the share of zeros, how many values (None: not few)."""

    name: str
    method: str
    shape: tuple[int, ...]
    sparsity: float
    values: int | None

    @property
    def elements(self) -> int:
        found = 1
        for size in self.shape:
            found *= size
        return found


@dataclass(frozen=True)
class Summary:
    """A table of the weights in training: ``print`` gives text, ``rich.print`` a table of rich, ``rows`` the data.

    last: the last entry of the history, None before the first epoch has ended.  notes: lines that end the table.
    """

    rows: tuple[Row, ...]
    last: Mapping[str, Any] | None
    notes: tuple[str, ...] = ()

    @property
    def sparsity(self) -> float:
        """The share of zeros in all weights together."""
        total = sum(row.elements for row in self.rows)
        return sum(row.sparsity * row.elements for row in self.rows) / total if total else 0.0

    def __str__(self) -> str:
        from rich.console import Console

        written = io.StringIO()
        Console(file=written, width=100_000, color_system=None).print(self)  # as wide as the table is
        return "\n".join(line.rstrip() for line in written.getvalue().splitlines())

    def __rich__(self) -> Group:
        from rich.console import Group
        from rich.text import Text

        return Group(Text(self._title()), self._table(), *(Text(f"note: {note}") for note in self.notes))

    def _table(self) -> Table:
        from rich.table import Table
        from rich.text import Text

        table, few = Table(show_footer=True), any(row.values is not None for row in self.rows)
        total = sum(row.elements for row in self.rows)
        for head, foot in (("weight", "all of these"), ("method", ""), ("shape", "")):
            table.add_column(head, foot, overflow="fold")
        for head, foot in (("elements", f"{total:,}"), ("zeros", f"{self.sparsity:.1%}"), *([("values", "")] * few)):
            table.add_column(head, foot, justify="right", no_wrap=True)
        for row in self.rows:
            values = ["" if row.values is None else str(row.values)] * few
            shape = "x".join(map(str, row.shape))
            cells = (row.name, row.method, shape, f"{row.elements:,}", f"{row.sparsity:.1%}", *values)
            table.add_row(*map(Text, cells))
        return table

    def _title(self) -> str:
        if self.last is None:
            return "before the first epoch"
        return f"after {counted(self.last['epoch'], 'epoch')}  {in_words(self.last)}".rstrip()


def values_of(weight: Tensor) -> int | None:
    """How many values the elements of ``weight`` have, zero among them; None where they are not few."""
    flat = weight.detach().flatten()
    if flat.numel() < _LEAST or _distinct(flat[:_LEAST]) > _MANY:
        return None
    found = _distinct(flat)
    return found if found <= _MANY else None


def _distinct(flat: Tensor) -> int:
    ordered = flat.sort().values
    return 1 + int((ordered[1:] != ordered[:-1]).sum())
