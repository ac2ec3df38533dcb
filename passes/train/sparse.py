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
from ...ir.words import counted, listed
from ..plan.patterns import among
from .training import Layer, Training

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


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

    def __init__(self, model: nn.Module, methods: Sequence[Training], recipe: str) -> None:
        self.model, self.recipe = model, recipe
        self.epoch, self.history = 0, list[dict[str, Any]]()
        self.layers: list[tuple[Training, list[Layer]]] = []
        self.notes: list[str] = []
        try:
            for method in methods:
                method.check()
                self.layers.append((method, self._on(method)))
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
        value = None if loss is None else float(loss)
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
        for layer in self._each():
            parametrize.remove_parametrizations(layer.module, layer.tensor, leave_parametrized=trained)
        self.layers = []

    def harden(self) -> None:
        """Make what is soft hard, and train on: what is zero stays zero (fine-tuning with the final masks)."""
        for method, layers in self.layers:
            with torch.no_grad():
                method.finish(layers)

    def sparsity(self) -> float:
        """The share of the elements of all weights that layers see as zero now, soft ones below one half."""
        zero, total = 0, 0
        for layer in self._each():
            zero += round(self._zeros(layer) * layer.original.numel())
            total += layer.original.numel()
        return zero / total if total else 0.0

    def densities(self) -> dict[str, float]:
        """For each weight the share of elements that are not zero."""
        return {layer.name: 1 - self._zeros(layer) for layer in self._each()}

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

    def _each(self) -> Iterator[Layer]:
        for _, layers in self.layers:
            yield from layers

    def _begin(self) -> None:
        with torch.no_grad():
            for method, layers in self.layers:
                method.begin_epoch(layers, self.epoch)

    def _zeros(self, layer: Layer) -> float:
        with torch.no_grad():
            seen = getattr(layer.module, layer.tensor)
            soft = getattr(layer.held, "soft", None)
            if soft is not None and not layer.held.hard and layer.held.reached > 0:
                return float((soft(layer.original) < 0.5).float().mean())
            return float((seen == 0).float().mean())

    def _on(self, method: Training) -> list[Layer]:
        found = {
            f"{name}.weight" if name else "weight": m
            for name, m in self.model.named_modules()
            if isinstance(m, _LAYERS)
        }
        names = among({n: [n, f"type:{_type(m)}"] for n, m in found.items()}, method.targets, method.ignore)
        wanted = {n: m for n, m in found.items() if n in names and m.weight.requires_grad}
        if twice := [n for n, m in wanted.items() if parametrize.is_parametrized(m, "weight")]:
            raise UsageError(
                f"training by {method.name}: {listed(twice)} trained by another method already",
                hint="one method for each weight (targets, ignore), one after the other for the same",
            )
        odd = [n for n, m in wanted.items() if not method.fits(tuple(m.weight.shape))]
        if not wanted or len(odd) == len(wanted):
            none = f"none of its layers fits ({listed(odd)})" if odd else "it has no linear or convolution layer"
            raise UsageError(
                f"training by {method.name}: {none}", hint="other options, or targets that name other layers"
            )
        if odd:
            self.notes.append(f"{method.name}: {counted(len(odd), 'weight')} that it does not fit stay: {listed(odd)}")
        rest = [n for n, p in self.model.named_parameters() if p.dim() > 1 and n not in found]
        if rest and not (method.targets or method.ignore):
            self.notes.append(
                f"{method.name}: {counted(len(rest), 'parameter')} of other layers stay as they are: {listed(rest)}"
            )
        layers = []
        for name, module in wanted.items():
            if name not in odd:
                held = method.on(module.weight)
                parametrize.register_parametrization(module, "weight", held, unsafe=True)
                layers.append(Layer(name, module, "weight", held))
        return layers


def _type(module: nn.Module) -> str:
    return "linear" if isinstance(module, nn.Linear) else "conv"
