"""The work folder: what each step made, in a folder of its own, whole or not at all.

``work/<step>/`` holds the step's files and ``step.json``: the key that the step is known by, the hash of each file, and
the seconds that it took.  What does not fit is made anew, and a note says so.  Start at :class:`Work`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ..files import check_folder, digest, whole_folder, write_whole
from ..ir.errors import EnvironmentProblem
from .step import Files

_RECORD = "step.json"
_LOCK = ".lock"


@dataclass(frozen=True)
class Record:
    """A step that is finished: the digest of each of its files, and how long it took."""

    hashes: Mapping[str, str]
    seconds: float


class Work:
    """The folder ``work``; raises :class:`EnvironmentProblem` where it cannot be written."""

    def __init__(self, work: Path) -> None:
        check_folder(work)
        work.mkdir(parents=True, exist_ok=True)
        self.folder = work.absolute()  # a function of the user's may change the current one

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Inside no other process builds here.

        Raises
        ------
        EnvironmentProblem
            One does already.
        """
        try:
            with FileLock(self.folder / _LOCK, timeout=0):
                yield
        except Timeout as error:
            raise EnvironmentProblem(
                f"building in {self.folder}: another process builds here",
                hint="wait for it, or give another folder",
            ) from error

    def held(self, name: str, key: str) -> Record | str | None:
        """What the step ``name`` made, if it is whole and of ``key``; else why not, None where nothing is."""
        folder = self.folder / name
        if not folder.exists():
            return None
        try:
            record = json.loads((folder / _RECORD).read_text())
            hashes, seconds = dict(record["sha256"]), float(record["seconds"])
        except (OSError, ValueError, KeyError, TypeError):
            return f"{name} is made anew: {folder} is no finished step"
        if record.get("key") != key:
            return f"{name} is made anew: {folder} was made from something else"
        for file, expected in hashes.items():
            if self._digest(folder, file) != expected:
                return f"{name} is made anew: {folder / file} is missing or was changed"
        return Record(hashes, seconds)

    def keep(self, name: str, key: str, files: Files, seconds: float) -> Record:
        """Write what a step made; what was there under its name goes."""
        hashes = {file: digest([data]) for file, data in sorted(files.items())}
        target = self.folder / name
        try:
            with whole_folder(target) as staging:
                for file, data in files.items():
                    write_whole(staging / file, data)
                write_whole(staging / _RECORD, _text({"key": key, "sha256": hashes, "seconds": seconds}))
        except OSError as error:
            raise EnvironmentProblem(
                f"keeping {target}: {error.strerror or error}", hint="check permissions and free space"
            ) from error
        return Record(hashes, seconds)

    def files(self, name: str, record: Record) -> Files:
        """The files of a finished step."""
        return {file: (self.folder / name / file).read_bytes() for file in record.hashes}

    def path(self, name: str, file: str) -> Path:
        """Where a file of a finished step lies."""
        return self.folder / name / file

    def _digest(self, folder: Path, file: str) -> str | None:
        if not re.fullmatch(r"\w[\w.-]*", file) or not (folder / file).is_file():
            return None
        return digest([(folder / file).read_bytes()])


def _text(record: dict[str, Any]) -> str:
    return json.dumps(record, indent=1, sort_keys=True) + "\n"
