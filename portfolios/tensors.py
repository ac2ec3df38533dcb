"""Tensors as bytes: a state dict as a ``.safetensors`` file, never a pickle."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from safetensors.torch import load, save
from torch import Tensor

State = dict[str, Tensor]


def written(state: Mapping[str, Tensor]) -> bytes:
    """The file of ``state``; names that are tied hold the tensor each."""
    return bytes(save({name: tensor.detach().cpu().clone().contiguous() for name, tensor in state.items()}))


def read(data: bytes) -> State:
    """What :func:`written` was given."""
    found: State = load(data)
    return found


def copied(model: torch.nn.Module) -> State:
    """The state of ``model`` as it is now, on the CPU."""
    return {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
