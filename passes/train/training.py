"""What a training method is: what it puts on each weight, and how that changes from epoch to epoch.

A method stands in a recipe like a pass, and is run by ``prunec.train`` instead of by a compile.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ...ir.errors import UsageError
from ...ir.packing.nm import Pattern
from ...ir.packing.packing import Packing
from ..base import Kind, Pass, State

if TYPE_CHECKING:
    from torch import nn

    from .layer import Trained


@dataclass(frozen=True)
class Training(Pass):
    """A method of training; subclasses add their options as fields."""

    kind: ClassVar[Kind] = "training"
    requires_choice: ClassVar[bool] = True

    targets: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()

    def run(self, state: State) -> Any:
        raise UsageError(
            f"{self.name} trains a network, and a compile does not",
            hint=f"with prunec.train(model, '{self.name}{{…}}') as sparse: …; then compile the model with pack",
        )

    def check(self) -> None:
        """Raise :class:`UsageError` where the options say nothing to reach."""

    @property
    def of_groups(self) -> bool:
        """Whether it is put on the units of dependency groups, instead of on the weights of layers."""
        return False

    @abstractmethod
    def on(self, weight: Any) -> nn.Module:
        """What stands between the parameter ``weight`` (o, i, *) and the layer; raises :class:`UsageError`."""

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether a weight of ``shape`` can be trained so."""
        return True

    @abstractmethod
    def begin_epoch(self, layers: Sequence[Trained], epoch: int) -> None:
        """What changes before ``epoch``, counted from 0."""

    def unfinished(self, epochs: int) -> str | None:
        """What is worth a word where a training has so few ``epochs`` that the method does not come to its end."""
        return None

    def packing(self, layers: Sequence[Trained]) -> Packing:
        """What is known of how the weights may be packed, once they are hard."""
        return Packing()

    @abstractmethod
    def finish(self, layers: Sequence[Trained]) -> None:
        """Make what is soft hard: the last thing before the weights are what they are trained to be."""


@dataclass(frozen=True)
class Sparsifying(Training):
    """A method that makes elements zero: a ``sparsity`` over all weights, a pattern N:M (``n``, ``m``, ``v``), or all
    elements of a share ``channels`` of the units.

    For ``warm`` epochs it masks nothing.
    """

    sparsity: float | None = None
    n: int | None = None
    m: int | None = None
    v: int = 1
    channels: float | None = None
    warm: int = 0

    def __post_init__(self) -> None:
        for option, share in (("sparsity", self.sparsity), ("channels", self.channels)):
            if share is not None and not 0 < share < 1:
                raise UsageError(f"{self.name}{{{option}}} cannot be {share}", hint="a number in (0, 1)")
        if (self.n, self.m) != (None, None):
            Pattern.of(self.n, self.m, self.v, self.name)
        asked = {"a sparsity": self.sparsity, "a pattern": self.n, "channels": self.channels}
        if len(given := [name for name, value in asked.items() if value is not None]) > 1:
            raise UsageError(f"{self.name}: both {' and '.join(given)}", hint="give one of them")
        if self.warm < 0:
            raise UsageError(f"{self.name}{{warm}} cannot be {self.warm}", hint="epochs, from 0")

    @property
    def pattern(self) -> Pattern | None:
        return None if self.n is None else Pattern.of(self.n, self.m, self.v, self.name)

    def fits(self, shape: tuple[int, ...]) -> bool:
        return self.pattern is None or self.pattern.fits(shape)

    def check(self) -> None:
        if (self.sparsity, self.n, self.channels) == (None, None, None):
            raise UsageError(
                f"{self.name}: give a sparsity, or n and m, or channels",
                hint=f"{self.name}{{sparsity=0.9}}, {self.name}{{n=2,m=4}} or {self.name}{{channels=0.5}}",
            )

    @property
    def of_groups(self) -> bool:
        return self.channels is not None

    @abstractmethod
    def reached(self, epoch: int) -> float:
        """How much of what is asked the masks come to in the ``epoch``-th one after ``warm``, from 0 to 1."""

    def begin_epoch(self, layers: Sequence[Trained], epoch: int) -> None:
        if epoch == self.warm:
            self.share(layers)
        for layer in layers:
            layer.held.reached.fill_(self.reached(epoch - self.warm) if epoch >= self.warm else 0.0)

    def packing(self, layers: Sequence[Trained]) -> Packing:
        return Packing() if self.pattern is None else Packing((self.pattern,))

    def unfinished(self, epochs: int) -> str | None:
        came = self.reached(epochs - 1 - self.warm) if epochs > self.warm else 0.0
        if came >= 1:
            return None
        return f"{self.name}: {epochs} epochs come to {came:.0%} of what is asked; the rest goes at once at the end"

    def share(self, layers: Sequence[Trained]) -> None:
        """Give each layer its part of the share that goes: what is below the level of all magnitudes together."""
        from .parametrizations import global_counts

        share = self.sparsity if self.channels is None else self.channels
        if share is not None:
            for layer, gone in zip(layers, global_counts([x.original for x in layers], share), strict=True):
                layer.held.gone.fill_(gone)

    def finish(self, layers: Sequence[Trained]) -> None:
        for layer in layers:
            layer.held.harden(layer.original)
