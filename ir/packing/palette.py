"""Palettes: each element, or vector of neighbours, is one of a few that stand in a table (weight clustering)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from . import bits
from .form import Array, Form, Plain, Writer


@dataclass(frozen=True, eq=False)
class Palette(Form):
    """``table`` (g, k, d): for each of ``g`` runs of rows ``k`` vectors of ``d`` neighbours; ``codes`` say which.

    The tensor is cut into ``g`` runs along its first axis, each into vectors in the order of memory.  ``scale`` (o, 1,
    …) multiplies each row, in float32 at least; None for none.
    """

    shape: tuple[int, ...]
    codes: NDArray[np.uint8]
    table: Array
    scale: Array | None = None

    name: ClassVar[str] = "palette"

    @classmethod
    def of(cls, shape: tuple[int, ...], chosen: NDArray[np.integer], table: Array, scale: Array | None) -> Palette:
        """A palette of the ``chosen`` entries (g, vectors) of ``table`` (g, k, d)."""
        return cls(shape, bits.packed(chosen, bits.width_of(table.shape[1])), table, scale)

    @classmethod
    def found(cls, tensor: Array) -> Palette | None:
        """``tensor`` in this form with a single table, where it holds no more than 256 numbers."""
        some = np.unique(tensor.ravel()[: 1 << 12])
        if some.size > 256:
            return None
        table, chosen = np.unique(tensor.ravel(), return_inverse=True)
        return None if table.size > 256 else cls.of(tensor.shape, chosen.reshape(1, -1), table.reshape(1, -1, 1), None)

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.table.dtype

    def arrays(self) -> Mapping[str, Array]:
        scale = {} if self.scale is None else {"scale": self.scale}
        return {"codes": self.codes, "table": self.table, **scale}

    @property
    def _count(self) -> int:
        return math.prod(self.shape) // int(self.table.shape[2])

    def dense(self) -> Array:
        g, k, d = self.table.shape
        chosen = bits.unpacked(self.codes, bits.width_of(k), self._count).reshape(g, -1).astype(np.int64)
        tensor: Array = self.table.reshape(-1, d)[chosen + np.arange(g)[:, None] * k].reshape(self.shape)
        scaled: Array = tensor if self.scale is None else tensor.astype(_exact(self.dtype)) * self.scale
        return scaled.astype(self.dtype, copy=False)

    def write(self, out: Writer) -> str:
        g, k, d = self.table.shape
        chosen = bits.write(out, "codes", self.codes, bits.width_of(k), self._count)
        if g > 1:
            runs = out.node("Reshape", [chosen, out.constant("runs", np.array([g, -1]))])
            chosen = out.node("Add", [runs, out.constant("first", (np.arange(g) * k).astype(np.int32)[:, None])])
        vectors = out.node("Gather", [out.constant("table", self.table.reshape(-1, d)), chosen], axis=0)
        tensor = out.node("Reshape", [vectors, out.constant("shape", np.array(self.shape))])
        if self.scale is None:
            return tensor
        wide = out.node("Cast", [tensor], to=_exact(self.dtype).name)
        return out.node("Cast", [out.node("Mul", [wide, out.constant("scale", self.scale)])], to=self.dtype.name)


def _exact(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """In which dtype numbers are multiplied: runtimes have no products of shorter ones."""
    return np.promote_types(dtype, np.float32)


def values_of(data: Array) -> Form:
    """The numbers ``data`` as they are, or as a palette where that is smaller."""
    palette = Palette.found(data)
    return palette if palette is not None and palette.size_bytes < data.nbytes else Plain(data)


def held(form: Form) -> Mapping[str, Array]:
    """The arrays of values that another form holds."""
    return {f"values.{name}": array for name, array in form.arrays().items()}
