"""Torch weights in a safetensors file, packed where they have a form, and out of it again.

The arrays of a packed tensor are entries of their own, and the file's metadata describes them
(``packing/description.py``); any other tensor is an entry as it is.  Tensors of several names are written once.  What
is read is checked, for a file may come from anywhere.  Start at :func:`written` and :func:`read`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from . import arrays
from .errors import ModelError
from .packing.description import KEY, Description, Packed, restored
from .packing.packing import SMALL_BYTES, Packing

Tensors = dict[str, torch.Tensor]
_HINT = "give a .safetensors file: what prunec.pack or result.save wrote, or any other"


@dataclass(frozen=True, eq=False)
class Written:
    """A file to be: its bytes, and how many tensors took which form (``dense``: left as they are)."""

    data: bytes
    forms: dict[str, int]


@dataclass(frozen=True, eq=False)
class Read:
    """A file that was read: all tensors, dense, and those that were packed as they were."""

    tensors: Tensors
    packed: Mapping[str, Packed]

    def packing(self) -> Packing | None:
        """How these tensors may be packed again; None where none was."""
        return Packing.of(p.form for p in self.packed.values()) if self.packed else None


def written(tensors: Mapping[str, torch.Tensor], packing: Packing | None) -> Written:
    """The file of ``tensors``, each in its smallest exact form; as they are where there is no ``packing``."""
    first: dict[tuple[object, ...], str] = {}
    same = {name: first.setdefault(_place(name, tensor), name) for name, tensor in tensors.items()}
    tied = {name: other for name, other in same.items() if name != other}
    inner = {parent for name in tensors for parent in _parents(name)}  # their entries would look like tensors
    packed: dict[str, Packed] = {}
    entries: Tensors = {}
    count: Counter[str] = Counter()
    for name, tensor in tensors.items():
        if name in tied:
            continue
        arrays.require_values(tensor)
        found = None if packing is None or name in inner else smallest(tensor, packing)
        if found is None:
            entries[name] = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
            count["dense"] += tensor.nbytes >= SMALL_BYTES
            continue
        packed[name] = found
        entries |= {k: arrays.as_torch(a).clone() for k, a in found.entries(name).items()}
        count[found.form.name] += 1
    metadata = {KEY: Description(packed, tied).text()} if packed or tied else None
    return Written(save(entries, metadata), dict(count))


def _place(name: str, tensor: torch.Tensor) -> tuple[object, ...]:
    """What two names of one tensor share; an empty tensor has no place in memory."""
    if tensor.is_meta or not tensor.numel():
        return (name,)
    return tensor.data_ptr(), tensor.device, tensor.dtype, tuple(tensor.shape), tensor.stride()


def smallest(tensor: torch.Tensor, packing: Packing) -> Packed | None:
    """The smallest form that gives ``tensor`` back; None where it stays as it is."""
    wide = tensor.is_floating_point() and tensor.itemsize > 1
    return packing.smallest(arrays.native(tensor)) if wide else None


def _parents(name: str) -> Iterator[str]:
    """``a`` and ``a.b`` of ``a.b.c``."""
    parts = name.split(".")
    return (".".join(parts[:k]) for k in range(1, len(parts)))


def read(path: Path) -> Read:
    """The tensors of a safetensors file.

    Raises
    ------
    ModelError
        There is no such file, it is none of these, or what it says of packed tensors does not hold.
    """
    if not path.is_file():
        raise ModelError(f"reading {path}: there is no such file", hint=_HINT)
    try:
        with safe_open(path, "pt") as file:
            # copies: what is mapped is gone when somebody writes over the file
            entries: Tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
            text = (file.metadata() or {}).get(KEY)
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"reading {path}: it is no safetensors file: {error}", hint=_HINT) from error
    natural = {n: arrays.native(t) for n, t in entries.items() if t.is_floating_point() and t.itemsize > 1}
    octets = {n: arrays.native(t) for n, t in entries.items() if t.dtype == torch.uint8}
    found = restored(text, natural | octets, str(path))
    rest = _rest(entries, found, path)
    try:
        dense = {n: arrays.as_torch(p.dense()) for n, p in found.tensors.items()}
    except MemoryError:
        raise ModelError(
            f"reading {path}: its tensors take more memory than there is", hint="check where the file comes from"
        ) from None
    tensors = rest | dense
    return Read(tensors | {name: tensors[other] for name, other in found.tied.items()}, found.tensors)


def _rest(entries: Tensors, found: Description, path: Path) -> Tensors:
    """The entries that are tensors themselves, after a look whether names contradict each other."""
    used: dict[str, str] = {}
    problem = ""
    for name, packed in found.tensors.items():
        for entry in packed.entries(name):
            if used.setdefault(entry, name) != name:
                problem = f"the entry {entry!r} belongs to {used[entry]!r} and to {name!r}"
    rest = {name: tensor for name, tensor in entries.items() if name not in used}
    for name in rest:
        whole = next((n for n in (name, *_parents(name)) if n in found.tensors), None)
        if whole is not None:
            problem = f"the entry {name!r} is none of the packed weight {whole!r}"
    names = rest.keys() | found.tensors.keys()
    for name, other in found.tied.items():
        if name in names or not isinstance(other, str) or other not in names:
            problem = f"{name!r} is said to be {str(other)[:80]!r}, which is not there, or it stands there itself"
    if problem:
        raise ModelError(
            f"reading {path}: {problem}", hint="write the file again (prunec.pack, or a compile with pack)"
        )
    return rest
