"""What a method trains: a weight with a mask or centres of its own, or a dependency group with a mask for its units."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ...ir.errors import UsageError
from ...ir.words import counted, listed
from ..plan.patterns import among
from .training import Training

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)

Place = tuple[nn.Module, str]
"""A parameter by the module that has it and its name there."""


class Trained(Protocol):
    """What the schedule of a method goes by: sizes to be ranked, and the state in which the ranking ends."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The weight, or the group."""

    @property
    @abstractmethod
    def held(self) -> Any:
        """The mask, or the centres."""

    @property
    @abstractmethod
    def original(self) -> Tensor:
        """What is ranked: a weight, or the magnitudes of the units of a group."""

    @property
    @abstractmethod
    def places(self) -> tuple[Place, ...]:
        """The parameters that a parametrization stands on."""

    @abstractmethod
    def seen(self) -> Tensor:
        """What is ranked as the layers see it, now or after the end; looking at it moves no centres."""

    @abstractmethod
    def zeros(self) -> float:
        """The share of what is ranked that is zero now or after the end, soft ones below one half."""


@dataclass(frozen=True, eq=False)
class Layer:
    """A weight in training: the module that has it, its name there and in the whole, and what the method put on it."""

    name: str
    module: nn.Module
    tensor: str
    held: Any

    @property
    def original(self) -> Tensor:
        """The parameter that is trained."""
        found: Tensor = getattr(self.module.parametrizations, self.tensor).original
        return found

    @property
    def places(self) -> tuple[Place, ...]:
        return ((self.module, self.tensor),)

    def seen(self) -> Tensor:
        training = self.held.training
        self.held.eval()
        try:
            with torch.no_grad():
                found: Tensor = getattr(self.module, self.tensor)
                return found.detach()
        finally:
            self.held.train(training)

    def zeros(self) -> float:
        soft = getattr(self.held, "soft", None)
        if soft is None or self.held.hard or self.held.reached == 0:
            return float((self.seen() == 0).float().mean())
        with torch.no_grad():
            return float((soft(self.original) < 0.5).float().mean())


def on_weights(model: nn.Module, method: Training, notes: list[str]) -> Iterator[Layer]:
    """Put ``method`` on the weights of the linear and convolution layers that it means; ``notes`` say what it left.

    Raises
    ------
    UsageError
        No layer fits, or another method trains one already.
    """
    found = {f"{name}.weight" if name else "weight": m for name, m in model.named_modules() if isinstance(m, _LAYERS)}
    names = among({n: [n, f"type:{_type(m)}"] for n, m in found.items()}, method)
    wanted = {n: m for n, m in found.items() if n in names and m.weight.requires_grad}
    refuse_trained(method, {n: (m, "weight") for n, m in wanted.items()})
    shared = [n for n, m in wanted.items() if _uses(model, m.weight) > 1]
    if shared:
        notes.append(f"{method.name}: {counted(len(shared), 'weight')} that others share stay: {listed(shared)}")
        wanted = {n: m for n, m in wanted.items() if n not in shared}
    odd = [n for n, m in wanted.items() if not method.fits(tuple(m.weight.shape))]
    if not wanted or len(odd) == len(wanted):
        none = f"none of its layers fits ({listed(odd)})" if odd else "it has no linear or convolution layer"
        raise UsageError(f"training by {method.name}: {none}", hint="other options, or targets that name other layers")
    if odd:
        notes.append(f"{method.name}: {counted(len(odd), 'weight')} that it does not fit stay: {listed(odd)}")
    rest = [n for n, p in model.named_parameters() if p.dim() > 1 and n not in found]
    if rest and not (method.targets or method.ignore):
        notes.append(
            f"{method.name}: {counted(len(rest), 'parameter')} of other layers stay as they are: {listed(rest)}"
        )
    for name, module in wanted.items():
        if name not in odd:
            held = method.on(module.weight)
            parametrize.register_parametrization(module, "weight", held, unsafe=True)
            yield Layer(name, module, "weight", held)


def refuse_trained(method: Training, places: Mapping[str, Place]) -> None:
    """Raise :class:`UsageError` where a parametrization stands on one of the parameters ``places`` already."""
    if twice := [n for n, (m, tensor) in places.items() if parametrize.is_parametrized(m, tensor)]:
        raise UsageError(
            f"training by {method.name}: {listed(twice)} parametrized already, by another method or by torch",
            hint="one method for each weight (targets, ignore), one after the other for the same; "
            "torch.nn.utils.parametrize.remove_parametrizations takes off what else stands there",
        )


def _uses(model: nn.Module, parameter: Tensor) -> int:
    """How many names a parameter has: one that is tied would be sparse in one place and dense in another."""
    return sum(p is parameter for _, p in model.named_parameters(remove_duplicate=False))


def _type(module: nn.Module) -> str:
    return "linear" if isinstance(module, nn.Linear) else "conv"
