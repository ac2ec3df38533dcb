"""Inputs as callers give them, held against what a model declares, so that nothing reaches the runtime that cannot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..ir.errors import UsageError
from ..ir.words import did_you_mean
from .session import Array, Input


def checked(given: Any, declared: Sequence[Input]) -> dict[str, Array]:
    """``given`` as arrays by input name: a mapping, one array, or a sequence of them in the order of the inputs.

    Raises
    ------
    UsageError
        An input is missing, unknown, or of another dtype or shape than the model declares.
    """
    arrays = {name: np.asarray(value) for name, value in _named(given, declared).items()}
    symbols: dict[str, int] = {}
    for item in declared:
        if item.name not in arrays:
            raise UsageError(f"input {item.name!r} is missing", hint=_inputs(declared), input=item.name)
        _check(item, arrays[item.name], symbols)
    for name in arrays:
        if name not in {i.name for i in declared}:
            hint = did_you_mean(name, [i.name for i in declared], _inputs(declared))
            raise UsageError(f"the model has no input {name!r}", hint=hint, input=name)
    return arrays


def _named(given: Any, declared: Sequence[Input]) -> Mapping[str, Any]:
    if isinstance(given, Mapping):
        return given
    values = given if isinstance(given, (tuple, list)) else (given,)
    if len(values) != len(declared):
        raise UsageError(f"{len(values)} inputs were given, and the model has {len(declared)}", hint=_inputs(declared))
    return dict(zip((i.name for i in declared), values))


def _check(item: Input, array: Array, symbols: dict[str, int]) -> None:
    if array.dtype != item.dtype and not (item.dtype.kind == "O" and array.dtype.kind in "OSU"):
        raise UsageError(
            f"input {item.name!r} is {array.dtype}, and the model declares {item.dtype}",
            hint=f"x.astype(numpy.{item.dtype})", input=item.name,
        )  # fmt: skip
    fits = array.ndim == len(item.shape) and all(
        size == dim if isinstance(dim, int) else size == symbols.setdefault(dim or f"{item.name}.{k}", size)
        for k, (size, dim) in enumerate(zip(array.shape, item.shape))
    )
    if not fits:
        raise UsageError(
            f"input {item.name!r} has the shape {list(array.shape)}, and the model declares {shape_text(item)}",
            hint="a symbol is any size, and one size wherever it stands", input=item.name, shape=array.shape,
        )  # fmt: skip


def shape_text(item: Input) -> str:
    """``[batch, 3, 224, 224]``"""
    return f"[{', '.join('?' if d is None else str(d) for d in item.shape)}]"


def _inputs(declared: Sequence[Input]) -> str:
    return f"inputs: {', '.join(f'{i.name} {i.dtype}{shape_text(i)}' for i in declared)}"
