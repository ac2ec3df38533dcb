"""Palettes: each element, or vector of neighbours, is one of a few that stand in a table (weight clustering)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from . import bits
from .form import Array, Contradiction, Form, Held, Plain, Writer

WIDEST = 256
"""The most elements of a vector: a few bytes of indices shall not become a tensor that fills the memory."""


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
        if table.size > 256:
            return None
        unsigned = np.where(table == 0, np.zeros(1, table.dtype), table)
        return cls.of(tensor.shape, chosen.reshape(1, -1), unsigned.reshape(1, -1, 1), None)

    @property
    def is_found(self) -> bool:
        """Whether :meth:`found` finds it in the numbers."""
        return len(self.table) == 1 and self.table.shape[2] == 1 and self.scale is None

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.table.dtype

    def arrays(self) -> Mapping[str, Array]:
        scale = {} if self.scale is None else {"scale": self.scale}
        return {"codes": self.codes, "table": self.table, **scale}

    def facts(self) -> dict[str, Any]:
        return {**super().facts(), "groups": [len(self.table)], "scaled": self.scale is not None}

    @classmethod
    def restored(cls, held: Held) -> Palette:
        shape = held.numbers("shape")
        table = cls._table(held)
        g, k, d = table.shape
        if math.prod(shape) % (g * d):
            raise Contradiction(f"a table of shape {[g, k, d]} cannot make a tensor of shape {list(shape)}")
        width, count = bits.width_of(k), math.prod(shape) // d
        codes = held.bytes("codes", bits.bytes_of(width, count))
        if count and (last := int(bits.unpacked(codes, width, count).max())) >= k:
            raise Contradiction(f"index {last} of a table of {k}")
        return cls(shape, codes, table, cls._scale(held, shape, table.dtype))

    @staticmethod
    def _table(held: Held) -> Array:
        """The table (g, k, d); ONNX files hold it as (g k, d)."""
        groups, found = held.numbers("groups"), held.floats("table")
        entries, d = math.prod(found.shape[:-1]), found.shape[-1] if found.ndim > 1 else 0
        if len(groups) != 1 or not groups[0] or not 0 < d <= WIDEST or entries % groups[0]:
            raise Contradiction(f"a table of shape {list(found.shape)} is none for {list(groups)} runs of rows")
        if not 0 < entries // groups[0] <= 256 or (found.ndim > 2 and found.shape[:1] != groups):
            raise Contradiction(f"a table of shape {list(found.shape)} is none for {groups[0]} runs of rows")
        return found.reshape(groups[0], -1, d)

    @staticmethod
    def _scale(held: Held, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array | None:
        if type(scaled := held.facts.get("scaled")) is not bool:
            raise Contradiction("it is not said whether rows are scaled")
        if not scaled:
            return None
        scale = held.floats("scale", (*shape[:1], *[1] * (len(shape) - 1)))
        if scale.dtype != _exact(dtype):
            raise Contradiction(f"'scale' is of {scale.dtype.name}, not of {_exact(dtype).name}")
        return scale

    @property
    def _count(self) -> int:
        return math.prod(self.shape) // int(self.table.shape[2])

    def dense(self) -> Array:
        g, k, d = self.table.shape
        chosen = bits.unpacked(self.codes, bits.width_of(k), self._count).reshape(g, -1).astype(np.int64)
        tensor: Array = self.table.reshape(-1, d)[chosen + np.arange(g)[:, None] * k].reshape(self.shape)
        scaled: Array = tensor if self.scale is None else tensor.astype(_exact(self.dtype)) * self.scale
        return scaled.astype(self.dtype, copy=False)

    @classmethod
    def found_in_rows(cls, tensor: Array) -> Palette | None:
        """``tensor`` with a table for each row, where rows hold few numbers: a palette that a batch norm went into.

        torch's exporter folds those that follow a layer, so that each row has the same indices and a scale of its own.
        """
        if tensor.ndim < 2 or len(tensor) < 2 or len(np.unique(tensor[0])) > min(256, tensor[0].size // 2):
            return None
        pairs = [np.unique(row, return_inverse=True) for row in tensor.reshape(len(tensor), -1)]
        widest = max(len(table) for table, _ in pairs)
        if widest > 256:
            return None
        tables = np.stack([np.pad(table, (0, widest - len(table)), "edge") for table, _ in pairs])[:, :, None]
        return cls.of(tensor.shape, np.stack([chosen.ravel() for _, chosen in pairs]), tables, None)

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


def divides(shape: tuple[int, ...], group: int, dim: int) -> bool:
    """Whether ``group`` rows (0: all) that share a table divide a tensor (o, i, *), and ``dim`` these rows."""
    rows = group or shape[0]
    return shape[0] % rows == 0 and math.prod(shape[1:]) * rows % dim == 0


def _exact(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """In which dtype numbers are multiplied: runtimes have no products of shorter ones."""
    return np.promote_types(dtype, np.float32)


def values_of(data: Array) -> Form:
    """The numbers ``data`` as they are, or as a palette where that is smaller."""
    palette = Palette.found(data)
    return palette if palette is not None and palette.size_bytes < data.nbytes else Plain(data)


class Around(Form):
    """A form around ``values``, which are numbers in a form of their own."""

    values: Form

    @property
    def dtype(self) -> np.dtype[Any]:
        found: np.dtype[Any] = self.values.dtype
        return found

    def facts(self) -> dict[str, Any]:
        return {**super().facts(), "values": self.values.facts()}

    def arrays(self) -> Mapping[str, Array]:
        """Those of the values, behind the name ``values``."""
        return {f"values.{name}" if name else "values": array for name, array in self.values.arrays().items()}

    @staticmethod
    def values_held(held: Held, shape: tuple[int, ...]) -> Form:
        """The values of ``shape`` of which a file holds this."""
        inner = held.inside("values")
        kinds: dict[str, type[Form]] = {kind.name: kind for kind in (Plain, Palette)}
        if (name := str(inner.facts.get("form"))) not in kinds:
            raise Contradiction(f"values are in the form {name[:80]!r}")
        values = kinds[name].restored(inner)
        if tuple(values.shape) != shape:
            raise Contradiction(f"there are values of shape {list(values.shape)}, where {list(shape)} are needed")
        return values
