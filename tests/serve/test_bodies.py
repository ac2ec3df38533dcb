from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest

from prunec.serve import bodies
from prunec.serve.bodies import Gone, HeldBytes, Message, gone, parted, read
from prunec.serve.headers import announced
from prunec.serve.limits import Limits
from prunec.serve.refusal import Refused

LIMITS = Limits(json_bytes=100, body_bytes=100, held_bytes=150)


class Pieces:
    """What a client sends, piece by piece; then it says nothing more, or leaves.  ``begun``: it has sent something."""

    def __init__(self, pieces: Iterable[bytes], *, ends: bool = True, leaves: bool = False) -> None:
        self.begun = asyncio.Event()
        found: list[Message] = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
        end: list[Message] = [{"type": "http.request"}] if ends else []
        self.left = [*found, *end, *([{"type": "http.disconnect"}] * leaves)]

    async def __call__(self) -> Message:
        if not self.left:
            self.begun.set()
            await asyncio.sleep(3600)
        return self.left.pop(0)


def body(pieces: Pieces, held: HeldBytes | None = None, limits: Limits = LIMITS) -> bytes:
    with (held or HeldBytes(limits.held_bytes, small=0)).share() as share:
        return bytes(asyncio.run(read(pieces, announced([], limits), share, limits)))


def test_pieces_are_put_together() -> None:
    assert body(Pieces([b"ab", b"", b"c"])) == b"abc"


def test_reading_stops_as_soon_as_it_is_too_much() -> None:
    pieces = Pieces([b"x" * 60] * 50)
    with pytest.raises(Refused, match="JSON is larger than 100 bytes") as refused:
        body(pieces)
    assert refused.value.status == 413
    assert len(pieces.left) == 49


def test_a_body_that_does_not_come_is_not_awaited_for_ever() -> None:
    with pytest.raises(Refused, match=r"the body was not complete after 0\.01 s") as refused:
        body(Pieces([b"a"], ends=False), limits=Limits(body_s=0.01))
    assert refused.value.status == 408
    assert refused.value.headers == {"connection": "close"}


def test_a_client_that_leaves_needs_no_answer() -> None:
    with pytest.raises(Gone):
        body(Pieces([b"a"], ends=False, leaves=True))


def test_all_requests_together_hold_so_much() -> None:
    held = HeldBytes(150, small=0)
    with held.share() as other:
        other.hold(100)
        assert body(Pieces([b"x" * 50]), held) == b"x" * 50
        with pytest.raises(
            Refused, match="requests in flight hold 100 bytes, the most are 150; send it again"
        ) as refused:
            body(Pieces([b"x" * 51]), held)
        assert refused.value.status == 503 and refused.value.headers == {"retry-after": "1"}
        assert held.total == 100
    assert held.total == 0


def test_less_may_always_be_held() -> None:
    held = HeldBytes(100, small=0)
    with held.share() as first, held.share() as second:
        first.hold(60)
        second.hold(40)
        first.hold(50)
        assert held.total == 90


def test_more_may_be_held_beside_what_is() -> None:
    held = HeldBytes(100, small=0)
    with held.share() as share:
        share.hold(60)
        share.hold_also(40)
        assert held.total == 100
        with pytest.raises(Refused, match="hold 100 bytes"):
            share.hold_also(1)
        assert held.total == 100


def test_small_requests_are_not_shut_out_by_large_ones() -> None:
    held = HeldBytes(100, small=10)
    with held.share() as large:
        large.hold(100)
        assert body(Pieces([b"x" * 10]), held) == b"x" * 10
        with pytest.raises(Refused, match="requests in flight hold"):
            body(Pieces([b"x" * 11]), held)


@pytest.mark.parametrize(
    ("patience_s", "small", "answers"),
    [
        (0, 0, ["the body stalled while others needed the room", "read"]),
        (60, 0, ["awaited", "requests in flight hold 80 bytes, the most are 100; send it again later"]),
        (0, 80, ["awaited", "requests in flight hold 80 bytes, the most are 100; send it again later"]),
        (0, 90, ["awaited", "read"]),
    ],
)
def test_a_body_that_stalls_makes_room(
    patience_s: float, small: int, answers: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only where others need it, and where it has been silent for long; small ones would make little room."""
    monkeypatch.setattr(bodies, "_PATIENCE_S", patience_s)
    held, stalled = HeldBytes(100, small=small), Pieces([b"x" * 80], ends=False)

    async def main() -> list[str]:
        first = asyncio.ensure_future(_answer(held, stalled))
        await stalled.begun.wait()
        assert held.total == 80
        second = await _answer(held, Pieces([b"x" * 90]))
        done, _ = await asyncio.wait({first}, timeout=0.01 if answers[0] == "awaited" else 30)
        first.cancel()
        return [first.result() if done else "awaited", second]

    assert asyncio.run(main()) == answers
    assert held.total == 0 and not held.awaited


async def _answer(held: HeldBytes, pieces: Pieces) -> str:
    with held.share() as share:
        try:
            await read(pieces, announced([], LIMITS), share, LIMITS)
        except Refused as refused:
            return refused.text
        return "read"


@pytest.mark.parametrize(("json_bytes", "parts"), [(None, (b"abcd", b"")), (1, (b"a", b"bcd")), (4, (b"abcd", b""))])
def test_a_body_is_json_and_tensors(json_bytes: int | None, parts: tuple[bytes, bytes]) -> None:
    head, rest = parted(bytearray(b"abcd"), json_bytes)
    assert (bytes(head), bytes(rest)) == parts


def test_json_longer_than_the_body_is_refused() -> None:
    with pytest.raises(Refused, match="announced with 5 bytes, and the whole body has 4"):
        parted(bytearray(b"abcd"), 5)


def test_who_leaves_is_noticed() -> None:
    pieces: Any = Pieces([b""], leaves=True)
    asyncio.run(asyncio.wait_for(gone(pieces), 30))
