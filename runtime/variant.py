"""A variant: one artifact of a model among the several of a portfolio, as the manifest has it.

Its *stored* model is the one that was compiled, and runs wherever ONNX Runtime does.  Beside it there may be *prepared*
ones: what ONNX Runtime makes of it on one machine (constants folded, weights in blocks of channels), so that a session
there has nothing left to do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Stored:
    """A model in the folder: ``file`` with its ``sha256``; the ``tensors`` of the pack that it points to."""

    file: str
    sha256: str
    tensors: tuple[str, ...]


@dataclass(frozen=True)
class Prepared(Stored):
    """A model as ONNX Runtime optimises it on one machine, and what was measured there.

    Attributes
    ----------
    prepack
        Whether weights are packed again when it is loaded, which costs memory of its own: only where it is faster.
    latency_ms, p95_ms
        Of one run on one example: the median and the 95th percentile.
    memory_bytes
        Private memory of a session, its share of buffers included; mapped weights do not count.
    """

    prepack: bool = False
    latency_ms: float | None = None
    p95_ms: float | None = None
    memory_bytes: int | None = None


@dataclass(frozen=True)
class Variant:
    """One variant of a portfolio.

    Attributes
    ----------
    stored, prepared
        The model as it was compiled, and by machine as it is run.
    size_bytes
        The stored model with its tensors, if it stood alone.
    accuracy
        What the user's function said, more is better; None where nobody measured it.
    density
        Weights that are not zero, of those of the dense model; None where it is not known.
    params
        Numbers that the model holds.
    latency_ms, p95_ms, memory_bytes
        As :class:`Prepared` has them, on the machine that measured last; None: not measured.
    dominated_by
        A variant that is at least as accurate, fast and small in memory, and better in one of these.
    facts
        How it was made.
    """

    name: str
    stored: Stored
    size_bytes: int
    params: int
    accuracy: float | None = None
    density: float | None = None
    latency_ms: float | None = None
    p95_ms: float | None = None
    memory_bytes: int | None = None
    dominated_by: str | None = None
    prepared: Mapping[str, Prepared] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def files(self) -> tuple[Stored, ...]:
        """All its models."""
        return (self.stored, *self.prepared.values())

    def as_dict(self) -> dict[str, Any]:
        """JSON-serialisable; :meth:`from_dict` reads it back."""
        return {k: v for k, v in asdict(self).items() if k != "name"}

    @classmethod
    def from_dict(cls, name: str, found: Mapping[str, Any]) -> Variant:
        """A variant as :meth:`as_dict` wrote it; raises KeyError or TypeError where it is none."""
        prepared = {m: Prepared(**{**p, "tensors": tuple(p["tensors"])}) for m, p in found["prepared"].items()}
        stored = Stored(**{**found["stored"], "tensors": tuple(found["stored"]["tensors"])})
        return cls(name=name, **{**found, "stored": stored, "prepared": prepared})
