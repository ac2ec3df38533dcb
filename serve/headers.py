"""What the headers of a request say about its body, before any of it is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .limits import Limits
from .refusal import Refused, bad, shown, too_large

JSON_LENGTH = "inference-header-content-length"
"""The header of the binary tensor extension: how many bytes of the body are JSON; tensors follow."""

_ONCE = ("content-length", "content-encoding", JSON_LENGTH)
_SEND_BINARY = f"send tensors as binary data, with the header {JSON_LENGTH.title()}"

Headers = Sequence[tuple[bytes, bytes]]


@dataclass(frozen=True)
class Announced:
    """A body as its headers announce it.

    Attributes
    ----------
    json_bytes
        The bytes at its beginning that are JSON; None: all of them.
    most
        How many bytes it may have.
    too_large
        What is answered to more of them.
    """

    json_bytes: int | None
    most: int
    too_large: Refused


def announced(headers: Headers, limits: Limits) -> Announced:
    """What ``headers`` announce.

    Raises
    ------
    Refused
        400 for headers that make no sense or stand twice, 413 for more bytes than are taken, 415 for a body that is
        compressed: nothing is inflated, for a few bytes can hold any number of them.
    """
    found = _single(headers)
    _check_encoding(found)
    length, json_bytes = _number(found, "content-length"), _number(found, JSON_LENGTH)
    body = _body(json_bytes, limits)
    if length is not None and length > body.most:
        raise body.too_large
    if length is not None and json_bytes is not None and json_bytes > length:
        raise bad(f"{JSON_LENGTH.title()} is {json_bytes:,}, and the whole body is {length:,} bytes")
    return body


def _body(json_bytes: int | None, limits: Limits) -> Announced:
    as_json = too_large("JSON", limits.json_bytes, _SEND_BINARY)
    if json_bytes is None:
        return Announced(None, limits.json_bytes, as_json)
    if json_bytes > limits.json_bytes:
        raise as_json
    return Announced(json_bytes, limits.body_bytes, too_large("the body", limits.body_bytes, "send fewer examples"))


def _single(headers: Headers) -> dict[str, str]:
    """The headers that matter; each may stand once."""
    found: dict[str, str] = {}
    for raw, value in headers:
        name = raw.decode("latin-1").lower()
        if name in _ONCE:
            if name in found:
                raise bad(f"the header {name.title()} stands twice", "give it once")
            found[name] = value.decode("latin-1").strip()
    return found


def _check_encoding(found: dict[str, str]) -> None:
    encoding = found.get("content-encoding", "identity").lower()
    if encoding not in ("identity", ""):
        raise Refused(
            415, f"the body is encoded as {shown(encoding)}",
            hint="send it as it is", headers={"accept-encoding": "identity"},
        )  # fmt: skip


def _number(found: dict[str, str], name: str) -> int | None:
    text = found.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 20):
        raise bad(f"{name.title()} is {shown(text)}", "give a number of bytes")
    return int(text)
