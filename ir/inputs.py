"""Inputs as callers give them: by name, or in the order that the model has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .errors import UsageError
from .words import did_you_mean


def in_order(given: Any, names: Sequence[str]) -> list[Any]:
    """A tuple or list as it is, a mapping in the order of ``names``, anything else as the only input.

    Raises
    ------
    UsageError
        A mapping has a name too many, or one too few.
    """
    if not isinstance(given, Mapping):
        return list(given) if isinstance(given, (tuple, list)) else [given]
    listed = f"inputs: {', '.join(names) or 'none'}"
    for name in given:
        if name not in names:
            hint = did_you_mean(str(name), names, listed)
            raise UsageError(f"the model has no input {name!r}", hint=hint, input=name)
    for name in names:
        if name not in given:
            raise UsageError(f"input {name!r} is missing", hint=listed, input=name)
    return [given[name] for name in names]
