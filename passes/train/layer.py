"""What a method trains: a weight with a mask or centres of its own, or a dependency group with a mask for its units."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.nn.utils import parametrize

from ...ir.errors import UsageError
from ...ir.words import counted, listed
from ..plan.patterns import among
from .training import Training

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_OPS = ("linear", "conv1d", "conv2d", "conv3d")
"""The same in graphs, as compiled networks are."""

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
    found = dict(_weights(model))
    names = among({n: [n, f"type:{site.type}"] for n, site in found.items()}, method)
    wanted = {n: site for n, site in found.items() if n in names and site.weight.requires_grad}
    refuse_trained(method, {n: (site.module, site.tensor) for n, site in wanted.items()})
    shared = [n for n, site in wanted.items() if _uses(model, site.weight) > 1]
    if shared:
        notes.append(f"{method.name}: {counted(len(shared), 'weight')} that others share stay: {listed(shared)}")
        wanted = {n: site for n, site in wanted.items() if n not in shared}
    shapes = {n: tuple(site.weight.shape) for n, site in wanted.items()}
    odd = {n: f"{n} {list(shape)} ({why})" for n, shape in shapes.items() if (why := method.misfit(shape)) is not None}
    if not wanted or len(odd) == len(wanted):
        none = f"none of its layers fits: {listed(odd.values())}" if odd else "it has no linear or convolution layer"
        raise UsageError(f"training by {method.name}: {none}", hint="other options, or targets that name other layers")
    if odd:
        notes.append(f"{method.name}: {counted(len(odd), 'weight')} that it does not fit stay: {listed(odd.values())}")
    rest = [n for n, p in model.named_parameters() if p.dim() > 1 and n not in found]
    if rest and not (method.targets or method.ignore):
        notes.append(
            f"{method.name}: {counted(len(rest), 'parameter')} of other layers stay as they are: {listed(rest)}"
        )
    rows = sum(int((site.weight.flatten(1) == 0).all(1).sum()) for n, site in wanted.items() if n not in odd)
    if rows and not method.holds_zeros:
        notes.append(
            f"{method.name}: {counted(rows, 'row')} of zeros may grow back: drop them first (shrink,eliminate), and "
            "train what comes out"
        )
    for name, site in wanted.items():
        if name not in odd:
            held = method.on(site.weight)
            parametrize.register_parametrization(site.module, site.tensor, held, unsafe=True)
            yield Layer(name, site.module, site.tensor, held)


@dataclass(frozen=True, eq=False)
class _Site:
    """A weight of a layer of ``type``: the module that has it, and its name there."""

    module: nn.Module
    tensor: str
    type: str

    @property
    def weight(self) -> nn.Parameter:
        found: nn.Parameter = getattr(self.module, self.tensor)
        return found


def _weights(model: nn.Module) -> Iterator[tuple[str, _Site]]:
    """The weights of linear and convolution layers by name, those in graphs too."""
    for prefix, part in model.named_modules():
        if isinstance(part, _LAYERS):
            yield f"{prefix}.weight" if prefix else "weight", _Site(part, "weight", _type(type(part).__name__))
        elif isinstance(part, GraphModule):
            for node in part.graph.find_nodes(op="get_attr"):
                kinds = [str(u.target).removeprefix("aten.").split(".")[0] for u in node.users if node in u.args[1:2]]
                if kinds and all(kind in _OPS for kind in kinds):
                    owner, _, tensor = str(node.target).rpartition(".")
                    name = f"{prefix}.{node.target}" if prefix else str(node.target)
                    yield name, _Site(part.get_submodule(owner), tensor, _type(kinds[0]))


def in_training(model: nn.Module) -> str | None:
    """The first parameter of ``model`` that a training of prunec stands on; None where there is none."""
    for name, module in model.named_modules():
        owner, stands, rest = f".{name}".partition(".parametrizations.")
        if stands and type(module).__module__.startswith(f"{__package__}."):
            return f"{owner}.{rest.partition('.')[0]}".lstrip(".")
    return None


def taken_off(places: Iterable[Place], orders: Mapping[nn.Module, Sequence[str]], *, trained: bool) -> None:
    """Make the parameters at ``places`` ordinary again: as layers see them where ``trained``, else as they are.

    Copies of the modules share the class that torch made for them, and torch takes the parameter's property off it: so
    the originals get one of their own first.  ``orders``: in what order the modules had their parameters.
    """
    for module, tensor in places:
        made = type(module)
        attributes = {k: v for k, v in vars(made).items() if k not in ("__dict__", "__weakref__")}
        module.__class__ = type(made.__name__, made.__bases__, attributes)
        parametrize.remove_parametrizations(module, tensor, leave_parametrized=trained)
        for name in orders.get(module, ()):
            if name in module._parameters:
                module._parameters[name] = module._parameters.pop(name)


def refuse_trained(method: Training, places: Mapping[str, Place]) -> None:
    """Raise :class:`UsageError` where a parametrization stands on one of the parameters ``places`` already."""
    twice = [n for n, (m, tensor) in places.items() if parametrize.is_parametrized(m, tensor)]
    if not twice:
        return
    if any(in_training(m) for m, _ in places.values()):
        raise UsageError(
            f"training by {method.name}: {listed(twice)} trained already",
            hint="one method for each weight (targets, ignore), one after the other for the same; finish() of the "
            "object that prunec.train gave ends a training that was left open",
        )
    raise UsageError(
        f"training by {method.name}: {listed(twice)} parametrized by something else (weight_norm, spectral_norm)",
        hint="leave these out (ignore), or torch.nn.utils.parametrize.remove_parametrizations first",
    )


def _uses(model: nn.Module, parameter: Tensor) -> int:
    """How many names a parameter has: one that is tied would be sparse in one place and dense in another."""
    return sum(p is parameter for _, p in model.named_parameters(remove_duplicate=False))


def _type(kind: str) -> str:
    return "linear" if kind.lower() == "linear" else "conv"
