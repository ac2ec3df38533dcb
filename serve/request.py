"""A request for inference: from the bytes of its body to arrays by input name, checked against what the model declares.

The Open Inference Protocol's JSON, where an input has its elements as ``data``; or its binary tensor extension, where
an input says how many bytes (``binary_data_size``) it has behind the JSON, in the order of the inputs.  Fields that the
protocol does not know are left alone, as it demands; parameters that would change the answer, and are not understood,
are refused.  Start at :func:`read_request`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..ir.words import did_you_mean
from ..runtime.session import Array, Input
from .datatypes import BF16, BYTES, datatype
from .limits import Limits
from .refusal import Refused, bad, shown
from .shapes import Shapes, elements
from .strict_json import parse
from .tensors import from_binary, from_json, held_bytes

VARIANT, BINARY_SIZE, BINARY, ALL_BINARY = "variant", "binary_data_size", "binary_data", "binary_data_output"
_ELSEWHERE = ("shared_memory_region", "shared_memory_byte_size", "shared_memory_offset")
_NOT_TAKEN = ("classification", "sequence_id", "sequence_start", "sequence_end", *_ELSEWHERE)


@dataclass(frozen=True)
class Declared:
    """What a model declares: its inputs and outputs."""

    inputs: tuple[Input, ...]
    outputs: tuple[Input, ...]


@dataclass(frozen=True)
class AskedOutput:
    """An output that a client asks for, as bytes behind the JSON of the answer or in it."""

    name: str
    binary: bool


@dataclass(frozen=True)
class InferenceRequest:
    """A request that fits its model.

    Attributes
    ----------
    id
        The client's own, which the answer repeats.
    variant
        The one that is asked for; None: whichever is active.
    inputs
        By name.  Binary ones lie in the body, without a copy.
    outputs
        In the order of the answer.
    """

    id: str | None
    variant: str | None
    inputs: Mapping[str, Array]
    outputs: tuple[AskedOutput, ...]

    @property
    def nbytes(self) -> int:
        """Of the inputs."""
        return sum(map(held_bytes, self.inputs.values()))


def read_request(head: memoryview, tensors: memoryview, declared: Declared, limits: Limits) -> InferenceRequest:
    """The request that ``head``, its JSON, and ``tensors``, the bytes behind it, are.

    Raises
    ------
    Refused
        400: it is not JSON, or its inputs or outputs are not those of the model.
    """
    if not len(head):
        raise bad("the request has no JSON", 'send {"inputs": [{"name": …, "shape": …, "datatype": …, "data": …}]}')
    document = parse(head)
    parameters = _parameters(document, "the request")
    return InferenceRequest(
        id=_text(document, "id"),
        variant=_text(parameters, VARIANT),
        inputs=_inputs(_listed(document, "inputs"), tensors, declared.inputs, limits),
        outputs=_outputs(_listed(document, "outputs"), _flag(parameters, ALL_BINARY, False), declared.outputs),
    )


def _inputs(
    items: Sequence[Mapping[str, Any]], tensors: memoryview, declared: Sequence[Input], limits: Limits
) -> dict[str, Array]:
    known = {i.name: i for i in declared}
    named = _named(items, known, "input")
    for name in known:
        if name not in named:
            raise bad(f"input {name!r} is missing", f"the model has {_names(known)}")
    shapes, rest = Shapes(limits), _Bytes(tensors)
    found = {name: _tensor(item, known[name], shapes, rest) for name, item in named.items()}
    rest.check_end()
    return found


def _tensor(item: Mapping[str, Any], declared: Input, shapes: Shapes, rest: _Bytes) -> Array:
    _check_datatype(item, declared)
    shape = shapes.checked(declared, item.get("shape"))
    if datatype(declared.dtype) == BYTES and elements(shape) > shapes.limits.strings:
        raise bad(f"input {declared.name!r} has {elements(shape):,} strings, the most are {shapes.limits.strings:,}")
    size = _parameters(item, f"input {declared.name!r}").get(BINARY_SIZE)
    if (size is None) == (item.get("data") is None):
        both = "both data and" if size is not None else "neither data nor"
        raise bad(f"input {declared.name!r} has {both} {BINARY_SIZE}", "give one of them")
    return from_json(declared, shape, item["data"]) if size is None else rest.tensor(declared, shape, size)


class _Bytes:
    """The bytes behind the JSON, which inputs take in their order."""

    def __init__(self, tensors: memoryview) -> None:
        self._rest = tensors

    def tensor(self, declared: Input, shape: tuple[int, ...], size: Any) -> Array:
        if type(size) is not int or size < 0:
            raise bad(f"input {declared.name!r} has {BINARY_SIZE} {shown(size)}", "give a number of bytes")
        if size > len(self._rest):
            raise bad(
                f"input {declared.name!r} has {shown(size)} bytes by its {BINARY_SIZE}, {len(self._rest):,} are left"
            )
        own, self._rest = self._rest[:size], self._rest[size:]
        return from_binary(declared, shape, own)

    def check_end(self) -> None:
        if len(self._rest):
            raise bad(
                f"{len(self._rest):,} bytes of the body belong to no input",
                f"the sizes {BINARY_SIZE} add up to all of it",
            )


def _check_datatype(item: Mapping[str, Any], declared: Input) -> None:
    found, kind = item.get("datatype"), datatype(declared.dtype)
    if found != kind:
        raise bad(f"input {declared.name!r} has the datatype {shown(found)}, and the model declares {kind}")


def _outputs(
    items: Sequence[Mapping[str, Any]], all_binary: bool, declared: Sequence[Input]
) -> tuple[AskedOutput, ...]:
    known = {o.name: o for o in declared}
    named = _named(items, known, "output") or {name: {} for name in known}
    found = tuple(_asked(name, item, all_binary) for name, item in named.items())
    for asked in found:
        if not asked.binary and datatype(known[asked.name].dtype) == BF16:
            raise bad(f"output {asked.name!r} is BF16, which has no form in JSON", f"ask for it with {BINARY}: true")
    return found


def _asked(name: str, item: Mapping[str, Any], all_binary: bool) -> AskedOutput:
    return AskedOutput(name, _flag(_parameters(item, f"output {name!r}"), BINARY, all_binary))


def _named(items: Sequence[Mapping[str, Any]], known: Mapping[str, Input], what: str) -> dict[str, Mapping[str, Any]]:
    """The items by their name, each of them known and there once."""
    found: dict[str, Mapping[str, Any]] = {}
    for item in items:
        name = item.get("name")
        if not isinstance(name, str):
            raise bad(f"an {what} has the name {shown(name)}", f"the model has {_names(known)}")
        if name not in known:
            hint = did_you_mean(name, known, f"the model has {_names(known)}") if len(name) < 100 else ""
            raise bad(f"the model has no {what} {shown(name)}", hint)
        if name in found:
            raise bad(f"{what} {name!r} stands twice", "give it once")
        found[name] = item
    return found


def _names(known: Mapping[str, Input]) -> str:
    return ", ".join(map(repr, known))


def _listed(document: Mapping[str, Any], field: str) -> list[Mapping[str, Any]]:
    found = document.get(field)
    if found is None:
        return []
    if not isinstance(found, list):
        raise bad(f"{field} is {shown(found)}", "give a list of objects")
    return list(_objects(found, field))


def _objects(found: list[Any], field: str) -> Iterator[Mapping[str, Any]]:
    for item in found:
        if not isinstance(item, dict):
            raise bad(f"{field} holds {shown(item)}", "give a list of objects")
        yield item


def _parameters(item: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    found = item.get("parameters")
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise bad(f"the parameters of {where} are {shown(found)}", "give an object")
    for name in _NOT_TAKEN:
        if found.get(name):
            raise Refused(400, f"{where} has the parameter {name}, which this server does not support")
    return found


def _flag(parameters: Mapping[str, Any], name: str, otherwise: bool) -> bool:
    found = parameters.get(name, otherwise)
    if type(found) is not bool:
        raise bad(f"{name} is {shown(found)}", "give true or false")
    return found


def _text(item: Mapping[str, Any], name: str) -> str | None:
    found = item.get(name)
    if found is not None and not isinstance(found, str):
        raise bad(f"{name} is {shown(found)}", "give a string")
    return found
