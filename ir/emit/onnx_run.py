"""Runs in ONNX Runtime that end: a model may loop for ever, so that a run is given so many seconds and no more."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import onnxruntime as ort

from ..errors import EndlessRun

LIMIT_S = 300.0
"""One run of the largest models takes tens of seconds on a slow processor."""


def endless() -> EndlessRun:
    """What is said of a run that was given up."""
    return EndlessRun(
        f"running the model: it did not end within {LIMIT_S:g} s",
        hint="the model may loop for ever; give smaller example inputs if it is only large",
    )


def limited(session: ort.InferenceSession, names: Sequence[str] | None, feeds: Mapping[str, Any]) -> list[Any]:
    """What ``session.run(names, feeds)`` gives.

    Raises
    ------
    EndlessRun
        The run did not end within :data:`LIMIT_S`.  Whatever the runtime raises passes as it is.
    """
    options = ort.RunOptions()
    late = threading.Timer(LIMIT_S, lambda: setattr(options, "terminate", True))
    late.daemon = True
    late.start()
    try:
        found: list[Any] = session.run(names, feeds, options)
        return found
    except Exception as error:  # the runtime's exceptions share no base class
        if options.terminate:
            raise endless() from error
        raise
    finally:
        late.cancel()
