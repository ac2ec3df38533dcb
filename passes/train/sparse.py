"""The training object: it goes around any loop, and the network is sparse at its end.

Methods put parametrizations on the weights of layers; everything else in training stays what it is.  Start at
:class:`Sparse`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import nn

from ...files import write_whole
from ...ir.errors import ModelError, UsageError
from ...ir.packing.packing import Packing
from ..groups import Groups
from .batches import Batches
from .channels import on_groups
from .curves import curves
from .history import ended, number
from .layer import Trained, on_weights
from .parametrized import plain_name, taken_off
from .progress import EpochLines
from .summary import Row, Summary, values_of
from .told import tell
from .training import Training


class Sparse:
    """A network in training by ``methods``.

    Use it as a context: what is inside trains ``model`` with any optimizer and any loop, and calls :meth:`step` after
    each epoch.  At the end (unless an error ended it) :meth:`finish` makes what is soft hard, and the weights are
    ordinary parameters again, with zeros or few values in them.

    Attributes
    ----------
    epoch
        How many epochs have ended.
    history
        For each epoch that ended: ``epoch``, ``loss`` (None where it was not told), ``sparsity`` of all weights that
        are trained so, and the metrics that :meth:`step` was given.
    notes
        What is worth a word: weights left out, a schedule that there are too few epochs for; the table ends with them.
    finished
        Whether the weights are ordinary parameters again.

    Raises
    ------
    UsageError
        No method, a method without anything to reach, or no layer that one could train so.
    """

    def __init__(
        self,
        model: nn.Module,
        methods: Sequence[Training],
        recipe: str,
        groups: Groups | None = None,
        progress: EpochLines | None = None,
    ) -> None:
        self.model, self.recipe, self.groups = model, recipe, groups
        self.epoch, self.history, self.finished = 0, list[dict[str, Any]](), False
        self._progress, self._batches = progress or EpochLines(shown=False), Batches()
        self.layers: list[tuple[Training, list[Trained]]] = []
        self.notes: list[str] = []
        self._orders = {module: tuple(module._parameters) for module in model.modules()}
        self._infinite = {n for n, buffer in model.named_buffers() if not bool(torch.isfinite(buffer).all())}
        try:
            for method in methods:
                method.check()
                self.layers.append((method, []))
                self.layers[-1][1].extend(self._on(method))
            if epochs := self._progress.epochs:
                unfinished = (method.unfinished(epochs) for method, _ in self.layers)
                self.notes.extend(note for note in unfinished if note)
            self._progress.begin(self.notes)
            self._batches.watch([*self._each()])
            self._begin()
        except BaseException:
            self._remove(trained=False)
            raise

    def __enter__(self) -> Sparse:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.finish()

    def step(self, loss: float | torch.Tensor | None = None, **metrics: float | torch.Tensor) -> None:
        """An epoch of training has ended; ``loss`` and ``metrics`` (``accuracy=0.97``) are for the history.

        Measure before: afterwards the masks are those of the next epoch.

        Raises
        ------
        ModelError
            The loss, or a weight, is not a finite number.
        UsageError
            No batch went through the model since the last epoch, or a metric is no number.

        In each case nothing is changed, and the last checkpoint is still good.
        """
        self._check_running()
        value = None if loss is None else number(loss, f"training, epoch {self.epoch}: the loss")
        self._check_finite(value)
        if self._batches.none([*self._each()]):
            raise UsageError(
                f"training, epoch {self.epoch}: no batch went through the model since the last one ended",
                hint="see that the loader yields batches, and that this model is trained, no copy; sparse.skip() lets "
                "an epoch go by without training",
            )
        first = self.epoch == 0
        self._next(value, metrics)
        if first:
            for method, layers in self.layers:
                self._warn(method.untrained(layers))

    def skip(self, epochs: int = 1) -> None:
        """Let epochs go by without training: to see what a schedule does, or to go on where no checkpoint says so.

        Raises
        ------
        UsageError
            ``epochs`` is below 0, or the training has finished.
        """
        self._check_running()
        if epochs < 0:
            raise UsageError(f"training, epoch {self.epoch}: {epochs} epochs cannot go by", hint="from 0")
        for _ in range(epochs):
            self._next(None, {})

    def _next(self, loss: float | None, metrics: Mapping[str, Any]) -> None:
        entry = ended(self.epoch + 1, loss, self.sparsity(), metrics)
        self.epoch += 1
        self.history.append(entry)
        self._progress(entry, self.densities)
        self._begin()

    def _check_running(self) -> None:
        if self.finished:
            raise UsageError(
                f"training, epoch {self.epoch}: it has finished, and the weights are ordinary parameters again",
                hint="call step() inside of the context; sparse.harden() settles the masks and trains on",
            )

    def _check_finite(self, loss: float | None) -> None:
        if loss is not None and not math.isfinite(loss):
            raise ModelError(
                f"training, epoch {self.epoch}: the loss is {loss}", hint="go back to the last checkpoint; a lower rate"
            )
        for name, tensor in chain(self.model.named_parameters(), self.model.named_buffers()):
            plain = plain_name(name)
            if plain not in self._infinite and not bool(torch.isfinite(tensor).all()):
                raise ModelError(
                    f"training, epoch {self.epoch}: {plain} holds NaN or infinite values",
                    hint="go back to the last checkpoint; a lower rate",
                    parameter=plain,
                )

    def finish(self) -> None:
        """Make what is soft hard, and the weights ordinary parameters again; a second call does nothing.

        The model's ``meta`` then says how its weights may be packed, for compiles of it.  What ends before its schedule
        does, or is not what was asked (masks are buffers, which an average over the model's state averages too), is a
        warning and a note.
        """
        if self.finished:
            return
        remarks: list[str | None] = []
        for method, layers in self.layers:
            if not all(bool(layer.held.hard) for layer in layers):
                remarks.append(method.unfinished(self.epoch))
        self.harden()
        outcomes = []
        try:
            with torch.no_grad():
                outcomes += [method.outcome(layers) for method, layers in self.layers]
        finally:
            self._remove(trained=True)
            self.finished = True
        found = Packing()
        for outcome in outcomes:
            found = found.with_others(outcome.packing)
            remarks.append(outcome.missed)
        if found != Packing() and not tell(self.model, found):
            remarks.append("meta of the model is no dict: compiles of it do not know how its weights may be packed")
        for remark in remarks:
            self._warn(remark)

    def _warn(self, note: str | None) -> None:
        if note is not None and note not in self.notes:
            self.notes.append(note)
            warnings.warn(f"prunec.train: {note}", stacklevel=3)

    def _remove(self, *, trained: bool) -> None:
        """Make the weights ordinary parameters again: as layers see them where ``trained``, else as they are."""
        places = dict.fromkeys(place for layer in self._each() for place in layer.places)
        taken_off(places, self._orders, trained=trained)

    def harden(self) -> None:
        """Make what is soft hard, and train on: what is zero stays zero (fine-tuning with the final masks).

        Raises
        ------
        UsageError
            The training has finished.
        """
        self._check_running()
        for method, layers in self.layers:
            with torch.no_grad():
                method.finish(layers)

    def sparsity(self) -> float:
        """The share of the elements of all weights (of all units) that are masked now, soft ones below one half."""
        zero, total = 0, 0
        for layer in self._each():
            size = layer.seen().numel()
            zero += round(layer.zeros() * size)
            total += size
        return zero / total if total else 0.0

    def densities(self) -> dict[str, float]:
        """For each weight the share of elements, for each group the share of units, that are not masked."""
        return {layer.name: 1 - layer.zeros() for layer in self._each()}

    def table(self) -> Summary:
        """What each weight (or group) came to, also after the end: print it, or read its ``rows``."""
        rows = []
        for method, layers in self.layers:
            for layer in layers:
                seen = layer.seen()
                rows.append(Row(layer.name, method.name, tuple(seen.shape), layer.zeros(), values_of(seen)))
        return Summary(tuple(rows), self.history[-1] if self.history else None, tuple(self.notes))

    def plot(self, path: str | Path) -> None:
        """Write sparsity, loss and metrics over the epochs as an SVG picture.

        Raises
        ------
        UsageError
            No epoch has ended, or ``path`` does not end in ``.svg``.
        EnvironmentProblem
            The file cannot be written.
        """
        if Path(path).suffix.lower() != ".svg":
            raise UsageError(f"plot of a training: {path} is no kind of picture", hint="give a name that ends in .svg")
        if not self.history:
            raise UsageError("plot of a training: no epoch has ended yet", hint="call sparse.step() after each epoch")
        write_whole(path, curves(self.history, self.recipe))

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds beside the model's and the optimizer's: numbers, strings and lists."""
        return {"recipe": self.recipe, "epoch": self.epoch, "history": [dict(entry) for entry in self.history]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint; the model's own state, loaded into it before or after, holds masks and centres.

        Raises
        ------
        UsageError
            It is no state of a training, or one of another recipe: nothing is changed.
        """
        if not isinstance(state, Mapping) or not state.keys() >= {"recipe", "epoch", "history"}:
            raise UsageError("this is no state of a training", hint="give what sparse.state_dict() gave")
        if state["recipe"] != self.recipe:
            raise UsageError(
                f"the checkpoint is of the recipe {state['recipe']!r}, and this is {self.recipe!r}",
                hint="resume with the recipe that it was trained with",
            )
        epoch, history = state["epoch"], state["history"]
        if not isinstance(epoch, int) or epoch < 0 or not all(isinstance(entry, Mapping) for entry in history):
            raise UsageError(f"the checkpoint is damaged: it is of epoch {epoch!r}", hint="take another one")
        self.epoch, self.history = epoch, [dict(entry) for entry in history]

    def _each(self) -> Iterator[Trained]:
        for _, layers in self.layers:
            yield from layers

    def _begin(self) -> None:
        with torch.no_grad():
            for method, layers in self.layers:
                method.begin_epoch(layers, self.epoch)
        self._batches.begin([*self._each()])

    def _on(self, method: Training) -> Iterator[Trained]:
        if not method.of_groups:
            return on_weights(self.model, method, self.notes)
        if self.groups is None:
            raise UsageError(
                f"training by {method.name}: channels live and die in groups, and nothing says how the model runs",
                hint="prunec.train(model, recipe, example_inputs)",
            )
        return on_groups(self.model, self.groups, method, self.notes)
