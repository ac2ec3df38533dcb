"""What a packed form is: arrays, the tensor that they stand for, and the ONNX nodes that make it of them.

A form knows numpy alone.  It writes its nodes through a :class:`Writer`, which the emitter provides: they read nothing
but constants, so that a runtime computes them once, when it loads the model.  Files of arrays by name hold its arrays
and its facts, from which it is made again (``description.py``).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

PREFIX = "prunec_packed/"
"""What the names of a form's nodes begin with: so they are found again when a file is read."""


class Contradiction(Exception):
    """What a file holds of a form is no such form: says what was expected and what was found."""


@dataclass(frozen=True)
class Held:
    """What a file holds of a form, to be checked: ``facts`` (JSON) and ``arrays``, by their names in the form."""

    facts: Mapping[str, Any]
    arrays: Mapping[str, Array]

    def numbers(self, name: str) -> tuple[int, ...]:
        """The fact ``name``: numbers that count something."""
        found = self.facts.get(name)
        if not isinstance(found, list) or not all(type(n) is int and 0 <= n < 1 << 48 for n in found):
            raise Contradiction(f"{name} is {str(found)[:80]!r}, not a list of counts")
        return tuple(found)

    def floats(self, name: str, shape: tuple[int | None, ...] | None = None) -> Array:
        """The array ``name``, of floating point; None in ``shape`` is any size."""
        return self._checked(name, "float", shape)

    def bytes(self, name: str, count: int) -> NDArray[np.uint8]:
        """The array ``name``, of ``count`` bytes."""
        return self._checked(name, "uint8", (count,))

    def inside(self, name: str) -> Held:
        """What is held of the form that another one holds as ``name``."""
        facts = self.facts.get(name)
        if not isinstance(facts, dict):
            raise Contradiction(f"{name} is not described")
        within = {k.removeprefix(name)[1:]: a for k, a in self.arrays.items() if k == name or k.startswith(f"{name}.")}
        return Held(facts, within)

    def _checked(self, name: str, dtype: str, shape: tuple[int | None, ...] | None) -> Array:
        where = repr(name) if name else "the array"
        if name not in self.arrays:
            raise Contradiction(f"{where} is missing")
        found = self.arrays[name]
        if dtype not in found.dtype.name:
            raise Contradiction(f"{where} is of {found.dtype.name}, not of {dtype}")
        fits = shape is None or len(shape) == found.ndim
        if not fits or any(n not in (None, m) for n, m in zip(shape or (), found.shape, strict=False)):
            wanted = ", ".join("any" if n is None else str(n) for n in shape or ())
            raise Contradiction(f"{where} has shape {list(found.shape)}, not [{wanted}]")
        return found


class Writer(Protocol):
    """Where a form writes constants and nodes.  Names are those of values."""

    def constant(self, name: str, data: Array) -> str:
        """A constant called ``name`` after the tensor's own."""
        ...

    def has_integer(self, width: int) -> bool:
        """Whether the opset has an unsigned integer of ``width`` bits that is less than a byte."""
        ...

    def small_integers(self, name: str, data: NDArray[np.uint8], width: int, count: int) -> str:
        """A constant (count,) of such integers, ``data`` being its bytes."""
        ...

    def inside(self, name: str) -> Writer:
        """The same place, where constants are called after ``name`` too."""
        ...

    def node(self, op: str, inputs: Sequence[str], **attributes: Any) -> str:
        """A node of the default domain with one result; a dtype as an attribute is given by its numpy name."""
        ...


class Form(ABC):
    """A tensor in another form.  Subclasses are dataclasses of arrays and numbers.

    Attributes
    ----------
    shape, dtype
        Of the tensor.
    """

    name: ClassVar[str]
    shape: Any
    dtype: Any

    @abstractmethod
    def arrays(self) -> Mapping[str, Array]:
        """What takes room, by name; the empty name for an array that is all there is."""

    def facts(self) -> dict[str, Any]:
        """What is needed beside the arrays to make the form again, as JSON; its name stands in it."""
        return {"form": self.name, "shape": list(self.shape)}

    @classmethod
    @abstractmethod
    def restored(cls, held: Held) -> Self:
        """The form of which a file holds this; raises :class:`Contradiction` where it is none."""

    @abstractmethod
    def dense(self) -> Array:
        """The tensor, of ``shape`` and ``dtype``."""

    @abstractmethod
    def write(self, out: Writer) -> str:
        """Write the constants and nodes that make the tensor; the name of the result."""

    @property
    def size_bytes(self) -> int:
        """Bytes of the arrays."""
        return sum(a.nbytes for a in self.arrays().values())


@dataclass(frozen=True, eq=False)
class Plain(Form):
    """A tensor as it is."""

    data: Array

    name: ClassVar[str] = "dense"

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.data.dtype

    def arrays(self) -> Mapping[str, Array]:
        return {"": self.data}

    @classmethod
    def restored(cls, held: Held) -> Plain:
        return cls(held.floats("", held.numbers("shape")))

    def dense(self) -> Array:
        return self.data

    def write(self, out: Writer) -> str:
        return out.constant("", self.data)
