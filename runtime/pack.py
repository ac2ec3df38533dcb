"""The pack: one file of tensors, in which each is stored once.

A tensor is known by the SHA-256 of its bytes.  One that is there already is not stored again, nor is one that is the
beginning of another (a bias of fewer channels in the same order, a weight of fewer rows).  The file only ever grows:
what is there never moves while somebody may have it mapped, and what no index names, after a process that ended in the
middle, is written over.  A pack that holds too much is written anew, to another file.  Start at :meth:`Pack.writing`.
"""

from __future__ import annotations

import hashlib
import mmap
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ..ir.errors import EnvironmentProblem, ModelError

ALIGNED = 64
"""Bytes at whose multiples a tensor starts: what vector instructions like."""

PAGE = 4096
"""The same for tensors that are larger than that: they are mapped page by page."""

_HEAD = 64
_BLOCK = 1 << 22
AGAIN = "it was changed or is incomplete: build the portfolio again, or take the folder from where it was copied"


@dataclass(frozen=True)
class Place:
    """Where a tensor lies in the file, in bytes."""

    offset: int
    length: int

    @property
    def end(self) -> int:
        return self.offset + self.length


@dataclass(frozen=True)
class Pack:
    """A pack as an index of it says: ``places`` by SHA-256."""

    path: Path
    places: Mapping[str, Place]

    @property
    def end(self) -> int:
        """Bytes of the file that the index knows."""
        return max((p.end for p in self.places.values()), default=0)

    def read(self, name: str) -> bytes:
        """The bytes of one tensor, checked; raises :class:`ModelError` where they are not those stored."""
        place = self.places[name]
        with self._opened() as file:
            file.seek(place.offset)
            found = file.read(place.length)
        if hashlib.sha256(found).hexdigest() != name:
            raise self._damaged(name)
        return found

    def check(self, names: Iterable[str] | None = None, file: BinaryIO | None = None) -> None:
        """Raise :class:`ModelError` unless the tensors ``names`` (None: all) have the bytes that were stored.

        ``file`` is the pack where it is open already, and perhaps has no name any more.
        """
        wanted = sorted(set(self.places if names is None else names), key=lambda n: self.places[n].offset)
        if not wanted:
            return
        with nullcontext(file) if file is not None else self._opened() as file:
            if os.fstat(file.fileno()).st_size < max(self.places[n].end for n in wanted):
                raise ModelError(f"{self.path} is shorter than its index says", hint=AGAIN, path=str(self.path))
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as held, memoryview(held) as view:
                for name in wanted:
                    place = self.places[name]
                    if hashlib.sha256(view[place.offset : place.end]).hexdigest() != name:
                        raise self._damaged(name)

    def trim(self) -> None:
        """Cut off what the index does not know: left by a change that did not become true."""
        with suppress(OSError), opened_plainly(self.path, os.O_RDWR) as file:
            if os.fstat(file.fileno()).st_size > self.end:
                file.truncate(self.end)

    @contextmanager
    def writing(self) -> Iterator[Writing]:
        """More tensors for this pack; they are on disk at the end, and :attr:`Writing.pack` knows them."""
        try:
            with opened_plainly(self.path, os.O_RDWR | os.O_CREAT) as file:
                writing = Writing(self, file)
                yield writing
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise EnvironmentProblem(
                f"cannot write {self.path}: {error.strerror or error}", hint="check permissions and free space"
            ) from error

    @contextmanager
    def _opened(self) -> Iterator[BinaryIO]:
        try:
            with opened_plainly(self.path) as file:
                yield file
        except OSError as error:
            raise ModelError(f"cannot read {self.path}: {error.strerror or error}", hint=AGAIN) from error

    def _damaged(self, name: str) -> ModelError:
        place = self.places[name]
        return ModelError(
            f"{self.path}: the bytes from {place.offset} to {place.end} are not those that were stored",
            hint=AGAIN, path=str(self.path), tensor=name,
        )  # fmt: skip


def opened_plainly(path: Path, flags: int = os.O_RDONLY) -> BinaryIO:
    """The file at ``path`` and no other: a link, which may lead anywhere, is an :class:`OSError`."""
    handle = os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0), 0o666)
    return open(handle, "rb" if flags == os.O_RDONLY else "r+b")


class Writing:
    """Tensors on their way into a pack."""

    def __init__(self, pack: Pack, file: BinaryIO) -> None:
        self.path = pack.path
        self._file, self._end = file, pack.end
        self._places = dict(pack.places)
        self._heads: defaultdict[bytes, list[Place]] = defaultdict(list)
        for place in set(self._places.values()):
            self._heads[self._bytes(place.offset, min(_HEAD, place.length))].append(place)

    @property
    def pack(self) -> Pack:
        """The pack with what was added."""
        return Pack(self.path, dict(self._places))

    def has(self, raw: bytes) -> bool:
        """Whether these bytes are there."""
        return hashlib.sha256(raw).hexdigest() in self._places

    def place(self, name: str) -> Place:
        """Where a tensor lies."""
        return self._places[name]

    def add(self, raw: bytes | memoryview) -> str:
        """Store one tensor, unless it is there; returns the name that it is known by."""
        name = hashlib.sha256(raw).hexdigest()
        if name not in self._places:
            self._places[name] = self._beginning(raw) or self._appended(raw)
        return name

    def _beginning(self, raw: bytes | memoryview) -> Place | None:
        """Where a longer tensor begins with these bytes."""
        for place in self._heads.get(bytes(raw[:_HEAD]), ()):
            if place.length >= len(raw) and self._begins(place, memoryview(raw)):
                return Place(place.offset, len(raw))
        return None

    def _begins(self, place: Place, raw: memoryview) -> bool:
        blocks = range(0, len(raw), _BLOCK)
        return all(self._bytes(place.offset + k, len(raw[k : k + _BLOCK])) == raw[k : k + _BLOCK] for k in blocks)

    def _appended(self, raw: bytes | memoryview) -> Place:
        step = PAGE if len(raw) > PAGE else ALIGNED
        offset = -(-self._end // step) * step
        self._file.seek(self._end)
        self._file.write(bytes(offset - self._end))
        self._file.write(raw)
        place = Place(offset, len(raw))
        self._end = place.end
        self._heads[bytes(raw[:_HEAD])].append(place)
        return place

    def _bytes(self, offset: int, length: int) -> bytes:
        self._file.seek(offset)
        return self._file.read(length)
