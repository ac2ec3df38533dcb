"""A network trained by the user's function, from the same random numbers each time, on the CPU before and after."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from ..ir.errors import UsageError
from .counting import Steps
from .functions import function_at
from .job import Job
from .surroundings import seeded


def train(
    job: Job,
    model: nn.Module,
    *,
    start: int = 0,
    after_epoch: Callable[[], None] = lambda: None,
    counted: Callable[[int], None] = lambda count: None,
    always: Callable[[], None] = lambda: None,
) -> int:
    """Train ``model`` in place and return the number of optimizer steps that it took.

    Parameters
    ----------
    start
        Steps that it has behind it.
    after_epoch
        For the function to call after each epoch, where it takes that.
    counted, always
        As in :class:`Steps`.

    Raises
    ------
    ModelError
        The function failed.
    UsageError
        It made no step, or returned another model.
    """
    assert job.train is not None
    function = function_at(job.train, "--train")
    seeded(job.seed)
    model.train()  # as a new module is
    with Steps(model, counted, always) as steps:
        returned = function(model, start=start, after_epoch=after_epoch)
    if isinstance(returned, nn.Module) and returned is not model:
        raise UsageError(f"{function.text} returned another model", hint="train the model that it gets, in place")
    if not steps.count and not start:
        raise UsageError(
            f"{function.text} ended, and no torch optimizer has stepped on a parameter of the model",
            hint="make the optimizer of model.parameters(), of the model that the function gets",
        )
    always()
    model.cpu().eval()
    return steps.count
