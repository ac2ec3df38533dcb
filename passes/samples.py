"""The sample inputs that a caller hands in, as a graph takes them, and the values that they make flow through it.

Activations of random inputs say little about a network.  Where they count, the caller gives inputs of its own:
``prunec.compile(samples=…)``, an iterable of batches.  Start at :func:`observed`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..ir import arrays
from ..ir.dialects import runtime
from ..ir.errors import ModelError, UsageError, first_line
from ..ir.graph import Graph, Value
from .base import State
from .difference import run

_FORM = (
    "prunec.compile(…, samples=[…]), or analyze, takes batches, each in the form of example_inputs: a tuple or dict of "
    "tensors"
)
_HELD = 1 << 26
"""Elements of observed values that are held at a time."""


def batches(graph: Graph, state: State, what: str) -> Iterator[list[Any]]:
    """The caller's samples, one batch after the other, as flat inputs of ``graph`` in its dtypes.

    ``what`` needs them, for messages.

    Raises
    ------
    UsageError
        There are none, or one does not fit the model.
    """
    given = state.context.get("samples")
    if given is None:
        raise UsageError(f"{what} needs sample inputs", hint=_FORM)
    if not isinstance(given, Iterable) or isinstance(given, (Mapping, str)) or hasattr(given, "dtype"):
        raise UsageError(f"samples cannot be a {type(given).__name__}", hint=_FORM)
    alike: list[Any] = runtime(graph).sample_inputs(graph, state.seed)
    count = 0
    for count, each in enumerate(_read(given), 1):
        state.tell("score", f"sample batch {count}")
        yield _fitted(graph, each, alike, f"sample batch {count}")
    if not count:
        raise UsageError(f"{what} needs sample inputs, and samples is empty", hint=f"{_FORM}; an iterator ends once")


def _read(given: Iterable[Any]) -> Iterator[Any]:
    """What the caller's iterable gives; what goes wrong in there is the caller's."""
    waiting: Iterator[Any] | None = None
    for count in itertools.count(1):
        try:
            waiting = iter(given) if waiting is None else waiting
            each = next(waiting)
        except StopIteration:
            return
        except Exception as error:
            raise UsageError(
                f"sample batch {count} could not be read: {type(error).__name__}: {first_line(error)}",
                hint="check the iterator that was given as samples",
            ) from error
        yield each


def _fitted(graph: Graph, given: Any, alike: Sequence[Any], where: str) -> list[Any]:
    found = runtime(graph).flat_inputs(graph, given)
    if len(found) != len(graph.inputs):
        labels = "; leave labels out: samples=((x,) for x, label in loader)" if len(found) > len(graph.inputs) else ""
        raise UsageError(f"{where} has {len(found)} inputs, and the model {len(graph.inputs)}", hint=_FORM + labels)
    return [_input(v, x, like, where) for v, x, like in zip(graph.inputs, found, alike, strict=True)]


def _input(value: Value, given: Any, like: Any, where: str) -> Any:
    """``given`` as ``value`` takes it: of the same sort and dtype as ``like``, sizes free where they are dynamic."""
    if not value.is_tensor:
        return given
    data = given if hasattr(given, "dtype") else np.asarray(given)
    shape, expected = tuple(data.shape), value.shape or ()
    free = [d in value.dynamic or n == size for d, (n, size) in enumerate(zip(shape, expected, strict=False))]
    if len(shape) != len(expected) or not all(free) or arrays.is_float(data) != arrays.is_float(like):
        sizes = [f"{n} (free)" if d in value.dynamic else str(n) for d, n in enumerate(expected)]
        raise UsageError(
            f"{where}: input {value.name!r} is {data.dtype} of shape {list(shape)}, and the model takes "
            f"{value.dtype} of shape [{', '.join(sizes)}]",
            hint="give samples of the example inputs' sizes, or export the model with a dynamic batch",
            input=value.name,
        )
    if 0 in shape:
        raise UsageError(f"{where}: input {value.name!r} of shape {list(shape)} is empty", hint=_FORM, input=value.name)
    numbers = arrays.to_numpy(data)
    if arrays.is_float(data) and np.isnan(numbers).any():
        raise UsageError(f"{where}: input {value.name!r} holds NaN", hint="check the samples", input=value.name)
    return arrays.like(numbers, like)


def observed(
    graph: Graph, values: Sequence[Value], state: State, what: str
) -> Iterator[tuple[Value, NDArray[np.float32]]]:
    """Each of ``values`` for each batch of the caller's samples: (what it is, its numbers).

    Few are held at a time: a graph runs several times on a batch where its values are large.

    Raises
    ------
    UsageError
        There are no samples, or one does not fit the model.
    ModelError
        The model does not run on them, or gives numbers that are not finite.
    """
    for k, inputs in enumerate(batches(graph, state, what), 1):
        for part in _parts(graph, values, inputs):
            seen = runtime(graph).observing(graph, part)
            made = seen.outputs[len(graph.outputs) :]
            try:
                found = run(seen, inputs)
            except RuntimeError as error:
                raise ModelError(
                    f"running the model on sample batch {k}: {first_line(error)}",
                    hint="give samples that the model accepts",
                ) from error
            for value, numbers in zip(made, found[len(found) - len(made) :], strict=True):
                if not np.isfinite(numbers).all():
                    raise ModelError(
                        f"running the model on sample batch {k}: {value.name!r} holds NaN or infinite values",
                        hint="check the model's weights and the samples",
                    )
                yield value, numbers.astype(np.float32)


def _parts(graph: Graph, values: Sequence[Value], inputs: Sequence[Any]) -> Iterator[list[Value]]:
    """``values`` in runs that are small enough to be held at a time."""
    examples = [
        math.prod(x.shape) / max(1, math.prod(v.shape or ())) for v, x in zip(graph.inputs, inputs) if v.is_tensor
    ]
    times, held = max(examples, default=1.0), 0.0
    part: list[Value] = []
    for value in values:
        size = times * math.prod(value.shape or ())
        if part and held + size > _HELD:
            yield part
            part, held = [], 0.0
        part.append(value)
        held += size
    if part:
        yield part
