"""A promise held against what was seen."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    """``seen`` is to be ``bound`` or less; or more, where ``more``.  ``what`` says of what, ``unit`` in what."""

    what: str
    seen: float
    bound: float
    unit: str = ""
    more: bool = False

    @property
    def holds(self) -> bool:
        """Whether it is so."""
        return self.seen >= self.bound if self.more else self.seen <= self.bound

    def __str__(self) -> str:
        word, side = "holds" if self.holds else "falls short", "at least" if self.more else "at most"
        return f"{word:<12}{self.what}: {self.seen:.4g}{self.unit}; promised: {side} {self.bound:g}{self.unit}"
