"""A bit for each element, and the elements that are not zero: for unstructured sparsity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from . import bits
from .form import Array, Form, Writer
from .palette import held, values_of


@dataclass(frozen=True, eq=False)
class Bitmask(Form):
    """``mask`` is one bit an element, ``values`` those that are not zero, in order, behind a zero for all others."""

    shape: tuple[int, ...]
    mask: NDArray[np.uint8]
    values: Form

    name: ClassVar[str] = "bitmask"

    @classmethod
    def of(cls, tensor: Array) -> Bitmask:
        """``tensor`` in this form."""
        there = tensor.ravel() != 0
        values = np.concatenate([np.zeros(1, tensor.dtype), tensor.ravel()[there]])
        return cls(tensor.shape, bits.packed(there.astype(np.uint8), 1), values_of(values))

    @property
    def dtype(self) -> np.dtype[Any]:
        found: np.dtype[Any] = self.values.dtype
        return found

    def arrays(self) -> Mapping[str, Array]:
        return {"mask": self.mask, **held(self.values)}

    def dense(self) -> Array:
        there = bits.unpacked(self.mask, 1, int(np.prod(self.shape))).astype(np.int64)
        tensor: Array = self.values.dense()[np.cumsum(there) * there].reshape(self.shape)
        return tensor

    def write(self, out: Writer) -> str:
        there = bits.write(out, "mask", self.mask, 1, int(np.prod(self.shape)))
        rank = out.node("CumSum", [there, out.constant("axis", np.array(0, np.int32))])
        values = self.values.write(out.inside("values"))
        flat = out.node("Gather", [values, out.node("Mul", [rank, there])], axis=0)
        return out.node("Reshape", [flat, out.constant("shape", np.array(self.shape))])
