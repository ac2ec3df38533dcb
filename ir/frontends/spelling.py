"""How a dialect spells an op: which arguments are operands, how attributes are read and written back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import Declined
from ..graph import Node, Value

Arguments = dict[str, Any]
Read = Callable[[Arguments], dict[str, Any]]
Write = Callable[[Node, Mapping[str, Any]], tuple[str, Arguments]]


@dataclass(frozen=True)
class Spelling:
    """One kind of node in a dialect.

    ``operands`` are argument names in the order of the op's declaration (None: every tensor argument as it comes).
    ``read`` turns arguments into the op's attributes; it raises :class:`Declined` for a form that is not understood.
    ``write`` gives kind and arguments back once attributes changed (None: no attribute ever changes).  ``to_onnx`` is
    for torch ops that torch's exporter does not know: a function of the same arguments that calls ops of onnxscript.
    """

    op: str
    operands: tuple[str, ...] | None = None
    read: Read | None = None
    write: Write | None = None
    to_onnx: Callable[..., Any] | None = None


def renamed(**names: str) -> Write:
    """A writer that puts attributes back under the argument names given (attribute=argument)."""

    def write(node: Node, changed: Mapping[str, Any]) -> tuple[str, Arguments]:
        call = dict(node.call)
        for attr, value in changed.items():
            call[names[attr]] = value
        return node.kind, call

    return write


def unchanged(node: Node, changed: Mapping[str, Any]) -> tuple[str, Arguments]:
    """A kind that names no sizes stays as it is."""
    return node.kind, node.call


def rank(value: Any) -> int:
    """The rank of an operand; declines when it is not known."""
    if not isinstance(value, Value) or value.shape is None:
        raise Declined("an operand of unknown rank")
    return len(value.shape)


def size(value: Any, axis: int) -> int:
    """The example size of one axis of an operand."""
    if not isinstance(value, Value) or value.shape is None or not -len(value.shape) <= axis < len(value.shape):
        raise Declined("an operand of unknown shape, or of too few axes")
    return value.shape[axis]


def whole(value: Any) -> int:
    """A plain integer; declines when the number depends on the input."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise Declined(f"{value!r} is not a fixed number")
    return value


def axis_of(dim: Any, value: Any) -> int:
    """``dim`` counted from the front."""
    r, d = rank(value), whole(dim)
    if not -max(r, 1) <= d < max(r, 1):
        raise Declined(f"axis {d} of {r}")
    return d % r if r else 0


def axes_of(dims: Any, value: Any) -> tuple[int, ...]:
    """``dims`` counted from the front, in order; every axis when None or empty."""
    if dims is None or (isinstance(dims, (list, tuple)) and not dims):
        return tuple(range(rank(value)))
    listed = dims if isinstance(dims, (list, tuple)) else [dims]
    return tuple(sorted(axis_of(d, value) for d in listed))
