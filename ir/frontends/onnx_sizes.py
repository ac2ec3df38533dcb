"""Sizes for the axes that an ONNX model leaves open.

A model that is run needs numbers where it declares names.  Those that the example inputs give are taken; the others
get what is usual for their role (:data:`USUAL`), and where the model does not run on that, something else: a file may
hold a batch of one, want images of a certain height, or at least half a second of sound.

Start at :class:`Axes`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Literal

import onnx
from numpy.typing import NDArray

from ..errors import ModelError
from ..graph import Shape
from ..words import did_you_mean
from .onnx_tensors import numpy_name

Array = NDArray[Any]
Sizes = dict[str, Shape]

Role = Literal["batch", "space", "length", "second"]
USUAL: dict[Role, tuple[int, ...]] = {
    "batch": (2, 1),
    "space": (224, 32, 48, 64, 128, 320, 640),
    "length": (16, 128, 1024, 16384, 256, 512, 4096, 65536),
    "second": (16, 0, 1, 128, 1024),
}
"""Sizes to try, in this order: of the first axis; of height and width of a 4-D input; of any other axis; and of the
second axis of an input whose first is fixed, which may be a length or (0) the batch, as states have it."""

_STEPS: dict[Role, int] = {"batch": 1, "space": 32, "length": 8, "second": 8}
_TRIALS = 48


@dataclass(frozen=True)
class Declared:
    """An input as the model declares it; an axis of open size has a symbol."""

    name: str
    dtype: str
    axes: tuple[int | str, ...]


def declaration(value: onnx.ValueInfoProto, example: Array | None) -> Declared | None:
    """An input as it is declared; None for what is no tensor."""
    kind = value.type.tensor_type
    if not value.type.HasField("tensor_type"):
        return None
    if not kind.HasField("shape") and example is None:
        raise ModelError(f"input {value.name!r} declares no shape", hint="give example inputs", input=value.name)
    axes = [d.dim_value if d.dim_value > 0 else d.dim_param for d in kind.shape.dim]
    if not kind.HasField("shape") and example is not None:
        axes = [""] * example.ndim
    return Declared(value.name, numpy_name(kind.elem_type), tuple(a or f"{value.name}.{d}" for d, a in enumerate(axes)))


@dataclass
class Axes:
    """Sizes for the symbols of the inputs: an example, and a second one where the symbols differ."""

    inputs: list[Declared]
    given: Mapping[str, Array]
    example: dict[str, int] = field(default_factory=dict)
    other: dict[str, int] = field(default_factory=dict)
    roles: dict[str, Role] = field(default_factory=dict)
    batch: set[str] = field(default_factory=set)
    """Symbols that were found to be the batch, though they do not come first."""

    def __post_init__(self) -> None:
        """Every symbol gets its two sizes, and one that nobody chose its role."""
        self.leading = {x.axes[0] for x in self.inputs if x.axes}
        for x in self.inputs:
            for d, symbol in enumerate(x.axes):
                if isinstance(symbol, str) and symbol not in self.example:
                    self._choose(x, d, symbol)
        self.use({role: USUAL[role][0] for role in self.roles.values()})

    def _choose(self, x: Declared, d: int, symbol: str) -> None:
        role = self._role(x, d, symbol)
        wanted = self.given[x.name].shape[d] if x.name in self.given else None
        if wanted is None or (role == "batch" and wanted < 2):  # a batch of one looks like any axis of one
            self.roles[symbol] = role
            self.example[symbol] = self.other[symbol] = USUAL[role][0]
        else:
            self.example[symbol], self.other[symbol] = wanted, wanted + _STEPS[role]

    def _role(self, x: Declared, d: int, symbol: str) -> Role:
        if symbol in self.leading:
            return "batch"
        if len(x.axes) == 4 and d > 1:
            return "space"
        return "second" if d == 1 and isinstance(x.axes[0], int) else "length"

    def choices(self) -> Iterator[dict[Role, int]]:
        """Sizes for the roles, the usual ones first, then those that depart from them least."""
        roles = sorted(set(self.roles.values()))
        ranks = sorted(product(*(range(len(USUAL[role])) for role in roles)), key=sum)
        for rank in ranks[:_TRIALS]:
            yield {role: USUAL[role][k] for role, k in zip(roles, rank, strict=True)}

    def use(self, chosen: Mapping[Role, int]) -> None:
        """Give the symbols that nobody chose the sizes of their roles."""
        for symbol, role in self.roles.items():
            if size := chosen[role]:
                self.example[symbol], self.other[symbol] = size, size + _step(role, size)
        self.batch = {s for s, role in self.roles.items() if not chosen[role]}
        for symbol in self.batch:
            self.example[symbol], self.other[symbol] = self._batch()
        for symbol in [s for s in self.roles if not s.isidentifier()]:
            for sizes in (self.example, self.other):
                sizes[symbol] = total(symbol, sizes) or sizes[symbol]

    def _batch(self) -> tuple[int, int]:
        """The two sizes of the batch: those of the first input that has one."""
        found = [(self.example[s], self.other[s]) for x in self.inputs for s in x.axes[:1] if isinstance(s, str)]
        return found[0] if found else (USUAL["batch"][0], USUAL["batch"][0] + 1)

    def attempts(self) -> Iterator[dict[str, int]]:
        """Second sizes to try: all symbols differ, or those of the batch alone, or all but those."""
        batch = {s for s in self.example if s in self.leading or s in self.batch}
        if self.example:
            yield self.other
        if set(self.example) - batch:
            yield {s: self.other[s] if s in batch else n for s, n in self.example.items()}
        if batch and set(self.example) - batch:
            yield {s: n if s in batch else self.other[s] for s, n in self.example.items()}

    def sizes(self, symbols: Mapping[str, int] | None = None) -> Sizes:
        """The shapes of the inputs once symbols have sizes, those of the example by default."""
        known = self.example if symbols is None else symbols
        return {x.name: tuple(known[a] if isinstance(a, str) else a for a in x.axes) for x in self.inputs}


def listed(sizes: Sizes) -> str:
    """Sizes of inputs, in words."""
    return ", ".join(f"{name}: {list(shape)}" for name, shape in sizes.items())


def _step(role: Role, size: int) -> int:
    """How much more a second size is; none for a batch that only one example fits in."""
    if role == "batch" and size < 2:
        return 0
    return size // 2 if role == "length" else min(_STEPS[role], size)


def total(text: str, sizes: Mapping[str, int]) -> int | None:
    """The size that a sum of symbols and numbers says (``past + sequence``); None for any other text."""
    found = 0
    for sign, term in re.findall(r"([+-]?)\s*([^+-]+)", text):
        size = int(term) if term.strip().isdecimal() else sizes.get(term.strip())
        if size is None:
            return None
        found += -size if sign == "-" else size
    return found


def check_given(inputs: Sequence[Declared], given: Mapping[str, Array]) -> None:
    """Refuse example inputs that the model does not declare."""
    known = {x.name: x for x in inputs}
    for name, array in given.items():
        if name not in known:
            hint = did_you_mean(name, known, f"inputs: {', '.join(known)}")
            raise ModelError(f"the model has no input {name!r}", hint=hint, input=name)
        axes = known[name].axes
        if len(axes) != array.ndim or any(
            isinstance(a, int) and a != n for a, n in zip(axes, array.shape, strict=True)
        ):
            raise ModelError(
                f"example input {name!r} has shape {list(array.shape)}, the model declares {list(axes)}",
                hint="give an input of the declared shape",
                input=name,
            )
