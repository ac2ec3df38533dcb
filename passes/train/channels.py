"""Channels in training: each unit of a dependency group is masked as a whole, in every parameter that it stands in.

A method ranks the magnitudes of the units as it ranks the elements of a weight [ours: the paper takes single filters],
and all elements that a unit needs are multiplied by its hard mask, or by the root of a soft one.  Hard, that is what
the masked network of a compile is.  Start at :func:`on_groups`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ...ir.errors import UsageError
from ...ir.words import counted, listed
from ..groups import Group, Groups
from ..parameter import untrained
from ..plan.patterns import chosen
from ..verify import norm_tied
from .parametrized import refuse_trained
from .sites import Place
from .training import Training

_TINY = 1e-24
"""Squares and masks are at least about so large before a root is taken, whose gradient at zero is infinite."""


@dataclass(frozen=True, eq=False)
class Axis:
    """Where the units of a group stand on one axis of a parameter: ``position[k]`` needs unit ``unit[k]``."""

    dim: int
    position: NDArray[np.int64]
    unit: NDArray[np.int64]

    def table(self, size: int, units: int) -> Tensor:
        """For each of ``size`` positions the units that it needs (n, k), filled up with the number ``units``."""
        order = np.argsort(self.position, kind="stable")
        position, unit = self.position[order], self.unit[order]
        nth = np.arange(position.size) - np.searchsorted(position, position)
        table = np.full((size, int(nth.max()) + 1), units, np.int64)
        table[position, nth] = unit
        return torch.from_numpy(table)


class Units(nn.Module):
    """The units of a group: their magnitudes and their mask.

    The magnitude of a unit is the norm of all its elements in parameters of two axes and more, in means of its group,
    so that groups compare [ours].
    """

    held: Any

    def __init__(self, count: int, method: Training, device: torch.device) -> None:
        super().__init__()
        self.count = count
        self.parts: list[tuple[nn.Parameter, Axis]] = []
        self.held = method.on(torch.zeros(count, device=device))

    def magnitudes(self) -> Tensor:
        """The magnitude of each unit (u)."""
        first = self.parts[0][0]
        wide = torch.promote_types(first.dtype, torch.float32)
        energy = torch.zeros(self.count, dtype=wide, device=first.device)
        for parameter, axis in self.parts:
            others = [d for d in range(parameter.dim()) if d != axis.dim]
            position, unit = (torch.from_numpy(x).to(energy.device) for x in (axis.position, axis.unit))
            energy = energy.index_add(0, unit, parameter.to(wide).square().sum(others)[position])
        found = (energy + _TINY).sqrt()
        return found / found.detach().mean()

    def mask(self) -> Tensor | None:
        """The mask of each unit (u), None while there is none."""
        found: Tensor | None = self.held.of(self.magnitudes())
        return found


class OfUnits(nn.Module):
    """What stands before a parameter that units of a group stand in.

    A hard mask multiplies each element that its unit needs.  Of a soft mask m each takes √m [ours], so that a unit that
    one layer makes and another reads is m times what it was, and not m² times.  Where more layers stand between, as a
    depthwise convolution does, there is a factor for each; a batch norm takes out the one of the layer before it.
    """

    units: Units

    def __init__(self, units: Units, shape: torch.Size, axes: list[Axis]) -> None:
        super().__init__()
        self.units = units
        self.dims = [a.dim for a in axes]
        for k, axis in enumerate(axes):
            table = axis.table(shape[axis.dim], units.count).to(units.held.hard.device)
            self.register_buffer(f"table{k}", table, persistent=False)

    def forward(self, parameter: Tensor) -> Tensor:
        mask = self.units.mask()
        if mask is None:
            return parameter
        if mask.is_floating_point():
            mask = mask.clamp_min(_TINY).sqrt()
        one_more = torch.cat([mask, mask.new_ones(1)])
        product = torch.ones_like(parameter)
        for k, dim in enumerate(self.dims):
            factor = one_more[getattr(self, f"table{k}")].prod(-1)
            product = product * factor.view([-1 if d == dim else 1 for d in range(parameter.dim())])
        found: Tensor = self.units.held.applied(parameter, product.to(mask.dtype))
        return found


@dataclass(frozen=True, eq=False)
class Channels:
    """A dependency group in training: its name, its units, and the parameters that they stand in."""

    name: str
    units: Units
    places: tuple[Place, ...]

    @property
    def held(self) -> Any:
        return self.units.held

    @property
    def original(self) -> Tensor:
        """The magnitudes of the units (u)."""
        return self.units.magnitudes()

    def seen(self) -> Tensor:
        """The mask of the units (u)."""
        with torch.no_grad():
            mask = self.units.mask()
            return torch.ones_like(self.original) if mask is None else mask.float()

    def zeros(self) -> float:
        return float((self.seen() < 0.5).float().mean())


def on_groups(model: nn.Module, groups: Groups, method: Training, notes: list[str]) -> Iterator[Channels]:
    """Put ``method`` on the groups of ``model`` that it means; ``notes`` say what it left.

    Raises
    ------
    UsageError
        No group fits, or another method trains a parameter of one already.
    """
    found, parameters = chosen(groups, method), _parameters(model)
    tied = norm_tied(groups)
    normed = [g.name for g in found if np.isin(g.units, tied).any()]
    strange = [g.name for g in found if g.name not in normed and not _is_known(g, groups, parameters)]
    left = {
        "a norm or a sum sees all of their channels": normed,
        "not all that they are made of is a parameter that it reaches": strange,
    }
    why = [f"{counted(len(names), 'group')} left, {reason}: {listed(names)}" for reason, names in left.items() if names]
    wanted = [g for g in found if g.name not in {*normed, *strange}]
    if not wanted:
        raise UsageError(
            f"training by {method.name}: the model has no group of channels that it could mask ({'; '.join(why)})",
            hint="`prunec analyze` says what is pinned; other targets, or sparsity instead of channels",
        )
    notes += [f"{method.name}: {line}" for line in why]
    refuse_trained(method, {n: parameters[n] for g in wanted for n in _names(g, groups)})
    made = [_InTraining(g, groups, parameters, method) for g in wanted]
    for each in made:
        each.put()
        yield Channels(each.group.name, each.units, each.places)


def _parameters(model: nn.Module) -> dict[str, Place]:
    """Every parameter under all its names; none of recurrent layers, which keep theirs in a second place too."""
    found = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if not isinstance(module, nn.RNNBase):
            for tensor in (*module._parameters, *getattr(module, "parametrizations", ())):
                found[f"{name}.{tensor}" if name else tensor] = (module, tensor)
    return found


def _names(group: Group, groups: Groups) -> list[str]:
    """The parameters of a group, once each; buffers are none."""
    trained = {c.name for c in groups.analysis.graph.constants.values() if c.role == "parameter"}
    return list(dict.fromkeys(n for n, _ in group.places if n in trained))


def _is_known(group: Group, groups: Groups, parameters: Mapping[str, Place]) -> bool:
    """Whether each parameter of the group is one of the model in the same shape, one of them a weight, and nothing
    that is not trained adds to its channels."""
    shapes = {c.name: tuple(c.data.shape) for c in groups.analysis.graph.constants.values()}
    names = _names(group, groups)
    same = all(n in parameters and tuple(getattr(*parameters[n]).shape) == shapes[n] for n in names)
    fixed = {c.name for c in untrained(groups.analysis.graph)}
    return same and any(len(shapes[n]) > 1 for n in names) and not any(n in fixed for n, _ in group.places)


class _InTraining:
    """A group, its units, and where they stand in its parameters, before anything is put on these."""

    def __init__(self, group: Group, groups: Groups, parameters: Mapping[str, Place], method: Training) -> None:
        self.group = group
        names = _names(group, groups)
        self.places = tuple(parameters[n] for n in names)
        self.axes = [self._axes(n, groups) for n in names]
        originals = [getattr(module, tensor) for module, tensor in self.places]
        self.units = Units(len(group), method, originals[0].device)
        self.units.parts = [(p, a) for p, axes in zip(originals, self.axes, strict=True) if p.dim() > 1 for a in axes]

    def _axes(self, name: str, groups: Groups) -> list[Axis]:
        analysis = groups.analysis
        value = next(v for v, c in analysis.graph.constants.items() if c.name == name)
        found = []
        for dim, atoms in enumerate(analysis.axes[value] or ()):
            position, unit = analysis.solution.needs(atoms)
            mine = np.isin(unit, self.group.units)
            if mine.any():
                found.append(Axis(dim, position[mine], np.searchsorted(self.group.units, unit[mine])))
        return found

    def put(self) -> None:
        for (module, tensor), axes in zip(self.places, self.axes, strict=True):
            shape = getattr(module, tensor).shape
            parametrize.register_parametrization(module, tensor, OfUnits(self.units, shape, axes), unsafe=True)
