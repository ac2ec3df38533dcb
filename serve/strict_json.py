"""JSON of strangers: what is not JSON, or means two things, is refused before it costs memory.

Python's parser is taken, which is fast, and its liberties away from it: ``NaN`` and ``Infinity``, names that stand
twice in an object, objects and lists by the thousand (each is up to hundreds of bytes for two characters).  Depth is
bounded by the interpreter's own limit, integers by its limit of digits.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any, NoReturn

from .refusal import bad, shown

OBJECTS = 4096
"""Objects in one document: a request has two or three for each tensor."""

LISTS = 65536
"""Lists in one document, found by their brackets, those in strings too: nested data has one for each of its rows."""


def parse(text: bytes | bytearray | memoryview) -> dict[str, Any]:
    """The object that ``text`` is; raises :class:`Refused` (400) where it is none."""
    try:
        found = json.loads(_few_lists(str(text, "utf-8")), object_pairs_hook=_Objects().add, parse_constant=_no_number)
    except UnicodeDecodeError as error:
        raise bad(f"the JSON is not UTF-8: {error.reason} at byte {error.start}") from error
    except json.JSONDecodeError as error:
        raise bad(f"the request is not JSON: {error.msg} at character {error.pos}") from error
    except RecursionError as error:
        raise bad("the JSON is nested too deep", "data may be nested as deep as its shape has axes") from error
    except ValueError as error:  # more digits than the interpreter converts
        raise bad("the JSON has an integer with thousands of digits", "no datatype has more than 64 bits") from error
    if not isinstance(found, dict):
        raise bad(f"the request is {shown(found)}", "a request is an object with a list of inputs")
    return found


def _few_lists(text: str) -> str:
    if text.count("[") > LISTS:
        raise bad(f"the JSON has more than {LISTS} lists", "give data as one flat list")
    return text


class _Objects:
    """The objects of one document, counted."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        self.count += 1
        if self.count > OBJECTS:
            raise bad(f"the JSON has more than {OBJECTS} objects", "a request has a few for each tensor")
        found = dict(pairs)
        if len(found) != len(pairs):
            raise bad(f"the JSON has {shown(_twice(pairs))} twice in one object", "give each name once")
        return found


def _twice(pairs: list[tuple[str, Any]]) -> str:
    """The first name that stands more than once."""
    counts = Counter(name for name, _ in pairs)
    return next(name for name, count in counts.items() if count > 1)


def _no_number(text: str) -> NoReturn:
    raise bad(f"{text} is not JSON", "send tensors with NaN or infinities as binary data")
