"""The conditions that a controller goes by: what requests wait for, and what the machine has left.

Memory, battery and frequency are psutil's; what a machine does not tell is None, and no reason for anything.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import psutil


@dataclass(frozen=True)
class Conditions:
    """What is so at one moment.

    Attributes
    ----------
    p95_ms
        95th percentile of what requests took since the last switch, waiting included; None before there were enough.
    queue
        Requests that wait.
    rate
        Requests that came in a second, lately.
    free_bytes
        Memory that could be used without swapping.
    battery
        What is left of it, in [0, 1]; None where there is none, or the machine is plugged in.
    frequency
        Of the processor, to its highest, in (0, 1]; None where it is not told.
    signal
        What the user asked for: ``fast``, ``accurate``, the name of a variant, or None.
    """

    p95_ms: float | None = None
    queue: int = 0
    rate: float = 0.0
    free_bytes: int | None = None
    battery: float | None = None
    frequency: float | None = None
    signal: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """JSON-serialisable."""
        return asdict(self)


def of_machine() -> dict[str, Any]:
    """What the machine tells: ``free_bytes``, ``battery`` and ``frequency`` of :class:`Conditions`."""
    return {"free_bytes": psutil.virtual_memory().available, "battery": _battery(), "frequency": _frequency()}


def _battery() -> float | None:
    found = psutil.sensors_battery() if hasattr(psutil, "sensors_battery") else None
    return None if found is None or found.power_plugged else found.percent / 100


def _frequency() -> float | None:
    try:
        found = psutil.cpu_freq()
    except (OSError, NotImplementedError):
        return None  # not told in this container
    return min(found.current / found.max, 1.0) if found and found.max and found.current else None
