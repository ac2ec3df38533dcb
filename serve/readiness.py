"""Whether a server takes requests: until it is told to stop."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Readiness:
    """Said by ``/v2/health/ready``; a signal handler may change it at any time."""

    ready: bool = True
