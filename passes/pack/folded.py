"""What fold costs in bytes: batch norms scale the rows of a weight, and what had few values has many."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ...ir import arrays
from ...ir.graph import Graph
from ...ir.packing.packing import Packing
from ...ir.words import counted, listed


def grown(graph: Graph, folded: Graph, packing: Packing) -> Iterator[str]:
    """A note on the weights of ``graph`` that take more bytes in the ``folded`` one; none where that is nothing."""
    changed = {
        c.name: (graph.constants[v].data, c.data)
        for v, c in folded.constants.items()
        if v in graph.constants and graph.constants[v].data is not c.data and arrays.is_float(c.data)
    }
    sizes = {name: tuple(_size_bytes(data, packing) for data in both) for name, both in changed.items()}
    more = {name: both for name, both in sizes.items() if both[1] > both[0]}
    if more:
        before, after = (sum(column) / 1e6 for column in zip(*more.values(), strict=True))
        yield (
            f"fold: batch norms scale the rows of {counted(len(more), 'weight')}, so that few values become many, and "
            f"the ONNX file holds {after:.3g} MB for {before:.3g}: leave fold out for an ONNX source (torch's exporter "
            f"folds batch norms by itself), or compile a folded model with the palette: {listed(list(more))}"
        )


def _size_bytes(data: Any, packing: Packing) -> int:
    """Bytes of a constant in its smallest form."""
    array = arrays.native(data)
    found = packing.smallest(array)
    return array.nbytes if found is None else found.form.size_bytes
