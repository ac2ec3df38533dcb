"""The way to a budget in several steps: how much is kept after each of them."""

from __future__ import annotations

from typing import Literal

Schedule = Literal["exponential", "linear"]


def share(kept: float, step: int, steps: int, schedule: Schedule) -> float:
    """What is kept after ``step`` of ``steps``, the last of which keeps the share ``kept``.

    Exponential: kept^(step/steps), each step keeps the same share of what the one before left.  Linear: each drops as
    much.

    References
    ----------
    Tanaka et al., Pruning neural networks without any data by iteratively conserving synaptic flow, NeurIPS 2020,
    algorithm 1 (exponential).

    Examples
    --------
    >>> share(0.25, 1, 2, "exponential"), share(0.25, 1, 2, "linear"), share(0.25, 2, 2, "linear")
    (0.5, 0.625, 0.25)
    """
    if schedule == "linear":
        return 1 - (1 - kept) * step / steps
    return float(kept ** (step / steps))
