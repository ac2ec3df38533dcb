"""Constants are numpy arrays or torch tensors; these few functions treat them alike, without importing torch.

Arrays of a model file may be mapped, and changed ones deferred (``deferred.py``): whatever is read once from the first
element to the last is read in :func:`blocks`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .deferred import Deferred, forget, is_deferrable
from .errors import ModelError

_BLOCK = 1 << 20
"""Elements that are read at a time."""


def is_torch(data: Any) -> bool:
    return type(data).__module__.partition(".")[0] == "torch"


def is_float(data: Any) -> bool:
    """Whether the elements are floating point (torch's and ml_dtypes' short floats too)."""
    if is_torch(data):
        return bool(data.is_floating_point())
    return np.issubdtype(data.dtype, np.floating) or "float" in str(data.dtype)


def is_meta(data: Any) -> bool:
    """Whether the data is a torch tensor that has a shape and no values."""
    return is_torch(data) and bool(data.is_meta)


def require_values(data: Any) -> None:
    """Raise :class:`ModelError` for a tensor without values."""
    if is_meta(data):
        raise ModelError(
            f"weights are on the meta device: one of shape {list(data.shape)} has no values to read",
            hint="load the weights; without them a compile gives a plan and the module's shapes, with "
            "score{method=random}, verify=False and measure=False",
            shape=tuple(data.shape),
        )


def is_finite(data: Any) -> bool:
    """Whether no element is NaN or infinite."""
    return all(bool(np.isfinite(rows).all()) for _, rows in blocks(data))


def extremes(data: Any) -> tuple[float, float]:
    """The smallest and the largest element."""
    found = [(float(rows.min()), float(rows.max())) for _, rows in blocks(data)]
    return min(low for low, _ in found), max(high for _, high in found)


def blocks(data: Any) -> Iterator[tuple[int, NDArray[Any]]]:
    """The data in runs of rows, each with the number of its first row, as :func:`to_numpy` gives them."""
    if not data.shape:
        yield 0, to_numpy(data)
        return
    held = np.asarray(data) if isinstance(data, Deferred) else data
    step = max(1, _BLOCK // max(1, math.prod(data.shape[1:])))
    for start in range(0, max(1, data.shape[0]), step):
        yield start, to_numpy(held[start : start + step])
    forget(data)


def to_numpy(data: Any) -> NDArray[Any]:
    """The data as a numpy array; short floats become float32."""
    require_values(data)
    if is_torch(data):
        data = data.detach().cpu()
        return np.asarray((data.float() if data.is_floating_point() and data.element_size() < 4 else data).numpy())
    array = np.asarray(data)
    return array.astype(np.float32) if "bfloat" in str(array.dtype) or "float8" in str(array.dtype) else array


def moved_axis(data: Any, source: int, destination: int) -> Any:
    """``data`` with the axis ``source`` at ``destination``."""
    return data.movedim(source, destination) if is_torch(data) else np.moveaxis(data, source, destination)


def contiguous(data: Any) -> Any:
    """The same numbers in the order of the axes."""
    return data.contiguous() if is_torch(data) else np.ascontiguousarray(data)


def native(data: Any) -> NDArray[Any]:
    """The data as a numpy array of its own dtype, torch's bfloat16 too."""
    require_values(data)
    if not is_torch(data):
        return np.asarray(data)
    held = data.detach().cpu()
    if str(held.dtype) != "torch.bfloat16":
        return np.asarray(held.numpy())
    import ml_dtypes
    import torch

    return np.asarray(held.view(torch.int16).numpy()).view(ml_dtypes.bfloat16)


def as_torch(array: NDArray[Any]) -> Any:
    """A torch tensor of the array's dtype."""
    import torch

    array = np.asarray(array, order="C")
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def flat(results: list[Any]) -> list[NDArray[Any]]:
    """The arrays among ``results``, sequences of arrays taken apart, what is absent left out."""
    apart = (r if isinstance(r, list) else [r] for r in results)
    return [np.asarray(x) for each in apart for x in each if x is not None]


