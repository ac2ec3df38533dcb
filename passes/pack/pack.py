"""Pack: weights take the smallest form on disk that gives them back exactly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...ir.analysis import analyse
from ...ir.errors import UsageError
from ...ir.packing.nm import Pattern
from ...ir.packing.packing import Packing
from ...ir.words import counted, listed
from ..base import Kind, Pass, State, register
from ..weights import weights


@register
@dataclass(frozen=True)
class Pack(Pass):
    """Hold each weight in the smallest form that gives it back exactly: a bit mask, a pattern N:M, a palette.

    Tensors below 4,096 bytes stay as they are, for what makes them again would take as much.
    n, m, v: a pattern that holds in the weights, n kept of m, the same ones in v rows; those of ``mask`` are known.
    """

    n: int | None = None
    m: int | None = None
    v: int = 1

    name: ClassVar[str] = "pack"
    kind: ClassVar[Kind] = "analysis"
    ensures: ClassVar[frozenset[str]] = frozenset({"packing"})
    requires_choice: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self._pattern()

    def _pattern(self) -> Pattern | None:
        """The pattern of the options, checked; None for none."""
        return None if (self.n, self.m) == (None, None) else Pattern.of(self.n, self.m, self.v, self.name)

    def run(self, state: State) -> Packing:
        known: Packing = state.facts.get("packing", Packing())
        _check_known(known.patterns, state)
        patterns = tuple(state.facts.get("patterns", ()))
        if (own := self._pattern()) is not None:
            patterns = (*patterns, own)
            _check(own, state)
        return known.with_others(Packing(patterns))


def _check_known(patterns: tuple[Pattern, ...], state: State) -> None:
    """Say which of ``patterns``, that a training or an earlier compile left in the weights, they have lost since."""
    found = weights(analyse(state.graph)) if patterns else []
    lost = [str(p) for p in patterns if not any(p.holds(w.rows_first(w.data)) for w in found)]
    if lost:
        state.notes.append(f"pack: the weights held {', '.join(lost)} once, and none does now: were they trained on?")


def _check(pattern: Pattern, state: State) -> None:
    """Say in which weights the pattern does not hold; raise where there is none in which it does."""
    found = weights(analyse(state.graph))
    without = [w.name for w in found if not pattern.holds(w.rows_first(w.data))]
    if len(without) == len(found):
        raise UsageError(
            f"pack: the pattern {pattern} holds in no weight",
            hint=f"mask{{n={pattern.n},m={pattern.m},v={pattern.v}}} before it",
        )
    if without:
        state.notes.append(f"pack: {pattern} does not hold in {counted(len(without), 'weight')}: {listed(without)}")
