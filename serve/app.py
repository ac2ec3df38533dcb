"""The routes of the Open Inference Protocol (KServe v2), and ours beside them.

A version of the protocol is a variant of the portfolio; without one the service chooses.  Start at :func:`make_app`.

References
----------
https://github.com/kserve/open-inference-protocol, and Triton's extensions for binary tensors and the repository index.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from . import metadata
from .datatypes import check_served
from .inference import Inference, check_model, check_variant
from .limits import Limits
from .metrics import CONTENT_TYPE, Metrics
from .refusal import Refused, busy, refused

if TYPE_CHECKING:
    from ..runtime.service import Service

Endpoint = Callable[[Request], Awaitable[Response]]


@dataclass
class Readiness:
    """Whether a server takes requests: until it is told to stop, which a signal handler may do at any time."""

    ready: bool = True


def make_app(service: Service, limits: Limits | None = None, readiness: Readiness | None = None) -> Starlette:
    """The ASGI application that serves ``service``.

    Parameters
    ----------
    limits
        What is taken of clients; those of headers and connections are the server's, see :mod:`.connection`.
    readiness
        What ``/v2/health/ready`` says.

    Raises
    ------
    ModelError
        The model has inputs or outputs that the protocol cannot carry.
    """
    for declared in (*service.portfolio.inputs, *service.portfolio.outputs):
        check_served(declared)
    metrics = Metrics(service)
    inference = Inference(service, limits or Limits(), metrics)
    app = Starlette(
        routes=[*_routes(Documents(service, readiness or Readiness(), metrics)), *_inference_routes(inference)],
        exception_handlers={Refused: _on_refusal, HTTPException: _on_http_exception, Exception: _on_crash},
    )
    app.router.redirect_slashes = False
    return app


def _routes(documents: Documents) -> list[Route]:
    found: dict[str, Endpoint] = {
        "/v2": documents.server,
        "/v2/health/live": documents.live,
        "/v2/health/ready": documents.ready,
        "/v2/models": documents.models,
        "/v2/models/{model}": documents.model,
        "/v2/models/{model}/ready": documents.model_ready,
        "/v2/models/{model}/versions/{variant}": documents.version,
        "/v2/models/{model}/versions/{variant}/ready": documents.model_ready,
        "/metrics": documents.metrics,
    }
    index = Route("/v2/repository/index", documents.index, methods=["POST"])
    return [index, *(Route(path, endpoint, methods=["GET"]) for path, endpoint in found.items())]


def _inference_routes(inference: Inference) -> list[Route]:
    paths = ("/v2/models/{model}/infer", "/v2/models/{model}/versions/{variant}/infer")
    return [Route(path, inference, methods=["POST"]) for path in paths]


class Documents:
    """The endpoints that say what is served, and how it fares."""

    def __init__(self, service: Service, readiness: Readiness, metrics: Metrics) -> None:
        self._portfolio, self._readiness, self._metrics = service.portfolio, readiness, metrics

    async def server(self, request: Request) -> Response:
        return JSONResponse(metadata.server())

    async def live(self, request: Request) -> Response:
        return JSONResponse({"live": True})

    async def ready(self, request: Request) -> Response:
        self._check_ready()
        return JSONResponse({"ready": True})

    async def models(self, request: Request) -> Response:
        return JSONResponse(metadata.models(self._portfolio))

    async def index(self, request: Request) -> Response:
        return JSONResponse(metadata.index(self._portfolio, self._readiness.ready))

    async def model(self, request: Request) -> Response:
        self._check(request.path_params)
        return JSONResponse(metadata.model(self._portfolio))

    async def version(self, request: Request) -> Response:
        self._check(request.path_params)
        return JSONResponse(metadata.version(self._portfolio, self._portfolio.variants[request.path_params["variant"]]))

    async def model_ready(self, request: Request) -> Response:
        self._check(request.path_params)
        self._check_ready()
        return JSONResponse({"name": self._portfolio.name, "ready": True})

    async def metrics(self, request: Request) -> Response:
        """In a thread: the memory of a process with large maps takes milliseconds to count."""
        return Response(await asyncio.to_thread(self._metrics.text), media_type=CONTENT_TYPE)

    def _check_ready(self) -> None:
        if not self._readiness.ready:
            raise busy("the server stops")

    def _check(self, path: dict[str, Any]) -> None:
        check_model(self._portfolio.name, path["model"])
        if "variant" in path:
            check_variant(self._portfolio.variants, path["variant"])


async def _on_refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return refused(error)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    """404 and 405 of the routes themselves."""
    assert isinstance(error, HTTPException)
    said = f"{request.method} is not for this path" if error.status_code == 405 else "there is nothing at this path"
    return JSONResponse({"error": said}, error.status_code, dict(error.headers or {}))


async def _on_crash(request: Request, error: Exception) -> Response:
    """The server logs the error; the client learns nothing of it."""
    return JSONResponse({"error": "the server failed on this request"}, 500)
