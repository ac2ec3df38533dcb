"""Portfolios on disk: variants come, go, and are checked; each change is made whole.

A folder has a manifest, one pack of tensors, and small ``.onnx`` files that point into it.  What a change needs is
written first, under names that nothing points to; then the manifest is replaced, and only then goes what nothing points
to any more.  So a process that ends anywhere leaves the portfolio as it was or as it was to be, and those who have it
open go on with the files that they have mapped.  Start at :func:`writing`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import onnx
from filelock import FileLock, Timeout

from ..files import check_folder, digest, file_digest, write_whole
from ..ir.emit.onnx_external import Emitted, as_emitted, large_tensors, referring
from ..ir.emit.onnx_stream import Pending
from ..ir.errors import EnvironmentProblem, ModelError, UsageError
from .blocked import through_blocks, without_blocks
from .manifest import MANIFEST, Manifest, checked_name
from .pack import AGAIN, Pack, Place, Writing, opened_plainly
from .prepare import check_same, machine, prepared
from .session import Input, Session
from .variant import Prepared, Stored, Variant

Model = onnx.ModelProto | Emitted
Signature = tuple[tuple[Input, ...], tuple[Input, ...]]
Kind = TypeVar("Kind", bound=Stored)

_LOCK = ".lock"
_LOCK_S = 60.0
_PACK = re.compile(r"pack-(\d{1,9})\.bin")
_MODEL = re.compile(r"[A-Za-z0-9][\w.-]*-([0-9a-f]{12})\.onnx")
_UNDERWAY = re.compile(rf"\.(?:{MANIFEST}|{_MODEL.pattern})\.[0-9a-f]{{12}}\.tmp")
"""Files on their way to a name of ours, left by a process that ended."""


@dataclass(frozen=True, eq=False)
class Entry:
    """A variant that is to be added: its model, and what is known of it."""

    name: str
    model: Model
    accuracy: float | None = None
    density: float | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


class Store:
    """A portfolio that is being changed; nothing of it is true before :meth:`commit`."""

    def __init__(self, folder: Path, manifest: Manifest | None, name: str) -> None:
        self.folder, self.manifest = folder, manifest
        self.name = manifest.name if manifest else checked_name(name)
        self._new: list[Path] = []
        self._example: Mapping[str, tuple[int, ...]] = manifest.example if manifest else {}

    def add(
        self,
        entries: Sequence[Entry],
        facts: Mapping[str, Any] | None = None,
        example: Sequence[tuple[int, ...]] = (),
    ) -> None:
        """Put variants in, prepared for this machine; one of a name that is there takes its place.

        ``example`` are the shapes of inputs, in their order, that a new portfolio is measured on.

        Raises
        ------
        UsageError
            A name that is none, or inputs and outputs that are not those of the others.
        ModelError, VerificationError
            ONNX Runtime cannot run the model, or prepare it.
        """
        signature = self._signature(entries)
        if self.manifest is None:
            self._example = dict(zip((i.name for i in signature[0]), example))
        pack = self.manifest.pack if self.manifest else Pack(self.folder / "pack-1.bin", {})
        variants = dict(self.manifest.variants) if self.manifest else {}
        with pack.writing() as tensors:
            for entry in entries:
                variants[entry.name] = self._variant(entry, tensors)
            pack = tensors.pack
        held = self.manifest or Manifest(self.name, *signature, pack, {}, self._example)
        largest_first = dict(sorted(variants.items(), key=lambda item: -item[1].params))
        self.manifest = replace(held, pack=pack, variants=largest_first, facts={**held.facts, **(facts or {})})

    def remove(self, name: str) -> None:
        """Take a variant out; raises :class:`UsageError` for one that is not there, and for the last one."""
        held = self._held()
        held[name]
        if len(held.variants) == 1:
            raise UsageError(f"{name} is the last variant of the portfolio", hint="remove the folder instead")
        rest = {n: replace(v, dominated_by=None) if v.dominated_by == name else v for n, v in held.variants.items()}
        del rest[name]
        self.manifest = replace(held, variants=rest)

    def prepare(self) -> None:
        """Prepare the variants that are not yet for this machine."""
        held, variants = self._held(), {}
        with held.pack.writing() as tensors:
            for name, variant in held.variants.items():
                if machine() not in variant.prepared:
                    made = self._prepared(whole(held, name), name, tensors)
                    variant = replace(variant, prepared={**variant.prepared, machine(): made})
                variants[name] = variant
            pack = tensors.pack
        self.manifest = replace(held, pack=pack, variants=variants)

    def revise(self, change: Callable[[Manifest], Manifest]) -> None:
        """Say something else about what is there: what was measured, which variants are dominated."""
        self.manifest = change(self._held())

    def repack(self, *, others: bool = True) -> None:
        """Write the pack anew, without what no variant points to, the largest tensors first.

        ``others``: keep models that were prepared for other machines.
        """
        held = self._held()
        if not others:
            own = {n: {m: p for m, p in v.prepared.items() if m == machine()} for n, v in held.variants.items()}
            held = replace(held, variants={n: replace(v, prepared=own[n]) for n, v in held.variants.items()})
        path = self.folder / f"pack-{generation(held.pack) + 1}.bin"
        path.unlink(missing_ok=True)  # of a process that ended in the middle
        self._new.append(path)
        with Pack(path, {}).writing() as tensors:
            for name in sorted(held.tensors, key=lambda n: (-held.pack.places[n].length, n)):
                tensors.add(held.pack.read(name))
            pack = tensors.pack
        moved = {
            n: replace(
                v,
                stored=self._moved(v.stored, held.pack, pack, n),
                prepared={m: self._moved(p, held.pack, pack, n) for m, p in v.prepared.items()},
            )
            for n, v in held.variants.items()
        }
        self.manifest = replace(held, pack=pack, variants=moved)

    def commit(self) -> Manifest:
        """Make it true, and take away what the portfolio no longer has; returns what it holds now."""
        held = self._held()
        held.write(self.folder)
        self._new.clear()
        sweep(self.folder, held)
        return held

    def discard(self) -> None:
        """Take away what was written and not committed; what a manifest on disk names was."""
        known = Manifest.read(self.folder) if (self.folder / MANIFEST).exists() else None
        for path in self._new:
            if known is None or path.name not in known.files:
                path.unlink(missing_ok=True)
        self._new.clear()
        if known is not None:
            known.pack.trim()

    def _held(self) -> Manifest:
        if self.manifest is None:
            raise ModelError(f"{self.folder} is no portfolio: it has no {MANIFEST}", hint="build one first")
        return self.manifest

    def _signature(self, entries: Sequence[Entry]) -> Signature:
        """The inputs and outputs that all variants have."""
        known = (self.manifest.inputs, self.manifest.outputs) if self.manifest else None
        for entry in entries:
            checked_name(entry.name)
            if entry.accuracy is not None and not math.isfinite(entry.accuracy):
                raise UsageError(
                    f"the accuracy of {entry.name} cannot be {entry.accuracy}", hint="give a number, or none"
                )
            session = Session(as_emitted(entry.model), name=entry.name)
            found = session.inputs, session.declared_outputs
            if known is not None and found != known:
                raise UsageError(
                    f"variant {entry.name} has {_shown(found)}; the portfolio has {_shown(known)}",
                    hint="variants of one portfolio take the same and give the same", name=entry.name,
                )  # fmt: skip
            known = found
        if known is None:
            raise UsageError("a portfolio needs a variant", hint="give one at least")
        return known

    def _variant(self, entry: Entry, tensors: Writing) -> Variant:
        model = as_emitted(entry.model)
        own = self._prepared(model, entry.name, tensors)
        return Variant(
            entry.name,
            stored=self._portable(model, entry.name, tensors),
            size_bytes=model.size_bytes(),
            params=sum(math.prod(t.dims) for t in model.graph.initializer),
            accuracy=entry.accuracy,
            density=entry.density,
            prepared={machine(): own},
            facts=entry.facts,
        )

    def _portable(self, model: Emitted, name: str, tensors: Writing) -> Stored:
        """The model as it was given, reading what the prepared one holds where that is the same."""
        if model.tensors:
            return self._stored(model, name, tensors)
        portable, blocks = through_blocks(model.proto, tensors.has)
        if blocks:
            check_same(model, portable, name, self._example)
        return replace(self._stored(portable, name, tensors), blocks=blocks)

    def _prepared(self, model: Model, name: str, tensors: Writing) -> Prepared:
        made = self._stored(prepared(model, name, self._example), f"{name}.{machine()[-10:]}", tensors)
        return Prepared(made.file, made.sha256, made.tensors)

    def _stored(self, model: Model, stem: str, tensors: Writing) -> Stored:
        """``model`` written, with its large tensors in the pack."""
        raws = large_tensors(model)
        names = [""] * len(raws)
        for k in sorted(range(len(raws)), key=lambda k: -len(raws[k])):  # what another begins with comes after it
            names[k] = tensors.add(_bytes(raws[k]))
        offsets = iter([tensors.place(name).offset for name in names])
        slim = referring(model, tensors.path.name, lambda raw: next(offsets))
        return self._written(slim, stem, names)

    def _moved(self, stored: Kind, old: Pack, new: Pack, stem: str) -> Kind:
        """``stored``, whose tensors lie in another pack now."""
        slim = onnx.ModelProto.FromString(slim_bytes(self.folder, stored))
        for tensor, name in _in_pack(slim, old):
            found = {e.key: e for e in tensor.external_data}
            found["location"].value = new.path.name
            found["offset"].value = str(new.places[name].offset)
        made = self._written(slim, stem, stored.tensors)
        return replace(stored, file=made.file, sha256=made.sha256)

    def _written(self, slim: onnx.ModelProto, stem: str, tensors: Iterable[str]) -> Stored:
        data = slim.SerializeToString(deterministic=True)
        mark = digest([data])
        path = self.folder / f"{stem}-{mark[:12]}.onnx"
        if not path.exists():
            self._new.append(path)
        write_whole(path, data)
        return Stored(path.name, mark, tuple(sorted(set(tensors))))


@contextmanager
def writing(folder: str | Path, name: str = "") -> Iterator[Store]:
    """A portfolio to change, one process at a time; ``name`` is that of a new one, else its folder's.

    What is not committed leaves the portfolio as it was.

    Raises
    ------
    EnvironmentProblem
        The folder cannot be written, or another process has been changing it for a minute.
    ModelError
        Its manifest is damaged.
    """
    path = Path(folder)
    check_folder(path)
    path.mkdir(parents=True, exist_ok=True)
    with _alone(path):
        manifest = Manifest.read(path) if (path / MANIFEST).exists() else None
        store = Store(path, manifest, name or fitting_name(path.resolve().name))
        try:
            yield store
        finally:
            store.discard()


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """No other process changes the folder meanwhile."""
    lock = FileLock(folder / _LOCK, timeout=_LOCK_S)
    try:
        lock.acquire()
    except Timeout as error:
        raise EnvironmentProblem(f"another process is changing {folder}", hint="wait until it has ended") from error
    except OSError as error:
        raise EnvironmentProblem(
            f"cannot lock {folder}: {error.strerror or error}", hint=f"see what {folder / _LOCK} is, and remove it"
        ) from error
    try:
        yield
    finally:
        lock.release()


def fitting_name(text: str) -> str:
    """``text`` as the name of a portfolio: what does not fit becomes a dash."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).lstrip(".-_")[:64] or "portfolio"


