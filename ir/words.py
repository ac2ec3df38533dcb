"""Words of messages: numbers with their nouns, and the names that look like one which is not known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def counted(number: int, noun: str) -> str:
    """``1 unit``, ``2,000 units``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def near(name: str, known: Iterable[str], most: int = 3) -> list[str]:
    """The ``known`` names closest to ``name``, whatever their case.

    >>> near("L2", ["l1", "l2", "random"]), near("fold", ["plan"])
    (['l2'], [])
    """
    spelled = {k.lower(): k for k in sorted(known, reverse=True)}
    return [spelled[k] for k in difflib.get_close_matches(name.lower(), list(spelled), n=most)]


def did_you_mean(name: str, known: Iterable[str], more: str = "", most: int = 3) -> str:
    """A hint: the names that look like ``name``, as a question where there are any; then ``more``.

    >>> did_you_mean("scor", ["plan", "score"], "known: plan, score")
    "did you mean 'score'? known: plan, score"
    >>> did_you_mean("x", ["plan", "score"], "known: plan, score")
    'known: plan, score'
    """
    found = near(name, known, most)
    return " ".join(filter(None, [f"did you mean {' or '.join(map(repr, found))}?" if found else "", more]))
