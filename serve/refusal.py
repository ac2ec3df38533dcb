"""What is answered to a request that is not carried out: a status, a message, and headers that go with them.

The message names what was found and what is declared; nothing of what a client sent is repeated at length.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse

from ..ir.errors import PrunecError

_SHOWN, _ITEMS, _BITS = 80, 20, 128


class Refused(PrunecError):
    """A request that is answered with ``status``, the message as ``{"error": …}``, and ``headers``."""

    def __init__(
        self, status: int, message: str, *, hint: str = "", headers: Mapping[str, str] | None = None, **data: Any
    ) -> None:
        super().__init__(message, hint=hint, **data)
        self.status = status
        self.headers = dict(headers or {})

    @property
    def text(self) -> str:
        """The message and the hint on one line."""
        return f"{self.message}; {self.hint}" if self.hint else self.message

    def __str__(self) -> str:
        return self.text


def refused(refusal: Refused) -> JSONResponse:
    """``{"error": …}`` with the status and the headers of ``refusal``."""
    return JSONResponse({"error": refusal.text}, refusal.status, refusal.headers)


def bad(message: str, hint: str = "", **data: Any) -> Refused:
    """400: the request does not say what it should."""
    return Refused(400, message, hint=hint, **data)


def too_large(what: str, limit: int, hint: str = "") -> Refused:
    """413: more than ``limit`` bytes."""
    return Refused(413, f"{what} is larger than {limit:,} bytes", hint=hint)


def busy(why: str) -> Refused:
    """503: there is no room now, and the same request may be sent again."""
    return Refused(503, why, hint="send it again later", headers={"retry-after": "1"})


def shown(found: Any) -> str:
    """What a client sent, in so many characters at most.

    >>> shown("x"), shown([1, 2]), len(shown("x" * 1000))
    ("'x'", '[1, 2]', 80)
    """
    text = _repr(found)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def _repr(found: Any) -> str:
    if isinstance(found, list):
        return f"[{', '.join(map(_flat, found[:_ITEMS]))}{', …' if len(found) > _ITEMS else ''}]"
    return _flat(found)


def _flat(found: Any) -> str:
    """Without what is inside of it, however deep or long that is."""
    if isinstance(found, (dict, list)):
        return "an object" if isinstance(found, dict) else "a list"
    if isinstance(found, int) and found.bit_length() > _BITS:
        return f"an integer of {found.bit_length()} bits"
    if isinstance(found, str):
        return repr(found[:_SHOWN])
    return json.dumps(found)
