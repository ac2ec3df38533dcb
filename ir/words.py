"""Words of messages: numbers with their nouns, and the names that look like one which is not known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping


def counted(number: int, noun: str) -> str:
    """``1 unit``, ``2,000 units``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def listed(names: Iterable[str], most: int = 3) -> str:
    """The first few of ``names``.

    >>> listed("abcde")
    'a, b, c and 2 more'
    """
    found = list(names)
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return ", ".join(found[:most]) + more


def by_reason(left: Mapping[str, str]) -> str:
    """What is ``left``, by reason, one name each.

    >>> by_reason({"b": "chunk", "c": "norm", "a": "chunk"})
    'chunk: a and 1 more, norm: c'
    """
    named: dict[str, list[str]] = {}
    for name, why in sorted(left.items()):
        named.setdefault(why, []).append(name)
    each = ((why, f"{names[0]} and {len(names) - 1} more" if names[1:] else names[0]) for why, names in named.items())
    return ", ".join(f"{why}: {names}" for why, names in sorted(each))


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