def like(array: NDArray[Any], data: Any) -> Any:
    """``array`` as the same sort of object, dtype and device as ``data``."""
    if is_torch(data):
        return data.new_tensor(array) if array.size == 0 else _torch_like(array, data)
    return np.ascontiguousarray(array).astype(data.dtype, copy=False)


def _torch_like(array: NDArray[Any], data: Any) -> Any:
    return as_torch(array).to(device=data.device, dtype=data.dtype)


def _index(indices: NDArray[np.int64], data: Any) -> Any:
    import torch

    return torch.from_numpy(indices).to(data.device)


def keep(data: Any, kept: tuple[NDArray[np.int64] | None, ...]) -> Any:
    """``data`` at the kept indices of each axis (None = all).  What is kept whole is the same object."""
    if all(indices is None for indices in kept):
        return data
    if is_deferrable(data):
        shape = tuple(n if k is None else len(k) for n, k in zip(data.shape, kept, strict=True))
        return Deferred(data, partial(_keep, kept=kept), shape)
    return _keep(data, kept)


def _keep(data: Any, kept: tuple[NDArray[np.int64] | None, ...]) -> Any:
    last = is_torch(data) and is_channels_last(data)
    for d, indices in enumerate(kept):
        if indices is None:
            continue
        if is_torch(data):
            data = data.detach().index_select(d, _index(indices, data))
        else:
            data = np.take(data, indices, axis=d)
    return channels_last(data) if last else data


def is_channels_last(data: Any) -> bool:
    """Whether a torch tensor of images or volumes has its channels last in memory, and not in order as well."""
    strides = data.stride() if data.dim() in (4, 5) else ()
    return bool(strides) and not data.is_contiguous() and channels_last(data).stride() == strides


def alike(array: NDArray[Any], data: Any) -> Any:
    """``array`` as :func:`like` gives it, with its channels last in memory where those of ``data`` are."""
    made = like(array, data)
    return channels_last(made) if is_torch(data) and is_channels_last(data) else made


def channels_last(data: Any) -> Any:
    """``data`` with its channels last in memory."""
    return data.movedim(1, -1).contiguous().movedim(-1, 1)


def masked(data: Any, kept: tuple[NDArray[np.int64] | None, ...], zero: Any = 0) -> Any:
    """A copy of ``data`` with zeros at the positions that were not kept; ``zero`` is what stands for them."""
    if all(indices is None for indices in kept):
        return data
    if is_deferrable(data):
        return Deferred(data, partial(_masked, kept=kept, zero=zero), data.shape)
    return _masked(data, kept, zero)


def _masked(data: Any, kept: tuple[NDArray[np.int64] | None, ...], zero: Any) -> Any:
    data = data.detach().clone() if is_torch(data) else np.array(data)
    for d, indices in enumerate(kept):
        if indices is None:
            continue
        dead = np.ones(data.shape[d], bool)
        dead[indices] = False
        where = (slice(None),) * d + (np.flatnonzero(dead),)
        data[where] = zero if np.ndim(zero) == 0 else np.broadcast_to(zero, data.shape)[where]
    return data


def changed(data: Any, change: Callable[[NDArray[Any]], NDArray[Any]]) -> Any:
    """What ``change`` makes of ``data``, which keeps its shape, as the same sort of object."""
    if is_deferrable(data):
        return Deferred(data, lambda held: like(change(to_numpy(held)), held), data.shape)
    return like(change(to_numpy(data)), data)


def random_array(
    rng: np.random.Generator, shape: Sequence[int], dtype: DTypeLike, least: int = 0, below: int = 2
) -> NDArray[Any]:
    """Random numbers of one dtype: floats normal, integers from ``least`` and less than ``below``, fair booleans."""
    kind = np.dtype(dtype)
    drawn = rng.standard_normal(shape) if "float" in kind.name else rng.integers(least, below, shape)
    return np.asarray(drawn).astype(kind)
