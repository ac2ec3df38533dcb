"""What random torch and ONNX programs have in common: kinds of values, and the dice that rules throw."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

IMAGE, SEQUENCE, VECTOR = 4, 3, 2
ANY = frozenset((IMAGE, SEQUENCE, VECTOR))
INPUTS: dict[str, tuple[int, ...]] = {"image": (2, 3, 6, 6), "sequence": (2, 5, 6), "vector": (2, 6)}
LARGEST = 1 << 13
"""Elements of the largest value."""

_WIDTHS = (4, 6, 8, 12)


class Unfit(Exception):
    """A rule that does not apply to the value it was given."""


class Featured:
    """A value whose ``shape`` is known: an image (B, c, H, W), a sequence (B, T, d), a vector (B, d)."""

    @property
    def shape(self) -> tuple[int, ...]:
        raise NotImplementedError

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def feature(self) -> int:
        """The axis that layers widen: 1 for images and vectors, 2 for sequences."""
        return 2 if self.rank == SEQUENCE else 1

    @property
    def width(self) -> int:
        return self.shape[self.feature]


@dataclass
class Dice:
    """Whatever a rule leaves to chance."""

    dice: random.Random
    divisors: ClassVar[tuple[int, ...]] = (1, 1, 2, 3, 4)

    def pick(self, items: Sequence[Any]) -> Any:
        return items[self.dice.randrange(len(items))]

    def integer(self, low: int, high: int) -> int:
        return self.dice.randint(low, high)

    def chance(self, share: float) -> bool:
        return self.dice.randrange(1000) < 1000 * share

    def width(self) -> int:
        return int(self.pick(_WIDTHS))

    def divisor(self, *numbers: int) -> int:
        """A common divisor, often 1."""
        return int(self.pick([g for g in self.divisors if all(n % g == 0 for n in numbers)]))
