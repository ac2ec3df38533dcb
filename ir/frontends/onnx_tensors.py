"""Tensors of an ONNX file: how many bytes they must hold, their data as arrays, and sparse ones made dense.

What a file says of a tensor is not believed: each way in which it may contradict itself is a :class:`ModelError`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import SparseTensorProto, TensorProto, helper, numpy_helper

from ..errors import ModelError, first_line

Array = NDArray[Any]

AGAIN = "onnx.checker.check_model says more; export the model again"
LARGEST_AXIS = 1 << 31
"""Sizes from here on are absurd."""

_BITS = {"INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4, "INT2": 2, "UINT2": 2}
PACKED = {TensorProto.DataType.Value(n): b for n, b in _BITS.items() if n in TensorProto.DataType.keys()}  # noqa: SIM118  no dict
"""Types with more than one element in a byte, with the bits of one."""

_OTHERWISE = frozenset(n for n in TensorProto.DataType.keys() if n.startswith("FLOAT6") or n == "STRING")  # noqa: SIM118
_LARGEST_DENSE = 1 << 28


def dtype_of(elem_type: int, what: str) -> np.dtype[Any]:
    """The numpy dtype of an ONNX element type; ``what`` is for the message."""
    try:
        return np.dtype(helper.tensor_dtype_to_np_dtype(elem_type))
    except KeyError:
        raise ModelError(f"{what} has the unknown data type {elem_type}", hint=AGAIN) from None


def numpy_name(elem_type: int) -> str:
    """A numpy dtype's name; ``str`` for text, since ``object`` is what is no tensor."""
    return "str" if elem_type == TensorProto.STRING else str(dtype_of(elem_type, "a value"))


def element_type(dtype: str) -> int:
    """ONNX's number for a dtype's name: the inverse of what values are given."""
    return TensorProto.STRING if dtype == "str" else int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


def byte_count(tensor: TensorProto, what: str) -> int | None:
    """Bytes that the tensor's raw data has to hold; None for types that are not stored in a fixed width."""
    width = dtype_of(tensor.data_type, what).itemsize
    if TensorProto.DataType.Name(tensor.data_type) in _OTHERWISE:
        return None
    bits = PACKED.get(tensor.data_type, 8 * width)
    return int(-(-math.prod(tensor.dims) * bits // 8))


def check_tensor(tensor: TensorProto, where: str) -> None:
    """Refuse a tensor of absurd size, of an unknown type, or whose raw data is too short or too long."""
    what = f"{where}: tensor {tensor.name!r} of shape {list(tensor.dims)}"
    if any(not 0 <= d < LARGEST_AXIS for d in tensor.dims):
        raise ModelError(f"{what} has an axis of absurd size", hint=AGAIN, shape=tuple(tensor.dims))
    needed = byte_count(tensor, what)
    if needed is None or not tensor.HasField("raw_data") or tensor.data_location == TensorProto.EXTERNAL:
        return
    if needed != len(tensor.raw_data):
        raise ModelError(f"{what} holds {len(tensor.raw_data)} bytes, not {needed}", hint=AGAIN)


def array_of(tensor: TensorProto) -> Array:
    """The data of a tensor that lies in the model itself."""
    try:
        return numpy_helper.to_array(tensor)
    except Exception as error:  # whatever the library raises for a tensor that contradicts itself
        raise ModelError(
            f"tensor {tensor.name!r} of shape {list(tensor.dims)} cannot be read: {first_line(error)}", hint=AGAIN
        ) from error


def dense(sparse: SparseTensorProto, name: str) -> TensorProto:
    """A sparse tensor as a dense one called ``name``."""
    what = f"the sparse tensor {name!r} of shape {list(sparse.dims)}"
    if not sparse.dims or any(d < 0 for d in sparse.dims) or math.prod(sparse.dims) > _LARGEST_DENSE:
        raise ModelError(
            f"{what} is a number, or too large to be made dense", hint="store the tensor dense", tensor=name
        )
    values, at = array_of(sparse.values), array_of(sparse.indices)
    whole = np.zeros(tuple(sparse.dims), values.dtype)
    places = tuple(at.T) if at.ndim == 2 else np.unravel_index(_inside(at, whole.size, what), whole.shape)
    for axis, place in enumerate(places):
        _inside(place, whole.shape[axis] if axis < whole.ndim else 0, what)
    if len(places) != whole.ndim or values.shape != at.shape[:1]:
        raise ModelError(f"{what} has {values.size} values at positions of shape {list(at.shape)}", hint=AGAIN)
    whole[places] = values
    return numpy_helper.from_array(whole, name)


def _inside(positions: Array, size: int, what: str) -> Array:
    if positions.dtype.kind != "i" or (positions.size and not 0 <= positions.min() <= positions.max() < size):
        raise ModelError(f"{what} has values at positions that lie outside", hint=AGAIN)
    return positions
