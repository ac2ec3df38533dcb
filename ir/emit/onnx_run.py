"""Runs in ONNX Runtime that end: a model may loop for ever, so that a run is given so many seconds and no more.

And random inputs for them.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import DTypeLike, NDArray

from ..errors import ModelError

LIMIT_S = 300.0
"""One run of the largest models takes tens of seconds on a slow processor."""


def random_array(
    rng: np.random.Generator, shape: Sequence[int], dtype: DTypeLike, least: int = 0, below: int = 2
) -> NDArray[Any]:
    """Random numbers of one dtype: floats normal, integers from ``least`` and less than ``below``, fair booleans."""
    kind = np.dtype(dtype)
    drawn = rng.standard_normal(shape) if "float" in kind.name else rng.integers(least, below, shape)
    return np.asarray(drawn).astype(kind)


def endless() -> ModelError:
    """What is said of a run that was given up."""
    return ModelError(
        f"running the model: it did not end within {LIMIT_S:g} s",
        hint="the model may loop for ever; give smaller example inputs if it is only large",
    )


def limited(session: ort.InferenceSession, names: Sequence[str] | None, feeds: Mapping[str, Any]) -> list[Any]:
    """What ``session.run(names, feeds)`` gives.

    Raises
    ------
    ModelError
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
