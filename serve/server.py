"""The server: a socket, uvicorn, and an end in good order.

On the first SIGTERM or SIGINT it is no longer ready, and each answer tells its client to connect elsewhere; after a
moment, in which whoever distributes requests can notice, it takes no more connections, answers what is in flight, and
ends.  A second signal ends the process at once.

There is no authentication and no TLS: it listens to this machine alone unless told otherwise, and a proxy belongs in
front of it then.  Start at :func:`serve`.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn

from ..ir.errors import EnvironmentProblem
from .app import Readiness, make_app
from .connection import connection_for
from .limits import Limits

if TYPE_CHECKING:
    from ..runtime.service import Service

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def serve(
    service: Service,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    limits: Limits | None = None,
    started: Callable[[str], None] | None = None,
) -> None:
    """Serve until a signal comes; then answer what is in flight, stop ``service`` and return.

    Parameters
    ----------
    host, port
        Where to listen; port 0: any that is free.
    limits
        What is taken of clients.
    started
        Called with the URL once the server listens.

    Raises
    ------
    EnvironmentProblem
        It cannot listen there.
    ModelError
        The model has inputs or outputs that the protocol cannot carry.
    """
    server = HttpServer(service, host=host, port=port, limits=limits)
    if started is not None:
        started(server.url)
    server.run()


class HttpServer:
    """A server that listens from the beginning, and answers while :meth:`run` runs.

    Attributes
    ----------
    url
        Where it is to be found.
    """

    def __init__(
        self, service: Service, *, host: str = "127.0.0.1", port: int = 8000, limits: Limits | None = None
    ) -> None:
        self._service, self._limits = service, limits or Limits()
        self._readiness = Readiness()
        app = make_app(service, self._limits, self._readiness)
        self._socket = _listening(host, port)
        self._server = _Server(_config(app, self._limits, self._readiness), self._readiness, self._limits.notice_s)
        self.url = _url(self._socket)

    def run(self) -> None:
        """Answer until :meth:`stop` or a signal; then end as :func:`serve` does."""
        try:
            self._server.run([self._socket])
        finally:
            self._socket.close()
            self._service.stop(self._server.seconds_left(self._limits.grace_s))

    def stop(self) -> None:
        """As the first signal does; from any thread, and returns at once."""
        self._server.begin_stop()


class _Server(uvicorn.Server):
    """uvicorn's server with another end: see the module."""

    def __init__(self, config: uvicorn.Config, readiness: Readiness, notice_s: float) -> None:
        super().__init__(config)
        self._readiness, self._notice_s = readiness, notice_s
        self._ended: float | None = None

    def begin_stop(self) -> None:
        self._readiness.ready = False
        self.should_exit = True

    def seconds_left(self, grace_s: float) -> float:
        """Of the time in which requests may end."""
        return grace_s if self._ended is None else max(0.0, grace_s - (time.monotonic() - self._ended))

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal; the next one finds no handler."""
        self.begin_stop()
        for known in SIGNALS:
            signal.signal(known, signal.SIG_DFL)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals, and leave them handled as they were.  uvicorn's raises them again: the process would fail."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {known: signal.signal(known, self.handle_exit) for known in SIGNALS}
        try:
            yield
        finally:
            for known, handler in before.items():
                signal.signal(known, handler)

    async def on_tick(self, counter: int) -> bool:
        """Whether it ends, asked ten times a second; requests are answered meanwhile."""
        ends = await super().on_tick(counter)
        if ends:
            await asyncio.sleep(self._notice_s)
            self._ended = time.monotonic()
        return ends


def _config(app: object, limits: Limits, readiness: Readiness) -> uvicorn.Config:
    return uvicorn.Config(
        app,  # type: ignore[arg-type]
        http=connection_for(limits, readiness),
        loop="asyncio",
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=math.ceil(limits.idle_s),
        timeout_graceful_shutdown=math.ceil(limits.grace_s),
        h11_max_incomplete_event_size=limits.head_bytes,
    )


def _listening(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=512)
    except (OSError, OverflowError) as error:
        raise EnvironmentProblem(
            f"cannot listen on {host}, port {port}: {getattr(error, 'strerror', None) or error}",
            hint="give another port (0: any that is free), or an address of this machine", host=host, port=port,
        ) from error  # fmt: skip


def _url(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
