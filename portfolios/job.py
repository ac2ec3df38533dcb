"""What is to be built: one source, densities, a method, and all that the outcome depends on.

A :class:`Job` is data alone: it goes to other processes and machines, which load the source themselves.  How many
processes there are is no part of it, for nothing of the outcome depends on that, as long as the user's functions keep
no state between calls.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from ..ir.errors import UsageError
from ..sources import InputShape

Of = Literal["channels", "elements"]
KEEP = 0.8
"""The share that stays from level to level, as published."""
_LEVELS = "--levels 6 (with --keep 0.8), or densities that fall: --levels 0.8,0.5,0.2"


@dataclass(frozen=True)
class Job:
    """A portfolio to build.

    Attributes
    ----------
    source
        As in every command: ``net.onnx``, ``torchvision:resnet18``, ``path/file.py:factory``, ….
    densities
        What each level keeps of the dense network, falling; see :func:`densities`.
    method
        A name in ``METHODS``; None: ``imp`` where there is a training function, else ``oneshot``.
    of
        Whether channels go, or single elements of weights (and the channels that become empty).
    rewind
        For ``imp``: the step of the dense training that survivors go back to; below 1, the share of its steps.
    train, evaluate
        ``FILE.py:function`` or ``package.module:function``; None: ``fit`` and ``evaluate`` beside the factory of the
        source, where they exist.
    inputs
        Shapes of the example inputs, for a source that brings none.
    threads
        Of torch, in each step.
    seed
        Before each step, of Python's, numpy's and torch's random numbers.
    target
        What the compiles are for.
    nested
        Each level's channels are the first of the dense network's.
    plugins
        What is loaded first, in each process.
    """

    source: str
    densities: tuple[float, ...]
    method: str | None = None
    of: Of = "channels"
    rewind: float = 0.1
    train: str | None = None
    evaluate: str | None = None
    inputs: tuple[InputShape, ...] = ()
    threads: int = 1
    seed: int = 0
    target: str = "ort-cpu"
    nested: bool = False
    plugins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_densities(self.densities)
        if self.of not in ("channels", "elements"):
            raise UsageError(f"building a portfolio: --of cannot be {self.of!r}", hint="channels, or elements")
        whole = float(self.rewind).is_integer() if math.isfinite(self.rewind) else False
        if not self.rewind >= 0 or not (self.rewind < 1 or whole):
            raise UsageError(
                f"building a portfolio: --rewind cannot be {self.rewind:g}",
                hint="a share of the dense training's steps below 1 (0.1), or a step (2000)",
            )
        if self.threads < 1:
            raise UsageError(f"building a portfolio: --threads cannot be {self.threads}", hint="1 or more")

    @property
    def levels(self) -> list[tuple[str, float]]:
        """The name and the density of each level after the dense network."""
        return [(f"level-{k}", density) for k, density in enumerate(self.densities, 1)]


def densities(text: str, keep: float = KEEP) -> tuple[float, ...]:
    """What ``--levels`` means: a number of levels, each ``keep`` of the one before, or the densities themselves.

    >>> densities("3", 0.5), densities("0.8,0.2")
    ((0.5, 0.25, 0.125), (0.8, 0.2))

    Raises
    ------
    UsageError
        It is neither.
    """
    if not 0 < keep < 1:
        raise UsageError(f"building a portfolio: --keep cannot be {keep:g}", hint="a number in (0, 1), such as 0.8")
    if re.fullmatch(r"\d+", text.strip()):
        found = tuple(keep**k for k in range(1, int(text) + 1))
    else:
        found = _listed(text)
    _check_densities(found)
    return found


def _listed(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(word) for word in text.split(","))
    except ValueError as error:
        raise UsageError(f"building a portfolio: --levels cannot be {text!r}", hint=_LEVELS) from error


def _check_densities(found: tuple[float, ...]) -> None:
    if not found:
        raise UsageError("building a portfolio: there is no level", hint=_LEVELS)
    if not all(0 < density < 1 for density in found):
        wrong = next(density for density in found if not 0 < density < 1)
        raise UsageError(f"building a portfolio: a density cannot be {wrong:g}", hint=f"in (0, 1); {_LEVELS}")
    if any(low >= high for high, low in pairwise(found)):
        raise UsageError(
            f"building a portfolio: densities {', '.join(f'{d:g}' for d in found)} do not fall", hint=_LEVELS
        )
