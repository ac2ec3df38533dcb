"""N:M sparsity: ``n`` of each ``m`` neighbours along an axis may be other than zero, for ``v`` adjacent rows alike.

``n`` counts what is kept.  The axis is that over which a layer sums (W: (o, i, *), axis 1); rows are the first axis.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from .. import arrays
from ..errors import UsageError
from . import bits
from .form import Array, Contradiction, Form, Held, Writer
from .palette import Around, values_of


@dataclass(frozen=True)
class Pattern:
    """``n`` kept of ``m`` along the axis that is summed over, the same ones in ``v`` adjacent rows."""

    n: int
    m: int
    v: int = 1

    @classmethod
    def of(cls, n: int | None, m: int | None, v: int, by: str) -> Pattern:
        """The pattern of the options of the pass ``by``; raises :class:`UsageError` where they are none."""
        if n is None or m is None or not 0 < n < m <= 256 or v < 1:
            raise UsageError(
                f"{by}: n={n}, m={m}, v={v} is no pattern", hint="n kept of m, 0 < n < m, v rows alike: n=2,m=4"
            )
        return cls(n, m, v)

    def __str__(self) -> str:
        return f"{self.n}:{self.m}" if self.v == 1 else f"{self.v}:{self.n}:{self.m}"

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether a tensor of ``shape`` (o, i, *) divides into blocks."""
        return len(shape) > 1 and shape[0] % self.v == 0 and shape[1] % self.m == 0

    def blocks(self, tensor: Any) -> Any:
        """``tensor`` (o, i, *), of numpy or torch, as blocks (o / v, *, i / m, v, m)."""
        last = arrays.moved_axis(tensor, 1, -1)
        split = last.reshape(-1, self.v, *last.shape[1:-1], last.shape[-1] // self.m, self.m)
        return arrays.moved_axis(split, 1, -2)

    def tensor(self, blocks: Any) -> Any:
        """What :meth:`blocks` were made of."""
        split = arrays.moved_axis(blocks, -2, 1)
        last = split.reshape(split.shape[0] * self.v, *split.shape[2:-2], split.shape[-2] * self.m)
        return arrays.contiguous(arrays.moved_axis(last, -1, 1))

    def holds(self, tensor: Array) -> bool:
        """Whether no block of ``tensor`` keeps more than ``n``."""
        return self.fits(tensor.shape) and bool(((self.blocks(tensor) != 0).any(-2).sum(-1) <= self.n).all())

    def best(self, scores: Array) -> NDArray[np.bool_]:
        """For each element whether it is among the ``n`` of its block that score highest, rows added up."""
        blocks = self.blocks(scores)
        order = np.argsort(-blocks.sum(-2, keepdims=True), axis=-1, kind="stable")
        kept = np.zeros(order.shape, bool)
        np.put_along_axis(kept, order[..., : self.n], True, axis=-1)
        best: NDArray[np.bool_] = self.tensor(np.broadcast_to(kept, blocks.shape))
        return best


@dataclass(frozen=True, eq=False)
class Sparse(Around):
    """``values`` (o / v, *, i / m, v, n), and ``places``: where in its block each stands, once for ``v`` rows."""

    shape: tuple[int, ...]
    pattern: Pattern
    places: NDArray[np.uint8]
    values: Form

    name: ClassVar[str] = "nm"

    @classmethod
    def of(cls, tensor: Array, pattern: Pattern) -> Sparse:
        """``tensor`` (o, i, *), in which ``pattern`` holds, in this form."""
        blocks = pattern.blocks(tensor)
        there = (blocks != 0).any(-2)
        places = np.sort(np.argsort(~there, axis=-1, kind="stable")[..., : pattern.n], axis=-1)
        values = np.take_along_axis(blocks, np.broadcast_to(places[..., None, :], (*blocks.shape[:-1], pattern.n)), -1)
        return cls(
            tensor.shape, pattern, bits.packed(places.astype(np.uint8), bits.width_of(pattern.m)), values_of(values)
        )

    def arrays(self) -> Mapping[str, Array]:
        return {"places": self.places, **super().arrays()}

    def facts(self) -> dict[str, Any]:
        return {**super().facts(), "pattern": [self.pattern.n, self.pattern.m, self.pattern.v]}

    @classmethod
    def restored(cls, held: Held) -> Sparse:
        shape, numbers = held.numbers("shape"), held.numbers("pattern")
        if len(numbers) != 3 or not (0 < numbers[0] < numbers[1] <= 256 and numbers[2]):
            raise Contradiction(f"{list(numbers)} is no pattern n:m of v rows")
        pattern = Pattern(*numbers)
        if not pattern.fits(shape):
            raise Contradiction(f"the pattern {pattern} does not divide {list(shape)}")
        outer = (shape[0] // pattern.v, *shape[2:], shape[1] // pattern.m)
        width, count = bits.width_of(pattern.m), math.prod(outer) * pattern.n
        places = held.bytes("places", bits.bytes_of(width, count))
        each = bits.unpacked(places, width, count).reshape(-1, pattern.n).astype(np.int64)
        if (each >= pattern.m).any() or (np.diff(each) <= 0).any():
            raise Contradiction(f"places in a block of {pattern.m} that it does not have, or that do not ascend")
        return cls(shape, pattern, places, cls.values_held(held, (*outer, pattern.v, pattern.n)))

    def dense(self) -> Array:
        *outer, v, n = self.values.shape
        width, count = bits.width_of(self.pattern.m), math.prod(outer) * n
        places = bits.unpacked(self.places, width, count).reshape(*outer, 1, n).astype(np.int64)
        blocks = np.zeros((*outer, v, self.pattern.m), self.dtype)
        np.put_along_axis(blocks, np.broadcast_to(places, self.values.shape), self.values.dense(), axis=-1)
        tensor: Array = self.pattern.tensor(blocks)
        return tensor

    def write(self, out: Writer) -> str:
        *outer, v, n = self.values.shape
        flat = bits.write(out, "places", self.places, bits.width_of(self.pattern.m), math.prod(outer) * n)
        once = out.node("Reshape", [flat, out.constant("once", np.array([*outer, 1, n]))])
        places = out.node("Expand", [once, out.constant("each", np.array(self.values.shape))])
        empty = out.node(
            "Expand",
            [
                out.constant("zero", np.zeros(1, self.dtype)),
                out.constant("blocks", np.array([*outer, v, self.pattern.m])),
            ],
        )
        blocks = out.node("ScatterElements", [empty, places, self.values.write(out.inside("values"))], axis=-1)
        order = [0, len(outer), *range(1, len(outer)), len(outer) + 1]
        rows = out.node("Transpose", [blocks], perm=order)
        o, i, *rest = self.shape
        last = out.node("Reshape", [rows, out.constant("rows", np.array([o, *rest, i]))])
        return out.node("Transpose", [last], perm=[0, len(self.shape) - 1, *range(1, len(self.shape) - 1)])
