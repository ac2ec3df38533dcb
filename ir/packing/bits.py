"""Small integers, several in a byte, the first in the lowest bits (as ONNX holds UINT4 and UINT2)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .form import Writer

WIDTHS = (1, 2, 4, 8)


def width_of(values: int) -> int:
    """Bits, one of ``WIDTHS``, that tell so many ``values`` (at most 256) apart."""
    return next(w for w in WIDTHS if values <= 1 << w)


def bytes_of(width: int, count: int) -> int:
    """How many bytes hold ``count`` codes."""
    return -(-count * width // 8)


def packed(codes: NDArray[np.integer], width: int) -> NDArray[np.uint8]:
    """The bytes of ``codes``, flat; zeros fill the last byte."""
    each = 8 // width
    flat = np.zeros(bytes_of(width, codes.size) * each, np.uint8)
    flat[: codes.size] = codes.ravel()
    shifts = np.arange(each, dtype=np.uint8) * width
    found: NDArray[np.uint8] = np.bitwise_or.reduce(flat.reshape(-1, each) << shifts, axis=1)
    return found


def unpacked(data: NDArray[np.uint8], width: int, count: int) -> NDArray[np.uint8]:
    """The first ``count`` codes of the bytes ``data``."""
    shifts = np.arange(8 // width, dtype=np.uint8) * width
    found: NDArray[np.uint8] = ((data[:, None] >> shifts) & ((1 << width) - 1)).astype(np.uint8)
    return found.ravel()[:count]


def write(out: Writer, name: str, data: NDArray[np.uint8], width: int, count: int) -> str:
    """Nodes that give the first ``count`` codes of the constant ``data`` as int32, and the name of their result.

    Where the opset has an integer of that width the constant is one.  Elsewhere each byte is shifted left until only
    the bits of a code are above, and right again.
    """
    if out.has_integer(width):
        return out.node("Cast", [out.small_integers(name, data, width, count)], to="int32")
    codes = out.constant(name, data)
    if width < 8:
        left = (8 - width - np.arange(8 // width) * width).astype(np.uint8)
        column = out.node("Unsqueeze", [codes, out.constant(f"{name}.axis", np.array([1]))])
        above = out.node("BitShift", [column, out.constant(f"{name}.left", left)], direction="LEFT")
        alone = out.node(
            "BitShift", [above, out.constant(f"{name}.right", np.array(8 - width, np.uint8))], direction="RIGHT"
        )
        codes = out.node("Reshape", [alone, out.constant(f"{name}.flat", np.array([-1]))])
    if data.size * (8 // width) != count:
        ends = [out.constant(f"{name}.{k}", np.array([at])) for k, at in (("start", 0), ("end", count))]
        codes = out.node("Slice", [codes, *ends])
    return out.node("Cast", [codes], to="int32")