def slim_bytes(folder: Path, stored: Stored) -> bytes:
    """The bytes of a model without its tensors; raises :class:`ModelError` where they are not those stored."""
    path = folder / stored.file
    try:
        with opened_plainly(path) as file:
            data = file.read()
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror or error}", hint=AGAIN, path=str(path)) from error
    if digest([data]) != stored.sha256:
        raise ModelError(f"{path} is not the file that was stored", hint=AGAIN, path=str(path))
    return data


def whole(manifest: Manifest, name: str) -> onnx.ModelProto:
    """The stored model of a variant with all its tensors, each checked."""
    model: onnx.ModelProto = onnx.ModelProto.FromString(slim_bytes(manifest.pack.path.parent, manifest[name].stored))
    for tensor, tensor_name in _in_pack(model, manifest.pack):
        tensor.raw_data = manifest.pack.read(tensor_name)
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")
    return without_blocks(model, manifest[name].stored.blocks)


def _in_pack(slim: onnx.ModelProto, pack: Pack) -> Iterator[tuple[onnx.TensorProto, str]]:
    """The tensors of a model that lie in ``pack``, and the names that it knows them by."""
    names = {place: name for name, place in pack.places.items()}
    for tensor in slim.graph.initializer:
        if tensor.external_data:
            found = {e.key: e.value for e in tensor.external_data}
            yield tensor, names[Place(int(found["offset"]), int(found["length"]))]


