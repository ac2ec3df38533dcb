"""What is kept of an epoch that ended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ...ir.errors import UsageError

KEPT = ("epoch", "loss", "sparsity")
"""What the training object itself says of each epoch; metrics have other names."""


def ended(epoch: int, loss: float | None, sparsity: float, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """An entry of the history, of plain numbers; a metric is a number or a tensor of one element.

    Raises
    ------
    UsageError
        A metric has a name that is taken, or is no number.
    """
    if taken := [name for name in metrics if name in KEPT]:
        raise UsageError(
            f"training, epoch {epoch - 1}: a metric cannot be called {taken[0]}", hint="give it another name"
        )
    found: dict[str, Any] = {"epoch": epoch, "loss": loss, "sparsity": sparsity}
    return found | {
        name: number(value, f"training, epoch {epoch - 1}: the metric {name}") for name, value in metrics.items()
    }


def number(value: Any, what: str) -> float:
    """A number, or a tensor of one element, as a number; raises :class:`UsageError` for all else."""
    try:
        return float(value.detach() if isinstance(value, torch.Tensor) else value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"{what} is a {type(value).__name__}, and no number", hint="a number, or a tensor of one element"
        ) from error


def in_words(entry: Mapping[str, Any]) -> str:
    """``loss 0.1234  accuracy 0.9712``: what was told of an epoch."""
    told = {k: v for k, v in entry.items() if k not in ("epoch", "sparsity") and v is not None}
    return "  ".join(f"{name} {value:.4g}" for name, value in told.items())
