"""What a training method is: what it puts on each weight, and how that changes from epoch to epoch.

A method stands in a recipe like a pass, and is run by ``prunec.train`` instead of by a compile.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from ...ir import arrays
from ...ir.errors import UsageError
from ...ir.packing.nm import Pattern
from ...ir.packing.packing import Packing
from ...ir.words import counted, listed
from ..base import Kind, Pass, State

if TYPE_CHECKING:
    from torch import nn

    from .layer import Trained


_NEAR = 0.001
"""How far the share of zeros may be from what was asked."""

_AVERAGED = " (masks are buffers of the model: were they averaged, or loaded from another epoch?)"


@dataclass(frozen=True)
class Outcome:
    """What hard weights came to.

    ``packing``: what is known of how they may be packed.  ``missed``: what they do not hold of what was asked, or what
    else came of it that nobody wants.
    """

    packing: Packing = field(default_factory=Packing)
    missed: str | None = None


@dataclass(frozen=True)
class Training(Pass):
    """A method of training; subclasses add their options as fields.

    ``holds_zeros``: what is zero before stays zero.
    """

    kind: ClassVar[Kind] = "training"
    requires_choice: ClassVar[bool] = True
    holds_zeros: ClassVar[bool] = False

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

    def misfit(self, shape: tuple[int, ...]) -> str | None:
        """Why a weight of ``shape`` (o, i, *) cannot be trained so; None where it can."""
        return None

    @abstractmethod
    def begin_epoch(self, layers: Sequence[Trained], epoch: int) -> None:
        """What changes before ``epoch``, counted from 0."""

    def unfinished(self, epochs: int) -> str | None:
        """What is worth a word where a training has so few ``epochs`` that the method does not come to its end."""
        return None

    def untrained(self, layers: Sequence[Trained]) -> str | None:
        """What is worth a word after the first epoch: that what is to be trained has not moved."""
        return None

    @abstractmethod
    def finish(self, layers: Sequence[Trained]) -> None:
        """Make what is soft hard: the last thing before the weights are what they are trained to be."""

    def outcome(self, layers: Sequence[Trained]) -> Outcome:
        """What came of it, once all is hard."""
        return Outcome()


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

    def misfit(self, shape: tuple[int, ...]) -> str | None:
        if self.pattern is None or self.pattern.fits(shape):
            return None
        if shape[1] % self.pattern.m:
            return f"m={self.m} does not divide {shape[1]} inputs"
        return f"v={self.v} does not divide {shape[0]} rows"

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

    def unfinished(self, epochs: int) -> str | None:
        last = max(epochs, 1) - 1  # where none has ended, what was trained is the first
        came = self.reached(last - self.warm) if last >= self.warm else 0.0
        if came >= 1:
            return None
        after = f"after {counted(epochs, 'epoch')}" if epochs else "and no epoch has ended (sparse.step() ends one)"
        return f"{self.name}: at {came:.0%} of what is asked {after}; the rest goes at once at the end"

    def share(self, layers: Sequence[Trained]) -> None:
        """Give each layer its part of the share that goes: what is below the level of all magnitudes together."""
        from .parametrizations import global_counts

        share = self.sparsity if self.channels is None else self.channels
        if share is not None:
            for layer, gone in zip(layers, global_counts([x.original for x in layers], share), strict=True):
                layer.held.gone.fill_(gone)

    def outcome(self, layers: Sequence[Trained]) -> Outcome:
        if self.pattern is None:
            return Outcome(missed=self._missed(layers))
        lost = [layer.name for layer in layers if not self.pattern.holds(arrays.native(layer.seen()))]
        missed = f"{self.name}: {self.pattern} does not hold in {listed(lost)}{_AVERAGED}" if lost else None
        return Outcome(Packing((self.pattern,)), missed)

    def _missed(self, layers: Sequence[Trained]) -> str | None:
        """What is worth a word of the share that is zero."""
        asked, sizes = self.sparsity or self.channels or 0.0, [layer.original.numel() for layer in layers]
        zeros = [round(layer.zeros() * size) for layer, size in zip(layers, sizes, strict=True)]
        if sum(zeros) < (asked - _NEAR) * sum(sizes) - len(layers):
            return f"{self.name}: {sum(zeros) / sum(sizes):.1%} is zero where {asked:.1%} was asked{_AVERAGED}"
        gone = [x.name for x, zero, size in zip(layers, zeros, sizes, strict=True) if zero >= size - 1 and size > 1]
        return f"{self.name}: nothing but one element stays of {listed(gone)}" if gone else None

    def finish(self, layers: Sequence[Trained]) -> None:
        if self.pattern is None and not any(bool(layer.held.hard) or layer.held.gone > 0 for layer in layers):
            self.share(layers)  # it ended before the first mask
        for layer in layers:
            layer.held.harden(layer.original)
