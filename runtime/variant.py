"""A variant: one artifact of a model among the several of a portfolio, as the manifest has it.

Its *stored* model is the one that was compiled, and runs wherever ONNX Runtime does.  Beside it there may be *prepared*
ones: what ONNX Runtime makes of it on one machine (constants folded, weights in blocks of channels), so that a session
there has nothing left to do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from .blocked import Blocks


@dataclass(frozen=True)
class Stored:
    """A model in the folder: ``file`` with its ``sha256``; the ``tensors`` of the pack that it points to.

    ``blocks`` are the weights that it reads from blocks of channels, by name (``blocked.py``).
    """

    file: str
    sha256: str
    tensors: tuple[str, ...]
    blocks: Mapping[str, Blocks] = field(default_factory=dict, kw_only=True)

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Self:
        """As :meth:`Variant.as_dict` wrote it."""
        blocks = {name: Blocks(**{**b, "shape": tuple(b["shape"])}) for name, b in found["blocks"].items()}
        return cls(**{**found, "tensors": tuple(found["tensors"]), "blocks": blocks})


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

    def here(self, machine: str) -> Prepared | Variant:
        """Where what was measured on ``machine`` stands; where nothing was, what was measured last anywhere."""
        own = self.prepared.get(machine)
        return self if own is None or own.latency_ms is None else own

    @property
    def worth(self) -> tuple[float, float]:
        """The more accurate is the better one, of those alike the faster."""
        return (self.accuracy or 0.0, -(self.latency_ms or 0.0))

    @property
    def files(self) -> tuple[Stored, ...]:
        """All its models."""
        return (self.stored, *self.prepared.values())

    def as_dict(self) -> dict[str, Any]:
        """JSON-serialisable; :meth:`from_dict` reads it back."""
        return {k: v for k, v in asdict(self).items() if k != "name"}

    @classmethod
    def from_dict(cls, name: str, found: Mapping[str, Any]) -> Variant:
        """A variant as :meth:`as_dict` wrote it; raises KeyError, TypeError or ValueError where it is none."""
        prepared = {m: Prepared.from_dict(p) for m, p in found["prepared"].items()}
        stored = Stored.from_dict(found["stored"])
        for held in (found, *found["prepared"].values()):
            _check_numbers(held)
        return cls(name=name, **{**found, "stored": stored, "prepared": prepared})


def _check_numbers(found: Mapping[str, Any]) -> None:
    """Raise ValueError for a figure that is none."""
    for name in ("accuracy", "density", "latency_ms", "p95_ms", "memory_bytes", "size_bytes", "params"):
        value = found.get(name)
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e18
        if value is not None and not (number and (value >= 0 or name == "accuracy")):
            raise ValueError(f"{name} cannot be {value!r}")
