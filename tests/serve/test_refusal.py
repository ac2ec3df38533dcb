from __future__ import annotations

from typing import Any

import pytest

from prunec.serve.refusal import Refused, bad, busy, shown, too_large


@pytest.mark.parametrize(
    ("found", "text"),
    [
        ("x", "'x'"),
        (None, "null"),
        (True, "true"),
        (1.5, "1.5"),
        (10**400, "an integer of 1329 bits"),
        ([1, "a", [[]], {}], "[1, 'a', a list, an object]"),
        ({"a": 1}, "an object"),
    ],
)
def test_what_was_sent_is_shown(found: Any, text: str) -> None:
    assert shown(found) == text


@pytest.mark.parametrize("found", ["x" * 10**6, [1] * 10**6, [["x" * 100] * 9] * 50, ["x" * 1000] * 100])
def test_but_never_at_length(found: Any) -> None:
    assert len(shown(found)) <= 80


def test_deep_lists_are_not_descended_into() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert shown(deep) == "[a list]"


def test_refusals_know_their_status_and_headers() -> None:
    assert (bad("a", "b").status, bad("a", "b").text, bad("a").text) == (400, "a; b", "a")
    assert (too_large("it", 1000).status, too_large("it", 1000).text) == (413, "it is larger than 1,000 bytes")
    assert (busy("no").status, busy("no").headers) == (503, {"retry-after": "1"})
    assert Refused(404, "x").headers == {}
