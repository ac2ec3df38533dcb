"""Which packed form a tensor takes: the smallest of those that give it back exactly."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .bitmask import Bitmask
from .form import Array, Form
from .nm import Pattern, Sparse
from .palette import Palette

SMALL_BYTES = 4096
"""Tensors below this are left as they are: what makes them again would take as much."""

_NODES_BYTES = 1536
"""About what the nodes of a form take in a file."""

_DTYPES = {np.dtype(np.float32), np.dtype(np.float16), np.dtype(np.float64)}
_FEW_ZEROS = 0.05


@dataclass(frozen=True)
class Packing:
    """How tensors may be packed.

    ``patterns`` are tried on tensors in which they hold; ``known`` are forms that cannot be found in the numbers.
    """

    patterns: tuple[Pattern, ...] = ()
    known: tuple[Form, ...] = ()

    def smallest(self, tensor: Array) -> tuple[Form, bool] | None:
        """The smallest form that gives ``tensor`` back, and whether it is that of the transposed one; None for none."""
        if tensor.nbytes < SMALL_BYTES or tensor.dtype not in _DTYPES:
            return None
        tries = [(form, False) for form in self._forms(tensor)]
        if tensor.ndim == 2:
            tries += [(form, True) for form in self._forms(np.ascontiguousarray(tensor.T))]
        for form, transposed in sorted(tries, key=lambda found: found[0].size_bytes):
            if form.size_bytes + _NODES_BYTES >= tensor.nbytes:
                return None
            if np.array_equal(form.dense().T if transposed else form.dense(), tensor):
                return form, transposed
        return None

    def _forms(self, tensor: Array) -> Iterator[Form]:
        yield from (f for f in self.known if f.shape == tensor.shape and f.dtype == tensor.dtype)
        if (palette := Palette.found(tensor)) is not None:
            yield palette
        if np.count_nonzero(tensor) < (1 - _FEW_ZEROS) * tensor.size:
            yield Bitmask.of(tensor)
            yield from (Sparse.of(tensor, p) for p in self.patterns if p.holds(tensor))
