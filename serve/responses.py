"""Responses: a refusal as JSON, and an answer in pieces.

The next piece is written when the client has read the one before; how long that may take is the connection's to say.
"""

from __future__ import annotations

from starlette.responses import JSONResponse
from starlette.types import Send

from .answer import Payload
from .refusal import Refused

_PIECE = 256 << 10


def refused(refusal: Refused) -> JSONResponse:
    """``{"error": …}`` with the status and the headers of ``refusal``."""
    return JSONResponse({"error": refusal.text}, refusal.status, refusal.headers)


async def send_payload(payload: Payload, send: Send) -> None:
    """Send ``payload`` with status 200."""
    headers = {**payload.headers, "content-length": str(len(payload.body))}
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": 200, "headers": raw})
    for start in range(0, len(payload.body), _PIECE):
        await _send_piece(payload.body, start, send)


async def _send_piece(body: bytes, start: int, send: Send) -> None:
    end = start + _PIECE
    await send({"type": "http.response.body", "body": body[start:end], "more_body": end < len(body)})
