"""One variant of a portfolio as it was built: the file, what it is worth, and how it was made."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Built:
    """A variant.

    Attributes
    ----------
    name
        ``dense``, ``level-1``, …
    model
        A whole ``.onnx`` file, in the work folder.
    density
        Elements of its weights that are not zero, over the elements of the dense network's weights.
    params
        Parameters of the compact network.
    accuracy
        What ``evaluate`` said, higher is better; None without such a function.
    facts
        How it was made: method, what was asked, seconds of each step, verification, notes; JSON-serialisable.
    """

    name: str
    model: Path
    density: float
    params: int
    accuracy: float | None
    facts: dict[str, Any] = field(default_factory=dict)
