"""A bit for each element, and the elements that are not zero: for unstructured sparsity."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from . import bits
from .form import Array, Contradiction, Form, Held, Writer
from .palette import Around, values_of


@dataclass(frozen=True, eq=False)
class Bitmask(Around):
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

    def arrays(self) -> Mapping[str, Array]:
        return {"mask": self.mask, **super().arrays()}

    @classmethod
    def restored(cls, held: Held) -> Bitmask:
        shape = held.numbers("shape")
        mask = held.bytes("mask", bits.bytes_of(1, math.prod(shape)))
        there = int(np.count_nonzero(bits.unpacked(mask, 1, math.prod(shape))))
        values = cls.values_held(held, (there + 1,))
        if values.dense()[0] != 0:
            raise Contradiction("the first of the values, which stands for all others, is not zero")
        return cls(shape, mask, values)

    def dense(self) -> Array:
        there = bits.unpacked(self.mask, 1, math.prod(self.shape)).astype(np.int64)
        tensor: Array = self.values.dense()[np.cumsum(there) * there].reshape(self.shape)
        return tensor

    def write(self, out: Writer) -> str:
        there = bits.write(out, "mask", self.mask, 1, math.prod(self.shape))
        rank = out.node("CumSum", [there, out.constant("axis", np.array(0, np.int32))])
        values = self.values.write(out.inside("values"))
        flat = out.node("Gather", [values, out.node("Mul", [rank, there])], axis=0)
        return out.node("Reshape", [flat, out.constant("shape", np.array(self.shape))])
