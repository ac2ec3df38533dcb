"""``prunec.train`` in the Trainer of Hugging Face's transformers."""

from __future__ import annotations

from collections.abc import Mapping
from math import isclose, nan
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..ir.errors import UsageError
from ..ir.words import listed
from ..passes.train.sparse import Sparse

_STATE = "prunec"
"""What the Trainer's state calls ours: no name of a class, since Trainer makes callbacks of those names anew."""
_SPEED = ("runtime", "per_second", "compilation_time", "preparation_time")
"""Ends of names that Trainer adds to the metrics of an evaluation."""


class SparseCallback(TrainerCallback):
    """Tells ``sparse`` of each epoch that ends, and has the Trainer's checkpoints hold its state.

    The history gets the loss and the metrics of evaluations that the Trainer logs (``logging_strategy="epoch"``,
    ``eval_strategy="epoch"``).  An epoch's evaluation and checkpoint are those before the masks of the next one.
    ``trainer.train(resume_from_checkpoint=…)`` goes on as if there had been no break.

    Raises
    ------
    UsageError
        When training begins: the checkpoint has no state of ``sparse``, or one of another recipe, or the Trainer has
        not loaded its weights, of which it would only warn; or it is to load the best model at its end, which may be
        one before the masks.

    Examples
    --------
    >>> with prunec.train(model, "pdp{sparsity=0.9,warm=2,rise=10}") as sparse:         # doctest: +SKIP
    ...     Trainer(model, args, train_dataset=data, callbacks=[SparseCallback(sparse)]).train()
    """

    def __init__(self, sparse: Sparse) -> None:
        self.sparse = sparse
        self._ended = False
        """Whether an epoch has ended that ``sparse`` does not know of yet."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if args.load_best_model_at_end:
            raise UsageError(
                "SparseCallback: the Trainer is to load its best model at the end, which may be one before the masks",
                hint="TrainingArguments(load_best_model_at_end=False)",
            )
        self._ended = False
        if state.global_step == 0:
            return
        found = state.stateful_callbacks.get(_STATE)
        if not found:
            raise UsageError(
                f"SparseCallback: the checkpoint of step {state.global_step} has no state of prunec",
                hint="resume from a checkpoint of a Trainer with this callback",
            )
        self.sparse.load_state_dict(found["sparse"])
        self._check_loaded(found["sums"])
        self._ended = bool(found["ended"])

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._tell(state)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._ended = float(state.epoch or 0).is_integer()  # a checkpoint of this step is one of the epoch's end
        self._keep(state, control)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._ended = True
        self._keep(state, control)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._tell(state)

    def _tell(self, state: TrainerState) -> None:
        """End the epoch, if one waits for that, with what was logged of it."""
        if self._ended:
            loss, metrics = _logged(state)
            self.sparse.step(loss, **metrics)
            self._ended = False

    def _keep(self, state: TrainerState, control: TrainerControl) -> None:
        """Have the next checkpoint hold where ``sparse`` is, and what its weights come to where it is written now."""
        state.stateful_callbacks[_STATE] = {
            "sparse": self.sparse.state_dict(),
            "ended": self._ended,
            "sums": self._sums() if control.should_save else None,
        }

    def _sums(self) -> dict[str, float]:
        layers = [layer for _, found in self.sparse.layers for layer in found]
        return {layer.name: float(layer.original.detach().double().sum()) for layer in layers}

    def _check_loaded(self, sums: Mapping[str, float] | None) -> None:
        """Some versions save a model under names that they do not load, and warn."""
        here = self._sums()
        if sums and (lost := [name for name in here if not isclose(here[name], sums.get(name, nan), abs_tol=1e-4)]):
            raise UsageError(
                f"SparseCallback: Trainer has not loaded {listed(lost)} from the checkpoint",
                hint="its warning says which names it misses; it loads a plain nn.Module around the model as it was",
            )


def _logged(state: TrainerState) -> tuple[float | None, dict[str, float]]:
    """Loss and metrics that were logged last, in the epoch that ends."""
    found: dict[str, Any] = {}
    for entry in state.log_history:
        if entry.get("epoch", 0) > (state.epoch or 0) - 1:
            found.update(entry)
    metrics = {
        name: float(value)
        for name, value in found.items()
        if name.startswith("eval_") and not name.endswith(_SPEED) and isinstance(value, (int, float))
    }
    return found.get("loss"), metrics
