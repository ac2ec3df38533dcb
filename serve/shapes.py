"""Shapes as clients state them, held against what the model declares, before anything is made of that size."""

from __future__ import annotations

import math
from typing import Any

from ..runtime.session import Input
from .limits import Limits
from .refusal import bad, shown


class Shapes:
    """The shapes of one request: a symbol has one size in all of them.

    Parameters
    ----------
    limits
        Bounds of the axes that the model leaves open.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._symbols: dict[str, int] = {}

    def checked(self, declared: Input, found: Any) -> tuple[int, ...]:
        """``found`` as a shape that fits ``declared``; raises :class:`Refused` (400) where it does not."""
        shape = _sizes(declared, found)
        if len(shape) != len(declared.shape):
            raise _misfit(declared, shape, f"{len(shape)} axes for {len(declared.shape)}")
        for axis, size in enumerate(shape):
            self._check_axis(declared, shape, axis, size)
        return shape

    def _check_axis(self, declared: Input, shape: tuple[int, ...], axis: int, size: int) -> None:
        dim = declared.shape[axis]
        if isinstance(dim, int):
            if size != dim:
                raise _misfit(declared, shape, f"axis {axis}")
            return
        self._check_open(declared, shape, axis, size)
        if dim and self._symbols.setdefault(dim, size) != size:
            raise _misfit(declared, shape, f"{dim} is {self._symbols[dim]} in another input, or axis")

    def _check_open(self, declared: Input, shape: tuple[int, ...], axis: int, size: int) -> None:
        """An axis that the model leaves open; only one that is not the first may be empty (a cache that begins)."""
        least, most, limit = (1, self.limits.batch, "batch") if axis == 0 else (0, self.limits.axis, "axis")
        if not least <= size <= most:
            raise _misfit(declared, shape, f"axis {axis} takes {least} to {most:,} (the server's limit `{limit}`)")


def elements(shape: tuple[int, ...]) -> int:
    """How many elements a tensor of this shape has."""
    return math.prod(shape)


def shape_text(declared: Input) -> str:
    """``[N, 3, ?, ?]``."""
    return f"[{', '.join('?' if dim is None else str(dim) for dim in declared.shape)}]"


def _sizes(declared: Input, found: Any) -> tuple[int, ...]:
    if not isinstance(found, list):
        raise bad(f"input {declared.name!r} has the shape {shown(found)}", "a shape is a list of integers")
    for size in found:
        if type(size) is not int or not 0 <= size < 2**31:
            raise bad(
                f"input {declared.name!r} has the shape {shown(found)}, and {shown(size)} is no size",
                f"declared is {shape_text(declared)}",
            )
    return tuple(found)


def _misfit(declared: Input, shape: tuple[int, ...], why: str) -> Exception:
    return bad(
        f"input {declared.name!r} has the shape {shown(list(shape))}, and the model declares {shape_text(declared)}",
        why, input=declared.name, shape=shape,
    )  # fmt: skip
