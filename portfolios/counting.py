"""Optimizer steps, counted without touching the user's loop: torch calls a hook after each.

A step is one of any optimizer that has a parameter of the model.  Optimizers that step in turn, each with parameters
of its own, make one step together: the next one begins where a parameter moves again.  Start at :class:`Steps`.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any

from torch import nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook


class Steps:
    """Counts the steps of ``model`` while it is entered.

    ``always`` is called after each step of each optimizer, before ``counted``, which gets the ``count`` once it rises.
    """

    def __init__(
        self,
        model: nn.Module,
        counted: Callable[[int], None] = lambda count: None,
        always: Callable[[], None] = lambda: None,
    ) -> None:
        self.model, self.counted, self.always = model, counted, always
        self.count = 0
        self._moved: set[int] = set()

    def __enter__(self) -> Steps:
        self._handle = register_optimizer_step_post_hook(self._after)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._handle.remove()

    def _after(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        mine = {id(p) for p in self.model.parameters()}
        own = {id(p) for group in optimizer.param_groups for p in group["params"]} & mine
        if not own:
            return
        self.always()
        if self._moved and not own & self._moved:  # another part of the same step
            self._moved |= own
            return
        self._moved = own
        self.count += 1
        self.counted(self.count)
