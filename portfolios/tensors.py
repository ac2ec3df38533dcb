"""Tensors as bytes: a state dict as a ``.safetensors`` file, never a pickle."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from safetensors.torch import load, save
from torch import Tensor

from ..ir.errors import ModelError

State = dict[str, Tensor]


def written(state: Mapping[str, Tensor]) -> bytes:
    """The file of ``state``; names that are tied hold the tensor each.

    Raises
    ------
    ModelError
        An entry is no tensor: what ``get_extra_state`` returned.
    """
    _check(state)
    return bytes(save({name: tensor.detach().cpu().clone().contiguous() for name, tensor in state.items()}))


def read(data: bytes) -> State:
    """What :func:`written` was given."""
    found: State = load(data)
    return found


def copied(model: torch.nn.Module) -> State:
    """The state of ``model`` as it is now, on the CPU."""
    state = model.state_dict()
    _check(state)
    return {name: tensor.detach().cpu().clone() for name, tensor in state.items()}


def _check(state: Mapping[str, object]) -> None:
    for name, entry in state.items():
        if not isinstance(entry, Tensor):
            raise ModelError(
                f"keeping the state of the network: {name} is a {type(entry).__name__}, no tensor",
                hint="remove get_extra_state from the module, or let it return a tensor",
                entry=name,
            )
