"""Random graphs in batches: hypothesis throws the dice of a batch, and brings what fails down to a small graph."""

from __future__ import annotations

import random
from collections.abc import Callable

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from .tally import TALLY

SIZE = 20
"""Graphs in one batch of one frontend."""


def seeds(graphs: int, first: int) -> range:
    """A seed for each batch, so that both frontends together draw ``graphs``."""
    return range(first, first + max(1, graphs // (2 * SIZE)))


def throw(batch: int, check: Callable[[random.Random], None], size: int = SIZE) -> None:
    """Run ``check`` with the dice of a batch, for ``size`` graphs."""
    thrown = given(st.randoms(use_true_random=False))(check)
    calm = settings(
        max_examples=size,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    with TALLY.finding(f"batch {batch} of {check.__name__}"):
        seed(batch)(calm(thrown))()
