"""prunec, a compiler for pruning: a network goes in, a smaller and faster one that computes the same comes out.

Names are handed on when they are first used: importing torch, onnx and scipy costs seconds.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .version import __version__

if TYPE_CHECKING:
    from .api import analyze, bench, compile, criterion, load, train, verify
    from .ir.errors import (
        BudgetError,
        EnvironmentProblem,
        ModelError,
        PassError,
        PrunecError,
        UsageError,
        VerificationError,
    )
    from .packed_weights import pack, unpack
    from .recipe import Recipe
    from .runtime.portfolio import Portfolio

_HOMES = {
    "api": ("analyze", "bench", "compile", "criterion", "load", "train", "verify"),
    "ir.errors": (
        "BudgetError",
        "EnvironmentProblem",
        "ModelError",
        "PassError",
        "PrunecError",
        "UsageError",
        "VerificationError",
    ),
    "packed_weights": ("pack", "unpack"),
    "recipe": ("Recipe",),
    "runtime.portfolio": ("Portfolio",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "BudgetError",
    "EnvironmentProblem",
    "ModelError",
    "PassError",
    "Portfolio",
    "PrunecError",
    "Recipe",
    "UsageError",
    "VerificationError",
    "__version__",
    "analyze",
    "bench",
    "compile",
    "criterion",
    "load",
    "pack",
    "train",
    "unpack",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOME_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
