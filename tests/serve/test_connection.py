"""Clients that mean harm, or are broken; meanwhile one that behaves gets its answers."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from prunec.runtime.portfolio import Portfolio
from prunec.serve.connection import GuardedConnection
from prunec.serve.limits import MB, Limits

from ..runtime.onnx_models import layers
from .client import Reply, as_binary, as_json, ask, connected, head, received, replied
from .serving import DENSE, EXAMPLE, MODEL, Gate, Running, make_portfolio, running, until

PATH = f"/v2/models/{MODEL}/infer"
BODY = as_json(EXAMPLE)
REQUEST = head(PATH, f"Content-Length: {len(BODY)}") + BODY
HASTY = Limits(head_s=1, body_s=1, idle_s=30, answer_s=1, linger_s=0.5, body_bytes=MB, json_bytes=MB, notice_s=0)


@pytest.fixture(scope="module")
def hasty(one_portfolio: Portfolio) -> Iterator[Running]:
    """A server that waits for nobody long."""
    with running(one_portfolio, HASTY) as found:
        yield found


def last(connection: socket.socket, server: Running) -> Reply:
    """The reply, after which the server closes; a client that behaves is served meanwhile and afterwards."""
    server.check()
    reply = replied(connection)
    with contextlib.suppress(ConnectionError):
        assert connection.recv(1) == b""
    server.check()
    return reply


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Portfolio:
    """A portfolio whose answers to :data:`MUCH` are larger than what a system holds of them."""
    return make_portfolio(tmp_path_factory.mktemp("wide"), {DENSE: layers(4, 1 << 16)})


def binary_request(examples: int) -> bytes:
    """A request for so many examples, with its head, and all as bytes."""
    body, header = as_binary({"x": EXAMPLE["x"].repeat(examples, 0)}, parameters={"binary_data_output": True})
    return head(PATH, f"Content-Length: {len(body)}", f"Inference-Header-Content-Length: {header}") + body


MUCH = binary_request(128)


def lasts(sent: list[bytes], server: Running) -> list[Reply]:
    """What is replied in the end to each of these, which are sent at once on a connection each."""
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(connected(server.url)) for _ in sent]
        for connection, data in zip(connections, sent, strict=True):
            connection.sendall(data)
        return [last(connection, server) for connection in connections]


def test_a_head_that_does_not_come_is_408(hasty: Running) -> None:
    long = b"GET /v2 HTTP/1.1\r\nA: " + b"a" * 9999
    for reply in lasts([b"", b"POST ", head(PATH, "Content-Length: 9")[:-2], long], hasty):
        assert (reply.status, reply.error) == (408, "the head of the request was not complete after 1 s")


def test_drops_put_nothing_off(hasty: Running) -> None:
    """Of a head, of the head of a second request, and of a body."""
    begun = {
        b"GET /v2 HTTP/1.1\r\n": b"A: b\r\n",
        REQUEST + b"G": b"G",
        head(PATH, "Content-Length: 5000"): b"{",
    }
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(connected(hasty.url)) for _ in begun]
        for connection, sent in zip(connections, begun, strict=True):
            connection.sendall(sent)
        assert replied_one(connections[1]).status == 200
        threads = ThreadPoolExecutor(len(begun))
        assert {found[:13] for found in threads.map(_dripping, connections, begun.values())} == {b"HTTP/1.1 408 "}


def _dripping(connection: socket.socket, drop: bytes) -> bytes:
    """What comes back while ``drop`` after ``drop`` is sent."""
    connection.settimeout(0.2)
    while True:
        try:
            return connection.recv(1 << 16)
        except TimeoutError:
            connection.sendall(drop)


def test_a_connection_on_which_nothing_comes_is_closed_without_a_word(portfolio: Portfolio) -> None:
    with running(portfolio, Limits(idle_s=1, notice_s=0)) as server, connected(server.url) as connection:
        connection.sendall(REQUEST)
        assert replied(connection).status == 200
        assert connection.recv(1) == b""


def test_a_body_that_does_not_come_is_408(hasty: Running) -> None:
    sent = [head(PATH, header) + b"1\r\n{\r\n" for header in ("Content-Length: 50", "Transfer-Encoding: chunked")]
    for reply in lasts(sent, hasty):
        assert (reply.status, reply.error) == (408, "the body was not complete after 1 s")


@pytest.mark.parametrize("header", ["Content-Length: 50", "Transfer-Encoding: chunked"])
def test_a_body_that_is_cut_off_is_400(server: Running, header: str) -> None:
    with connected(server.url) as connection:
        connection.sendall(head(PATH, header) + b"1\r\n{\r\n")
        connection.shutdown(socket.SHUT_WR)
        reply = last(connection, server)
    assert (reply.status, reply.error) == (400, "the body ends before it is complete")


@pytest.mark.parametrize("cut", [1, 30, 120, len(REQUEST) - 1, len(REQUEST)])
def test_a_client_that_leaves_harms_nobody(server: Running, cut: int) -> None:
    for _ in range(5):
        with connected(server.url) as connection:
            connection.sendall(REQUEST[:cut])
    server.check()


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 500,
        b"GARBAGE\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\r\n",
        head(PATH, "Content-Length: -1"),
        head(PATH, "Content-Length: 1e9"),
        head(PATH, "Content-Length: 5", "Content-Length: 6") + b"x" * 6,
        head(PATH, "Transfer-Encoding: gzip, chunked"),
        head(PATH, "Transfer-Encoding: chunked") + b"zz\r\n",
        head(PATH, "Transfer-Encoding: chunked") + b"fffffffffffffffffffff\r\n",
        b"GET /v2 HTTP/1.1\r\nA: " + b"a" * 20_000,
        b"GET /v2 HTTP/1.1\r\n" + b"a: b\r\n" * 5000,
        head(PATH, "Transfer-Encoding: chunked") + b"1\r\n \r\n" * 5000,
    ],
    ids=range(13),
)
def test_what_is_no_http_is_400(server: Running, sent: bytes) -> None:
    with connected(server.url) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(sent)
        reply = last(connection, server)
    assert reply.status == 400 and reply.headers["content-type"] == "application/json"
    assert "the request is no HTTP/1.1" in reply.error


@pytest.mark.parametrize("path", [PATH, "/v2/repository/index"])
def test_a_body_announced_in_two_ways_is_400_and_what_follows_no_request(server: Running, path: str) -> None:
    with connected(server.url) as connection:
        both = head(path, "Content-Length: 5", "Transfer-Encoding: chunked") + b"0\r\n\r\n"
        connection.sendall(both + head("/v2", method="GET"))
        reply = last(connection, server)
    assert reply.status == 400 and "its body is announced in two ways" in reply.error


def test_a_target_may_have_scheme_and_authority(server: Running) -> None:
    with connected(server.url) as connection:
        connection.sendall(head(f"http://user@host:80{PATH}", f"Content-Length: {len(BODY)}") + BODY)
        assert replied(connection).status == 200


def test_chunks_of_a_fair_size_are_taken(server: Running) -> None:
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(BODY[k : k + 7]), BODY[k : k + 7]) for k in range(0, len(BODY), 7))
    with connected(server.url) as connection:
        connection.sendall(head(PATH, "Transfer-Encoding: chunked") + chunks + b"0\r\n\r\n")
        assert replied(connection).status == 200


@pytest.mark.parametrize("extra", [(), ("Inference-Header-Content-Length: 100",)])
def test_more_than_is_taken_is_413_though_nothing_announced_it(hasty: Running, extra: tuple[str, ...]) -> None:
    """The refusal is read by a client that goes on sending; what it sends is dropped, but not for ever."""
    chunk = b"100000\r\n" + b"x" * (1 << 20) + b"\r\n"
    with connected(hasty.url) as connection:
        connection.sendall(head(PATH, "Transfer-Encoding: chunked", *extra))
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 3:
                connection.sendall(chunk)
                sent += 1
        hasty.check()
        with contextlib.suppress(ConnectionError):
            reply = replied(connection)
            assert reply.status == 413 and "is larger than" in reply.error
        with pytest.raises(ConnectionError):
            _send_for_ever(connection, chunk)
    hasty.check()


def _send_for_ever(connection: socket.socket, chunk: bytes) -> None:
    while True:
        connection.sendall(chunk)


def test_what_is_announced_too_large_is_not_awaited(server: Running) -> None:
    with connected(server.url) as connection:
        connection.sendall(head(PATH, f"Content-Length: {10**15}", "Expect: 100-continue"))
        assert replied(connection).status == 413
    server.check()


def test_who_asks_whether_to_send_is_told_to(server: Running) -> None:
    with connected(server.url) as connection:
        connection.sendall(head(PATH, f"Content-Length: {len(BODY)}", "Expect: 100-continue"))
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 100 ")
        connection.sendall(BODY)
        assert replied(connection).status == 200


def test_requests_one_behind_the_other_are_answered_in_order(server: Running) -> None:
    bodies = [as_json(EXAMPLE, id=str(k)) for k in range(20)]
    with connected(server.url) as connection:
        connection.sendall(b"".join(head(PATH, f"Content-Length: {len(b)}") + b for b in bodies))
        for k in range(20):
            assert replied_one(connection).json["id"] == str(k)


def replied_one(connection: socket.socket) -> Reply:
    """The next answer, and no byte more."""
    found = b""
    while not found.endswith(b"\r\n\r\n"):
        found += connection.recv(1)
    length = int(found.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    body = b""
    while len(body) < length:
        body += connection.recv(length - len(body))
    return Reply(int(found.split()[1]), {}, body)


def test_an_upgrade_is_not_made(server: Running) -> None:
    with connected(server.url) as connection:
        connection.sendall(head("/v2", "Connection: Upgrade, close", "Upgrade: websocket", method="GET"))
        assert received(connection).startswith(b"HTTP/1.1 200 ")


def test_answers_are_not_held_back(portfolio: Portfolio, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system would wait for 40 ms whether there is more to send."""
    found: list[int] = []
    respond = GuardedConnection.on_response_complete

    def look(self: GuardedConnection) -> None:
        own = self.transport.get_extra_info("socket")
        found.append(own.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        respond(self)

    monkeypatch.setattr(GuardedConnection, "on_response_complete", look)
    with running(portfolio) as server:
        server.check()
    assert found and all(found)


def test_idle_connections_make_room(portfolio: Portfolio) -> None:
    with running(portfolio, Limits(connections=8, notice_s=0)) as server, contextlib.ExitStack() as stack:
        idle = [stack.enter_context(connected(server.url)) for _ in range(50)]
        for connection in idle[25:]:
            with contextlib.suppress(ConnectionError):
                connection.sendall(head(PATH, "Content-Length: 1000"))
        for _ in range(20):
            server.check()
        with contextlib.suppress(ConnectionError):
            assert idle[0].recv(1) == b""


def test_connections_that_do_not_read_make_room(wide: Portfolio) -> None:
    limits = Limits(connections=2, answer_s=3600, notice_s=0)
    with running(wide, limits) as server, contextlib.ExitStack() as stack:
        for _ in range(2):
            connection = stack.enter_context(connected(server.url))
            connection.sendall(MUCH)
            assert connection.recv(12) == b"HTTP/1.1 200"
        until(lambda: ask(server.url, "/v2/health/ready").status == 200)


def test_connections_in_use_do_not(portfolio: Portfolio, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(portfolio)
    with running(portfolio, Limits(connections=2, notice_s=0), workers=2) as server:
        monkeypatch.setattr(portfolio, "run", gate.run)
        with connected(server.url) as first, connected(server.url) as second:
            first.sendall(REQUEST)
            second.sendall(REQUEST)
            until(lambda: gate.entered == 2)
            with connected(server.url) as third:
                reply = replied(third)
            assert (reply.status, reply.error) == (503, "2 connections are in use")
            assert reply.headers["retry-after"] == "1"
            gate.open()
            assert [replied(c).status for c in (first, second)] == [200, 200]


def test_a_client_that_does_not_read_is_cut_off(wide: Portfolio) -> None:
    with running(wide, HASTY) as server:
        with connected(server.url) as connection:
            connection.sendall(MUCH)
            assert connection.recv(12) == b"HTTP/1.1 200"
            mine = connection.getsockname()[1]
            until(lambda: mine not in _peers(server.url))
        server.check()


def _peers(url: str) -> set[int]:
    """Ports at the other end of the server's connections."""
    own = int(url.rpartition(":")[2])
    found = psutil.Process().net_connections("tcp4")
    return {c.raddr.port for c in found if c.raddr and c.laddr.port == own}