def damage(folder: str | Path) -> list[str]:
    """What is wrong with a portfolio, in words: files that are missing or changed, tensors that are not as stored.

    Raises
    ------
    ModelError
        There is no manifest, or it is damaged itself.
    """
    while True:
        manifest = Manifest.read(Path(folder))
        found = list(dict.fromkeys(_damage(Path(folder), manifest)))
        if not found or Manifest.read(Path(folder)).files == manifest.files:
            return found  # else another process has replaced it meanwhile


def _damage(folder: Path, manifest: Manifest) -> Iterator[str]:
    for variant in manifest.variants.values():
        for stored in variant.files:
            yield from _wrong(variant.name, partial(slim_bytes, folder, stored))
            for tensor in stored.tensors:
                yield from _wrong(variant.name, partial(manifest.pack.check, [tensor]))


def sweep(folder: Path, manifest: Manifest) -> list[str]:
    """Take away what this portfolio wrote and has no more; returns the names.

    What others put there stays: a model of ours has the beginning of its SHA-256 in its name, a pack a number up to the
    present one's and the next.
    """
    gone = [p for p in folder.iterdir() if p.name not in manifest.files and _is_ours(p, manifest)]
    for path in gone:
        path.unlink(missing_ok=True)
    return [path.name for path in gone]


def _is_ours(path: Path, manifest: Manifest) -> bool:
    if path.is_symlink() or not path.is_file():
        return False
    if found := _PACK.fullmatch(path.name):
        return int(found[1]) <= generation(manifest.pack) + 1
    if found := _MODEL.fullmatch(path.name):
        return file_digest(path).startswith(found[1])
    return bool(_UNDERWAY.fullmatch(path.name))


def generation(pack: Pack) -> int:
    """How many times the pack was written anew, and one."""
    found = _PACK.fullmatch(pack.path.name)
    return int(found[1]) if found else 0


def _bytes(raw: bytes | Pending) -> bytes:
    return b"".join(raw.read()) if isinstance(raw, Pending) else raw


def _wrong(name: str, check: Callable[[], object]) -> list[str]:
    try:
        check()
    except ModelError as error:
        return [f"variant {name}: {error.message}"]
    return []


def _shown(signature: Signature) -> str:
    """``x float32[batch x 3] -> y float32[batch x 10]``"""
    ins, outs = (", ".join(f"{i.name} {i.dtype}[{_dims(i)}]" for i in side) for side in signature)
    return f"{ins} -> {outs}"


def _dims(item: Input) -> str:
    return " x ".join("?" if d is None else str(d) for d in item.shape)
