"""Channels cut from a network, and states of the larger network cut alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..ir.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..artifact import Result
    from ..passes.rewrite import Kept
    from .job import Job
    from .tensors import State


def cut_to(job: Job, model: nn.Module, inputs: Any, params: float, dense: float | None = None) -> Result:
    """``model`` without the channels that matter least, down to the share ``params`` of ``dense`` parameters.

    Without ``dense`` they are those of ``model`` itself.  The compile proves that what comes out equals the masked
    network.

    Raises
    ------
    BudgetError
        It cannot become that small.
    """
    from ..api import compile

    share = params if dense is None else min(1.0, params * dense / parameters(model, inputs))
    pipeline = f"score{{method=lamp}},plan{{params={share!r}}},eliminate,verify"
    return compile(model, inputs, pipeline, target=job.target, seed=job.seed, measure=False)


def parameters(model: nn.Module, inputs: Any) -> float:
    """How many parameters a compile counts in ``model``."""
    from ..models import read
    from ..passes.canonicalize import canonical
    from ..passes.groups import groups_of

    graph, _ = read(model, inputs)
    return groups_of(canonical(graph)).dense["params"]


def cut_alike(state: State, kept: Kept, smaller: State) -> State:
    """``state`` of the larger network at the ``kept`` indices: what the ``smaller`` one held then.

    Raises
    ------
    ModelError
        An entry of the smaller network is not in the larger one, or does not come to its shape.
    """
    found = {name: _at(state[name], kept.get(name, ())) for name in smaller if name in state}
    wrong = [name for name, tensor in smaller.items() if name not in found or found[name].shape != tensor.shape]
    if wrong:
        name = wrong[0]
        had = tuple(found[name].shape) if name in found else "nothing"
        raise ModelError(
            f"rewinding: {name} of the compact network has the shape {tuple(smaller[name].shape)}, and its kept "
            f"channels of the state are {had}",
            hint="this is a bug in prunec; --of elements, or --method oneshot, does without rewinding of channels",
            parameter=name,
        )
    return found


def _at(tensor: Tensor, axes: Any) -> Tensor:
    import torch

    for axis, indices in enumerate(axes):
        if indices is not None:
            tensor = tensor.index_select(axis, torch.from_numpy(indices))
    return tensor.clone()
