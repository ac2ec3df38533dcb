"""Which packed form a tensor takes: the smallest of those that give it back exactly.

All numbers come back as they were; zeros lose their sign (-0.0, which training with a mask leaves, is a zero).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .bitmask import Bitmask
from .description import Packed
from .form import Array, Form
from .nm import Pattern, Sparse
from .palette import Palette

SMALL_BYTES = 4096
"""Tensors below this are left as they are: what makes them again would take as much."""

_NODES_BYTES = 1536
"""About what the nodes of a form take in a file."""

_DTYPES = {"float32", "float16", "float64", "bfloat16"}
_FEW_ZEROS = 0.05

PACKING = "prunec.packing"
"""Where a graph's ``source``, and the ``meta`` of a torch module, hold how their weights may be packed."""


@dataclass(frozen=True)
class Packing:
    """How tensors may be packed.

    ``patterns`` are tried on tensors in which they hold; ``known`` are forms that cannot be found in the numbers.
    """

    patterns: tuple[Pattern, ...] = ()
    known: tuple[Form, ...] = ()

    def with_others(self, other: Packing) -> Packing:
        """What is known to either."""
        return Packing(tuple(dict.fromkeys((*self.patterns, *other.patterns))), (*self.known, *other.known))

    def that_holds(self, tensors: Sequence[Array]) -> Packing:
        """What of it is true of one of ``tensors``, or of one transposed."""
        either = [*tensors, *(t.T for t in tensors if t.ndim == 2)]
        patterns = (p for p in self.patterns if any(p.fits(t.shape) and p.holds(t) for t in either))
        known = (f for f in self.known if any(_gives(f, t) for t in either))
        return Packing(tuple(patterns), tuple(known))

    @classmethod
    def of(cls, forms: Iterable[Form]) -> Packing:
        """What tensors in these ``forms`` tell of how they may be packed again."""
        found = list(forms)
        patterns = dict.fromkeys(f.pattern for f in found if isinstance(f, Sparse))
        return cls(tuple(patterns), tuple(f for f in found if isinstance(f, Palette) and not f.is_found))

    @classmethod
    def of_module(cls, model: Any) -> Packing | None:
        """What a torch module, or parts of it, hold in their ``meta``, where a compile or a training left it."""
        found: Packing | None = None
        for part in model.modules() if hasattr(model, "modules") else ():
            meta = getattr(part, "meta", None)
            held = meta.get(PACKING) if isinstance(meta, dict) else None
            if isinstance(held, cls):
                found = held if found is None else found.with_others(held)
        return found

    def smallest(self, tensor: Array) -> Packed | None:
        """The smallest form that gives ``tensor``, or the transposed one, back; None where it stays as it is."""
        if tensor.nbytes < SMALL_BYTES or tensor.dtype.name not in _DTYPES:
            return None
        tries = [Packed(form) for form in self._forms(tensor)]
        if tensor.ndim == 2:
            tries += [Packed(form, transposed=True) for form in self._forms(np.ascontiguousarray(tensor.T))]
        for found in sorted(tries, key=lambda found: found.form.size_bytes):
            if found.form.size_bytes + _NODES_BYTES >= tensor.nbytes:
                return None
            if np.array_equal(found.dense(), tensor):
                return found
        return None

    def _forms(self, tensor: Array) -> Iterator[Form]:
        yield from (f for f in self.known if f.shape == tensor.shape and f.dtype == tensor.dtype)
        yield from (p for p in (Palette.found(tensor), Palette.found_in_rows(tensor)) if p is not None)
        if np.count_nonzero(tensor) < (1 - _FEW_ZEROS) * tensor.size:
            yield Bitmask.of(tensor)
            yield from (Sparse.of(tensor, p) for p in self.patterns if p.holds(tensor))


def _gives(form: Form, tensor: Array) -> bool:
    """Whether ``form`` is one of ``tensor``."""
    return form.shape == tensor.shape and form.dtype == tensor.dtype and np.array_equal(form.dense(), tensor)
