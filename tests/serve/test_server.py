from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from prunec.ir.errors import EnvironmentProblem
from prunec.runtime.portfolio import Portfolio
from prunec.runtime.service import Service
from prunec.serve import HttpServer, Limits

from .client import Reply, as_json, ask, connected, head, infer, outputs, replied
from .serving import EXAMPLE, MODEL, WAIT_S, Gate, make_portfolio, running, until

PATH = f"/v2/models/{MODEL}/infer"
SERVER = """
import sys, time
from prunec.runtime.portfolio import Portfolio
from prunec.runtime.service import Service
from prunec.serve import Limits, serve

portfolio, seconds = Portfolio.open(sys.argv[1], threads=1), float(sys.argv[2])
run = portfolio.run

def slow(*given, **options):
    print("run", flush=True)
    time.sleep(seconds)
    return run(*given, **options)

portfolio.run = slow
limits = Limits(held_bytes=64 << 20, body_bytes=32 << 20, linger_s=30, notice_s=float(sys.argv[3]))
serve(Service(portfolio), port=0, limits=limits, started=lambda url: print(url, flush=True))
print("done", flush=True)
"""


@contextmanager
def process(folder: Path, *, run_s: float = 0.0, notice_s: float = 0.0) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server in a process of its own, and its URL."""
    make_portfolio(folder)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    arguments = [sys.executable, "-c", SERVER, str(folder), str(run_s), str(notice_s)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env=environment) as found:
        assert found.stdout is not None
        try:
            yield found, found.stdout.readline().strip()
        finally:
            found.kill()


def later(url: str, found: list[Reply]) -> threading.Thread:
    """A request in a thread."""
    thread = threading.Thread(target=lambda: found.append(infer(url, MODEL, as_json(EXAMPLE))))
    thread.start()
    return thread


def test_a_signal_ends_it_after_what_is_in_flight(tmp_path: Path) -> None:
    with process(tmp_path, run_s=0.5) as (server, url):
        found: list[Reply] = []
        thread = later(url, found)
        assert server.stdout is not None and server.stdout.readline() == "run\n"
        server.send_signal(signal.SIGINT)
        thread.join(WAIT_S)
        assert found[0].status == 200 and "y" in outputs(found[0])
        assert server.stdout.read() == "done\n"
        assert server.wait(WAIT_S) == 0


def test_the_other_signal_does_as_well(portfolio: Portfolio, monkeypatch: pytest.MonkeyPatch) -> None:
    handlers: dict[int, Any] = {}
    monkeypatch.setattr(signal, "signal", handlers.__setitem__)
    with running(portfolio) as server:
        server.server._server.handle_exit(signal.SIGTERM, None)
        server.thread.join(WAIT_S)
        assert not server.thread.is_alive()
    assert handlers == {signal.SIGINT: signal.SIG_DFL, signal.SIGTERM: signal.SIG_DFL}


def _refuses(url: str) -> bool:
    try:
        ask(url, "/v2")
    except OSError:
        return True
    return False


def test_it_is_not_ready_before_it_ends_which_a_second_signal_makes_at_once(tmp_path: Path) -> None:
    with process(tmp_path, notice_s=3600) as (server, url):
        ready = ask(url, "/v2/health/ready")
        assert ready.status == 200 and "connection" not in ready.headers
        server.terminate()
        until(lambda: ask(url, "/v2/health/ready").status == 503)
        reply = ask(url, f"/v2/models/{MODEL}/ready")
        assert (reply.status, reply.error) == (503, "the server stops; send it again later")
        assert ask(url, "/v2/health/live").status == 200
        index = ask(url, "/v2/repository/index", method="POST").json
        assert {(line["state"], line["reason"]) for line in index} == {("UNAVAILABLE", "the server stops")}
        reply = infer(url, MODEL, as_json(EXAMPLE))
        assert (reply.status, reply.headers["connection"]) == (200, "close")
        server.terminate()
        assert server.wait(WAIT_S) == -signal.SIGTERM


def test_large_bodies_take_bounded_memory(tmp_path: Path) -> None:
    """Twenty clients send 30 MB each but for the last byte; the server holds two of them, and refuses the rest.

    Those that it holds may have to make room, for they are silent until all are sent.
    """
    with process(tmp_path) as (server, url):
        infer(url, MODEL, as_json(EXAMPLE))
        before = most = _rss(server)
        replies: list[int] = []
        threads = [threading.Thread(target=_send_most, args=(url, replies)) for _ in range(20)]
        for thread in threads:
            thread.start()
        while alive := [thread for thread in threads if thread.is_alive()]:
            most = max(most, _rss(server))
            alive[0].join(0.01)
        assert len(replies) == 20 and set(replies) <= {503, 408, 400} and replies.count(400) <= 10
        assert most - before < 300 << 20
        assert infer(url, MODEL, as_json(EXAMPLE)).status == 200


def _rss(server: subprocess.Popen[str]) -> int:
    return int(psutil.Process(server.pid).memory_info().rss)


_ALL_SENT = threading.Barrier(20)


def _send_most(url: str, replies: list[int]) -> None:
    size = 30 << 20
    with connected(url) as connection:
        connection.sendall(head(PATH, f"Content-Length: {size}", "Inference-Header-Content-Length: 100"))
        connection.sendall(b"x" * (size - 1))
        _ALL_SENT.wait(WAIT_S)
        try:
            connection.sendall(b"x")
            replies.append(replied(connection).status)
        except ConnectionError:  # given up meanwhile
            replies.append(408)


def test_in_flight_is_answered_before_the_service_stops(portfolio: Portfolio, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(portfolio)
    with running(portfolio) as server:
        monkeypatch.setattr(portfolio, "run", gate.run)
        found: list[Reply] = []
        thread = later(server.url, found)
        until(lambda: gate.entered == 1)
        server.server.stop()
        until(lambda: _refuses(server.url))
        assert server.thread.is_alive() and not found
        gate.open()
        thread.join(WAIT_S)
        assert found[0].status == 200


def test_what_does_not_end_is_given_up(portfolio: Portfolio, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(portfolio)
    with running(portfolio, Limits(grace_s=1, notice_s=0)) as server:
        monkeypatch.setattr(portfolio, "run", gate.run)
        found: list[Reply] = []
        thread = later(server.url, found)
        until(lambda: gate.entered == 1)
        server.server.stop()
        server.thread.join(WAIT_S)
        assert not server.thread.is_alive()
        thread.join(WAIT_S)
        assert found[0].status == 500
        gate.open()


def test_it_listens_to_this_machine_alone(portfolio: Portfolio) -> None:
    with running(portfolio) as server:
        assert server.url.startswith("http://127.0.0.1:")


@pytest.mark.skipif(not os.path.exists("/proc/net/if_inet6"), reason="the machine has no IPv6")
def test_it_listens_to_ipv6(portfolio: Portfolio) -> None:
    service = Service(portfolio)
    server = HttpServer(service, host="::1", port=0, limits=Limits(notice_s=0))
    thread = threading.Thread(target=server.run)
    thread.start()
    assert server.url.startswith("http://[::1]:") and ask(server.url, "/v2").status == 200
    server.stop()
    thread.join(WAIT_S)


@pytest.mark.parametrize(("host", "port"), [("127.0.0.1", None), ("192.0.2.1", 0), ("no such host", 0), ("", 70_000)])
def test_where_it_cannot_listen_it_says_so(portfolio: Portfolio, host: str, port: int | None) -> None:
    with running(portfolio) as server, Service(portfolio) as service:
        taken = int(server.url.rpartition(":")[2])
        with pytest.raises(EnvironmentProblem, match=f"cannot listen on {host}, port .*\n.*give another port"):
            HttpServer(service, host=host, port=taken if port is None else port)


def test_names_are_handed_on_without_heavy_imports() -> None:
    code = "import prunec, sys; print(*(m for m in ('starlette', 'uvicorn', 'prometheus_client') if m in sys.modules))"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout == "\n"
