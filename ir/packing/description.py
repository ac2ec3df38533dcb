"""Packed tensors in files that hold arrays by name: what the file says of them beside their arrays, and how it is read.

The description stands in the metadata of the file (safetensors, ONNX) under :data:`KEY`, as JSON::

    {"version": 1,
     "tensors": {"conv.weight": {"form": "nm", "shape": [64, 32, 3, 3], "pattern": [1, 4, 4], "transposed": false,
                                 "values": {"form": "dense", "shape": [16, 3, 3, 8, 4, 1]},
                                 "entries": ["places", "values"]}},
     "tied": {"decoder.weight": "encoder.weight"}}

The arrays of ``conv.weight`` are then called ``conv.weight.places`` and ``conv.weight.values``.  ``shape`` is that of
the form; where it is ``transposed``, the tensor is the transposed one.  ``tied`` are further names of tensors.  A file
may come from anywhere: all that it says is checked before a tensor is made of it.  Start at :func:`restored`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import ModelError
from .bitmask import Bitmask
from .form import Array, Contradiction, Form, Held
from .nm import Sparse
from .palette import Palette

KEY = "prunec.packed"
VERSION = 1
_FORMS: dict[str, type[Form]] = {form.name: form for form in (Bitmask, Palette, Sparse)}
_AGAIN = "write the file again from the dense weights (prunec.pack, or a compile with pack)"


@dataclass(frozen=True, eq=False)
class Packed:
    """A tensor in a form, or the transposed of what is in the form."""

    form: Form
    transposed: bool = False

    def dense(self) -> Array:
        """The tensor."""
        return self.form.dense().T if self.transposed else self.form.dense()

    def entries(self, name: str) -> dict[str, Array]:
        """Its arrays, called after the tensor's ``name``."""
        return {f"{name}.{k}": array for k, array in self.form.arrays().items()}


@dataclass(frozen=True, eq=False)
class Description:
    """The packed tensors of a file by name, and further names of its tensors."""

    tensors: Mapping[str, Packed] = field(default_factory=dict)
    tied: Mapping[str, str] = field(default_factory=dict)

    def text(self) -> str:
        """As it stands in the file."""
        tensors = {
            name: {**p.form.facts(), "transposed": p.transposed, "entries": sorted(p.form.arrays())}
            for name, p in self.tensors.items()
        }
        return json.dumps({"version": VERSION, "tensors": tensors, "tied": dict(self.tied)}, separators=(",", ":"))


def restored(
    text: str | None, arrays: Mapping[str, Array], where: str, only: Collection[str] | None = None
) -> Description:
    """What a file says, its ``arrays`` by name; ``where`` is for messages.  No text: nothing is packed.

    ``only`` are the tensors to be restored, None for all.

    Raises
    ------
    ModelError
        The text is no description, of another version, or the arrays contradict it.
    """
    if text is None:
        return Description()
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"reading {where}: {KEY} in its metadata is no JSON: {error}", hint=_AGAIN) from None
    if not isinstance(found, dict) or not all(isinstance(found.get(k), dict) for k in ("tensors", "tied")):
        raise ModelError(f"reading {where}: {KEY} in its metadata does not describe tensors", hint=_AGAIN)
    if found.get("version") != VERSION:
        raise ModelError(
            f"reading {where}: packed weights of version {str(found.get('version'))[:20]}, this prunec reads {VERSION}",
            hint="install the version of prunec that wrote the file, or write it again with this one",
        )
    told = {name: facts for name, facts in found["tensors"].items() if only is None or name in only}
    return Description({n: _one(n, facts, arrays, where) for n, facts in told.items()}, found["tied"])


def _one(name: str, facts: Any, arrays: Mapping[str, Array], where: str) -> Packed:
    try:
        return _restored(name, facts, arrays)
    except Contradiction as error:
        raise ModelError(f"reading {where}: packed weight {name!r}: {error}", hint=_AGAIN, parameter=name) from None


def _restored(name: str, facts: Any, arrays: Mapping[str, Array]) -> Packed:
    if not isinstance(facts, dict):
        raise Contradiction("it is not described")
    if (form := str(facts.get("form"))) not in _FORMS:
        raise Contradiction(f"it is in the form {form[:80]!r}, and there are {', '.join(_FORMS)}")
    entries, transposed = facts.get("entries"), facts.get("transposed")
    if not isinstance(entries, list) or not all(isinstance(k, str) for k in entries) or type(transposed) is not bool:
        raise Contradiction("its entries, or whether it is transposed, are not said")
    if missing := [k for k in entries if f"{name}.{k}" not in arrays]:
        raise Contradiction(f"the entry {missing[0]!r} is missing")
    made = _FORMS[form].restored(Held(facts, {k: arrays[f"{name}.{k}"] for k in entries}))
    if sorted(made.arrays()) != sorted(entries):
        raise Contradiction(f"it has the entries {sorted(entries)}, and its form {sorted(made.arrays())}")
    if transposed and len(made.shape) != 2:
        raise Contradiction(f"a tensor of shape {list(made.shape)} is said to be transposed")
    return Packed(made, transposed)
