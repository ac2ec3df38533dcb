from __future__ import annotations

import h11
import pytest

from prunec.serve.app import Readiness
from prunec.serve.http1 import Http1

from .client import head


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("http://host/v2?a=b", b"/v2?a=b"),
        ("HTTPS://user@[::1]:80/v2", b"/v2"),
        ("http://host", b"/"),
        ("http://host?a", b"/?a"),
        ("/http://host/v2", b"/http://host/v2"),
        ("//host/v2", b"//host/v2"),
        ("*", b"*"),
    ],
)
def test_of_a_target_the_path_counts(target: str, path: bytes) -> None:
    http = Http1(1000, Readiness())
    http.receive_data(head(target, "A: b", method="GET"))
    request = http.next_event()
    assert (request.target, request.method, list(request.headers)) == (path, b"GET", [(b"host", b"x"), (b"a", b"b")])


def test_a_body_is_announced_in_one_way() -> None:
    http = Http1(1000, Readiness())
    http.receive_data(head("/", "Transfer-Encoding: chunked", "Content-Length: 5"))
    with pytest.raises(h11.RemoteProtocolError, match="both Content-Length and Transfer-Encoding"):
        http.next_event()


@pytest.mark.parametrize(
    ("ready", "said", "found"), [(True, [], 0), (False, [], 1), (False, [("connection", "close")], 1)]
)
def test_once_it_is_not_ready_clients_are_told_to_go(ready: bool, said: list[tuple[str, str]], found: int) -> None:
    http = Http1(1000, Readiness(ready))
    http.receive_data(head("/", method="GET"))
    http.next_event()
    sent = http.send(h11.Response(status_code=200, headers=[("content-length", "0"), *said]))
    assert sent is not None and sent.lower().count(b"connection: close") == found
