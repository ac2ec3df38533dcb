"""Constants are numpy arrays or torch tensors; these few functions treat them alike, without importing torch."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def is_torch(data: Any) -> bool:
    return type(data).__module__.partition(".")[0] == "torch"


def is_float(data: Any) -> bool:
    """Whether the elements are floating point (torch's and ml_dtypes' short floats too)."""
    if is_torch(data):
        return bool(data.is_floating_point())
    return np.issubdtype(data.dtype, np.floating) or "float" in str(data.dtype)


def is_finite(data: Any) -> bool:
    """Whether no element is NaN or infinite."""
    return bool(data.isfinite().all()) if is_torch(data) else bool(np.isfinite(to_numpy(data)).all())


def to_numpy(data: Any) -> NDArray[Any]:
    """The data as a numpy array; short floats become float32."""
    if is_torch(data):
        data = data.detach().cpu()
        return np.asarray((data.float() if data.is_floating_point() and data.element_size() < 4 else data).numpy())
    array = np.asarray(data)
    return array.astype(np.float32) if "bfloat" in str(array.dtype) or "float8" in str(array.dtype) else array


def like(array: NDArray[Any], data: Any) -> Any:
    """``array`` as the same sort of object, dtype and device as ``data``."""
    if is_torch(data):
        return data.new_tensor(array) if array.size == 0 else _torch_like(array, data)
    return np.ascontiguousarray(array).astype(data.dtype, copy=False)


def _torch_like(array: NDArray[Any], data: Any) -> Any:
    import torch

    return torch.from_numpy(np.ascontiguousarray(array)).to(device=data.device, dtype=data.dtype)


def _index(indices: NDArray[np.int64], data: Any) -> Any:
    import torch

    return torch.from_numpy(indices).to(data.device)


def keep(data: Any, kept: tuple[NDArray[np.int64] | None, ...]) -> Any:
    """``data`` at the kept indices of each axis (None = all).  What is kept whole is the same object."""
    for d, indices in enumerate(kept):
        if indices is None:
            continue
        if is_torch(data):
            data = data.detach().index_select(d, _index(indices, data))
        else:
            data = np.take(data, indices, axis=d)
    return data


def masked(data: Any, kept: tuple[NDArray[np.int64] | None, ...]) -> Any:
    """A copy of ``data`` with zeros at the positions that were not kept."""
    if all(indices is None for indices in kept):
        return data
    data = data.detach().clone() if is_torch(data) else np.array(data)
    for d, indices in enumerate(kept):
        if indices is None:
            continue
        dead = np.ones(data.shape[d], bool)
        dead[indices] = False
        where = (slice(None),) * d + (np.flatnonzero(dead),)
        data[where] = 0
    return data
