"""The protocol's names of element types, and the numpy dtypes behind them.

Tensors travel in row-major order and little endian; ``BYTES`` are strings (see :mod:`.strings`), and ``BF16`` has no
form in JSON.  Types that the protocol does not name (complex, int4, float8) cannot be served.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from ..ir.errors import ModelError
from ..runtime.session import Input

BYTES = "BYTES"
BF16 = "BF16"

_DTYPES: dict[str, Any] = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
    BF16: ml_dtypes.bfloat16,
}
DTYPES: dict[str, np.dtype[Any]] = {name: np.dtype(found) for name, found in _DTYPES.items()}
"""The dtypes of all but strings."""

_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def datatype(dtype: np.dtype[Any]) -> str:
    """The protocol's name of ``dtype``; raises :class:`ModelError` where it has none.

    >>> datatype(np.dtype("float32")), datatype(np.dtype(object))
    ('FP32', 'BYTES')
    """
    if dtype.kind in "OSU":
        return BYTES
    if dtype not in _NAMES:
        raise ModelError(
            f"tensors of {dtype} cannot be served: the protocol has no name for them",
            hint=f"cast inputs and outputs of the model to one of {', '.join([*DTYPES, BYTES])}",
        )
    return _NAMES[dtype]


def little(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """``dtype`` as its bytes travel."""
    return dtype.newbyteorder("<")


def check_served(declared: Input) -> None:
    """Raise :class:`ModelError` for an input or output that the protocol cannot carry."""
    try:
        datatype(declared.dtype)
    except ModelError as error:
        raise ModelError(f"{declared.name!r}: {error.message}", hint=error.hint, input=declared.name) from error
