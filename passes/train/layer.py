"""What a method trains: a weight with a mask or centres of its own, or a dependency group with a mask for its units."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ...ir.errors import UsageError
from ...ir.words import counted, listed
from ..plan.patterns import among
from .parametrized import refuse_trained
from .sites import Place, Site, sites
from .training import Training


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
    found = dict(sites(model))
    names = among({n: [n, f"type:{site.type}"] for n, site in found.items()}, method)
    named = {n: site for n, site in found.items() if n in names}
    left = {n: why for n, site in named.items() if (why := _why_left(model, site, method)) is not None}
    wanted = {n: site for n, site in named.items() if n not in left}
    refuse_trained(method, {n: (site.module, site.tensor) for n, site in wanted.items()})
    if not wanted:
        none = f"none of its layers fits: {_listed(left)}" if left else "it has no linear or convolution layer"
        raise UsageError(f"training by {method.name}: {none}", hint="other options, or targets that name other layers")
    others = [n for n, p in model.named_parameters() if p.dim() > 1 and n not in found]
    notes += [f"{method.name}: {line}" for line in _remarks(method, left, others, wanted)]
    for name, site in wanted.items():
        held = method.on(site.weight)
        parametrize.register_parametrization(site.module, site.tensor, held, unsafe=True)
        yield Layer(name, site.module, site.tensor, held)


def _why_left(model: nn.Module, site: Site, method: Training) -> str | None:
    """Why ``method`` leaves a weight alone; None where it does not."""
    if not site.weight.requires_grad:
        return "frozen"
    if sum(p is site.weight for _, p in model.named_parameters(remove_duplicate=False)) > 1:
        return "others share it"  # sparse in one place, it would be dense in another
    why = method.misfit(tuple(site.weight.shape))
    return None if why is None else f"{list(site.weight.shape)}, {why}"


def _listed(left: Mapping[str, str]) -> str:
    return listed(f"{name} ({why})" for name, why in left.items())


def _remarks(
    method: Training, left: Mapping[str, str], others: Sequence[str], wanted: Mapping[str, Site]
) -> Iterator[str]:
    """What is worth a word of the weights that ``method`` is put on, and of those that stay as they are."""
    if left:
        yield f"{counted(len(left), 'weight')} left: {_listed(left)}"
    if others and not (method.targets or method.ignore):
        yield f"{counted(len(others), 'parameter')} of other layers left: {listed(others)}"
    rows = sum(int((site.weight.flatten(1) == 0).all(1).sum()) for site in wanted.values())
    if rows and not method.holds_zeros:
        yield (f"{counted(rows, 'row')} of zeros may grow back: drop them first (shrink), and train what comes out")
