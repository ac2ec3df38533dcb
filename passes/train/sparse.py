"""The training object: it goes around any loop, and the network is sparse at its end.

Methods put parametrizations on the weights of layers; everything else in training stays what it is.  Start at
:class:`Sparse`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from ...ir.errors import ModelError, UsageError
from ..groups import Groups
from .channels import on_groups
from .layer import Trained, on_weights
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
        For each epoch that ended: ``epoch``, ``loss`` (None where it was not told), ``sparsity`` of all weights.

    Raises
    ------
    UsageError
        No method, a method without anything to reach, or no layer that one could train so.
    """

    def __init__(
        self, model: nn.Module, methods: Sequence[Training], recipe: str, groups: Groups | None = None
    ) -> None:
        self.model, self.recipe, self.groups = model, recipe, groups
        self.epoch, self.history = 0, list[dict[str, Any]]()
        self.layers: list[tuple[Training, list[Trained]]] = []
        self.notes: list[str] = []
        try:
            for method in methods:
                method.check()
                self.layers.append((method, []))
                self.layers[-1][1].extend(self._on(method))
        except UsageError:
            self._remove(trained=False)
            raise
        self._begin()

    def __enter__(self) -> Sparse:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.finish()

    def step(self, loss: float | torch.Tensor | None = None) -> None:
        """An epoch has ended; ``loss`` is for the history.

        Raises
        ------
        ModelError
            The loss, or a weight, is not a finite number: nothing is changed, and the last checkpoint is still good.
        """
        value = None if loss is None else float(loss.detach() if isinstance(loss, torch.Tensor) else loss)
        if value is not None and not math.isfinite(value):
            raise ModelError(
                f"training, epoch {self.epoch}: the loss is {value}",
                hint="go back to the last checkpoint; a lower rate",
            )
        for layer in self._each():
            if not bool(torch.isfinite(layer.original).all()):
                raise ModelError(
                    f"training, epoch {self.epoch}: {layer.name} holds NaN or infinite values",
                    hint="go back to the last checkpoint; a lower rate",
                    parameter=layer.name,
                )
        self.epoch += 1
        self.history.append({"epoch": self.epoch, "loss": value, "sparsity": self.sparsity()})
        self._begin()

    def finish(self) -> None:
        """Make what is soft hard, and the weights ordinary parameters again; a second call does nothing."""
        self.harden()
        self._remove(trained=True)

    def _remove(self, *, trained: bool) -> None:
        """Make the weights ordinary parameters again: as layers see them where ``trained``, else as they are."""
        for module, tensor in dict.fromkeys(place for layer in self._each() for place in layer.places):
            parametrize.remove_parametrizations(module, tensor, leave_parametrized=trained)
        self.layers = []

    def harden(self) -> None:
        """Make what is soft hard, and train on: what is zero stays zero (fine-tuning with the final masks)."""
        for method, layers in self.layers:
            with torch.no_grad():
                method.finish(layers)

    def sparsity(self) -> float:
        """The share of the elements of all weights (of all units) that are masked now, soft ones below one half."""
        zero, total = 0, 0
        for layer in self._each():
            zero += round(layer.zeros() * layer.original.numel())
            total += layer.original.numel()
        return zero / total if total else 0.0

    def densities(self) -> dict[str, float]:
        """For each weight the share of elements, for each group the share of units, that are not masked."""
        return {layer.name: 1 - layer.zeros() for layer in self._each()}

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds beside the model's and the optimizer's: numbers, strings and lists."""
        return {"recipe": self.recipe, "epoch": self.epoch, "history": list(self.history)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint; the model's own state, loaded into it before or after, holds masks and centres.

        Raises
        ------
        UsageError
            The checkpoint is of another recipe: nothing is changed.
        """
        if state.get("recipe") != self.recipe:
            raise UsageError(
                f"the checkpoint is of the recipe {state.get('recipe')!r}, and this is {self.recipe!r}",
                hint="resume with the recipe that it was trained with",
            )
        self.epoch, self.history = int(state["epoch"]), list(state["history"])

    def _each(self) -> Iterator[Trained]:
        for _, layers in self.layers:
            yield from layers

    def _begin(self) -> None:
        with torch.no_grad():
            for method, layers in self.layers:
                method.begin_epoch(layers, self.epoch)

    def _on(self, method: Training) -> Iterator[Trained]:
        if not method.of_groups:
            return on_weights(self.model, method, self.notes)
        if self.groups is None:
            raise UsageError(
                f"training by {method.name}: channels live and die in groups, and nothing says how the model runs",
                hint="prunec.train(model, recipe, example_inputs)",
            )
        return on_groups(self.model, self.groups, method, self.notes)
