"""A request for inference from its headers to the last byte of its answer.

The event loop only moves bytes; parsing, making arrays and writing answers are done by :mod:`.decoders`, the model by
the threads of the service.  Each stage says what it holds (:class:`~prunec.serve.bodies.Share`), and whatever is
raised on the way becomes one answer.  Start at :meth:`Inference.__call__`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from ..ir.errors import UsageError, first_line
from ..ir.words import did_you_mean, listed
from ..runtime.service import Busy
from .answer import Payload, answer_bytes, converted_bytes, payload, send_payload
from .bodies import Gone, HeldBytes, Share, gone, parted, read
from .decoders import Decoders
from .headers import announced
from .limits import Limits
from .metrics import Metrics
from .refusal import Refused, bad, busy, refused, shown
from .request import Declared, InferenceRequest, read_request

if TYPE_CHECKING:
    from ..runtime.opened import Answer
    from ..runtime.service import Service

log = logging.getLogger("prunec.serve")

LEFT = 499
"""The status that is counted where the client left before the answer."""


class Inference:
    """The ASGI application behind ``…/infer``.

    Parameters
    ----------
    service
        Which computes.
    limits
        What is taken of clients.
    metrics
        Where requests are counted.
    """

    def __init__(self, service: Service, limits: Limits, metrics: Metrics) -> None:
        self._service, self._limits, self._metrics = service, limits, metrics
        self._declared = Declared(service.portfolio.inputs, service.portfolio.outputs)
        self._held = HeldBytes(limits.held_bytes)
        self._decoders = Decoders()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        exchange = _Exchange(Request(scope, receive))
        with self._held.share() as share:
            try:
                found = await self._answered(exchange, share)
                exchange.code = 200
                await send_payload(found, send)
            except Gone:
                exchange.code = LEFT
            except Refused as refusal:
                exchange.code = refusal.status
                await refused(refusal)(scope, receive, send)
            finally:
                self._metrics.answered(exchange.variant, exchange.code, exchange.seconds)

    async def _answered(self, exchange: _Exchange, share: Share) -> Payload:
        portfolio, path = self._service.portfolio, exchange.request.path_params
        check_model(portfolio.name, path["model"])
        if "variant" in path:
            check_variant(portfolio.variants, path["variant"])
        request = await self._read(exchange.request, share)
        answer = await self._run(request, _chosen(request, path.get("variant"), portfolio.variants), exchange)
        exchange.variant = answer.variant
        self._metrics.ran(answer.variant, answer.seconds)
        return await self._written(answer, request, share)

    async def _written(self, answer: Answer, request: InferenceRequest, share: Share) -> Payload:
        """The response; until it is written, the inputs, the outputs and what they become are held."""
        json_limit = self._limits.json_answer_bytes
        share.hold_also(answer_bytes(answer, request.outputs, json_limit))
        written = partial(payload, answer, request, self._service.portfolio.name, json_limit)
        found = await self._decoders.run(converted_bytes(answer, request.outputs), written)
        share.hold(len(found.body))
        return found

    async def _read(self, request: Request, share: Share) -> InferenceRequest:
        """The request, whose JSON is let go once it is parsed.  Binary tensors are views, so JSON is all that costs."""
        body = announced(request.scope["headers"], self._limits)
        data = await read(request.receive, body, share, self._limits)
        head, tensors = parted(data, body.json_bytes)
        parsed = partial(read_request, head, tensors, self._declared, self._limits)
        found = await self._decoders.run(len(head), parsed)
        share.hold(max(found.nbytes, len(data) if len(tensors) else 0))
        return found

    async def _run(self, request: InferenceRequest, variant: str | None, exchange: _Exchange) -> Answer:
        """What the service answers; whatever a model raises is told to the log, and not to the client."""
        future = self._submitted(request, variant)
        try:
            return await _unless_gone(future, exchange.request)
        except (Refused, Gone):
            raise
        except Exception as error:
            log.error("a request failed: %s", first_line(error))
            raise Refused(500, "the model failed on this request", hint="the server's log says more") from error

    def _submitted(self, request: InferenceRequest, variant: str | None) -> Future[Answer]:
        try:
            return self._service.submit(request.inputs, variant, [output.name for output in request.outputs])
        except Busy as error:
            raise busy(error.message) from error
        except UsageError as error:
            raise bad(error.message, error.hint) from error


class _Exchange:
    """A request, and what is known of its answer."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.variant, self.code = "", 500
        self._begun = time.perf_counter()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._begun


async def _unless_gone(future: Future[Answer], request: Request) -> Answer:
    """What ``future`` gives, unless the client leaves first: then it is cancelled, and runs only if it already does."""
    waited: asyncio.Future[Any] = asyncio.wrap_future(future)
    left: asyncio.Future[Any] = asyncio.ensure_future(gone(request.receive))
    try:
        await asyncio.wait({waited, left}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        left.cancel()
        if not waited.done():
            waited.cancel()
    if left.done() and waited.cancelled():
        raise Gone
    if waited.cancelled():
        raise busy("the server stops")
    answer: Answer = waited.result()
    return answer


def _chosen(request: InferenceRequest, in_path: str | None, known: Collection[str]) -> str | None:
    """The variant that is asked for, in the path or by the parameter; None where the service is to choose."""
    if request.variant is not None:
        check_variant(known, request.variant)
        if in_path is not None and in_path != request.variant:
            raise bad(f"the path asks for {in_path!r}, and the parameter for {request.variant!r}", "ask for one")
    return in_path or request.variant


def check_model(name: str, found: str) -> None:
    """Raise :class:`Refused` (404) for another model than ``name``."""
    if found != name:
        raise Refused(404, f"there is no model {shown(found)}", hint=f"this server has {name!r}")


def check_variant(known: Collection[str], found: str) -> None:
    """Raise :class:`Refused` (404) for a variant that is not ``known``."""
    if found not in known:
        hint = did_you_mean(found[:100], known, f"there are {listed(known, most=10)}")
        raise Refused(404, f"the model has no variant {shown(found)}", hint=hint)
