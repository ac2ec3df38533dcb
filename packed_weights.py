"""Packed weights without an artifact: a ``.safetensors`` file of a module, and its dense tensors again.

What a user ships is this file beside the model's own code; it is the same format as an artifact's
``weights.safetensors`` (``ir/packing/description.py``).  Start at :func:`pack`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .files import write_whole
from .ir.errors import UsageError
from .ir.packing.nm import Pattern
from .ir.packing.packing import Packing
from .report import TorchFiles

if TYPE_CHECKING:
    import torch


def pack(
    model: torch.nn.Module | Mapping[str, torch.Tensor],
    path: str | Path,
    *,
    n: int | None = None,
    m: int | None = None,
    v: int = 1,
) -> dict[str, Any]:
    """Write the weights of ``model`` to a ``.safetensors`` file, each in the smallest form that gives it back exactly.

    The forms are those of the ``pack`` pass: a bit mask and values, values and places N:M, indices and a table.  All
    other tensors are written as they are; zeros lose their sign.

    Parameters
    ----------
    model
        ``nn.Module``, or a state dict.  A module that a compile gave is packed as the compile packed it.
    n, m, v
        A pattern that weights may hold: n kept of m along the axis that is summed over, the same ones in v rows.

    Returns
    -------
    ``forms``, how many tensors took which, and ``size_bytes`` (dense, compact, ratio) of the file.

    Raises
    ------
    UsageError
        ``model`` is something else, or n, m and v are no pattern.
    EnvironmentProblem
        The file cannot be written.

    Examples
    --------
    >>> prunec.pack(model, "weights.safetensors", n=2, m=4)                       # doctest: +SKIP
    >>> model.load_state_dict(prunec.unpack("weights.safetensors"))               # doctest: +SKIP
    """
    from .ir.serial_weights import written

    packing = Packing.of_module(model) or Packing()
    if (n, m) != (None, None):
        packing = packing.with_others(Packing((Pattern.of(n, m, v, "pack"),)))
    tensors = _tensors(model)
    files = TorchFiles(written(tensors, packing), written(tensors, None))
    write_whole(path, files.compact.data)
    found = files.as_dict()
    return {name: found[name] for name in ("forms", "size_bytes")}


def unpack(path: str | Path) -> dict[str, torch.Tensor]:
    """The state dict of a ``.safetensors`` file, packed weights dense: what ``load_state_dict`` takes.

    A file without packed weights is read as it is.

    Raises
    ------
    ModelError
        There is no such file, it is no safetensors file, or what it says of packed weights does not hold.
    """
    from .ir.serial_weights import read

    return read(Path(path)).tensors


def _tensors(model: Any) -> Mapping[str, torch.Tensor]:
    from torch import Tensor, nn

    found = model.state_dict() if isinstance(model, nn.Module) else model
    if not isinstance(found, Mapping):
        raise UsageError(
            f"packing the weights of a {type(model).__name__}: it is no module",
            hint="give an nn.Module or a state dict",
        )
    for name, tensor in found.items():
        if not isinstance(tensor, Tensor):
            raise UsageError(
                f"packing weights: {name!r} is a {type(tensor).__name__}, and a file of weights holds tensors",
                hint="leave it out of the state dict, and save it in a file of its own",
                name=name,
            )
    return found
