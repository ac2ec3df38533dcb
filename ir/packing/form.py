"""What a packed form is: arrays, the tensor that they stand for, and the ONNX nodes that make it of them.

A form knows numpy alone.  It writes its nodes through a :class:`Writer`, which the emitter provides: they read nothing
but constants, so that a runtime computes them once, when it loads the model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

PREFIX = "prunec_packed/"
"""What the names of a form's nodes begin with: so they are found again when a file is read."""


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
        """What takes room."""

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
        return {"data": self.data}

    def dense(self) -> Array:
        return self.data

    def write(self, out: Writer) -> str:
        return out.constant("data", self.data)
