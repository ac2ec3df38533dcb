"""What the outcome of a step depends on, as one digest: then what is finished can be told from what is not.

In it are the options that count, prunec's version, and the bytes of the files: the source, the files of the user's
functions, and what these import from their own folder or from the current one.  What is installed, and data that a
function reads, is not looked at.  Start at :func:`identity`.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..files import file_digest
from ..sources import data_files_of, source_file
from ..version import __version__
from .job import Job

_EACH = ("densities",)
"""Options that steps name themselves: a further level leaves the others as they are."""


def identity(job: Job, *, evaluates: bool) -> str:
    """The digest of all that steps of ``job`` have in common; without the evaluation for those that do none."""
    options = {name: value for name, value in asdict(job).items() if name not in _EACH}
    texts = [job.source, job.train, *job.plugins]
    if evaluates:
        texts.append(job.evaluate)
    else:
        del options["evaluate"]
    return digested({"prunec": __version__, "options": options, "files": _digests(filter(None, texts))})


def digested(facts: Any) -> str:
    """SHA-256 of facts that have a JSON form."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def _digests(texts: Iterable[str]) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for text in texts:
        for path in _files(text):
            found[str(path)] = file_digest(path)
    return found


def _files(text: str) -> Iterator[Path]:
    """The files behind ``text`` that are there."""
    home = text.rpartition(":")[0] or text
    path = Path(source_file(text) or text)
    if path.is_file() and path.suffix != ".py":
        yield path
        yield from (p for p in map(Path, data_files_of(str(path)).values()) if p.is_file())
    else:
        start = Path(home) if home.endswith(".py") else _local(home, Path())
        yield from sorted(_imported(start)) if start is not None and start.is_file() else ()


def _imported(start: Path) -> set[Path]:
    """``start`` and what it imports from its folder or the current one, and what that imports, and so on."""
    found, open_ = {start}, [start]
    while open_:
        path = open_.pop()
        for name in _names(path):
            other = _local(name, path.parent) or _local(name, start.parent) or _local(name, Path())
            if other is not None and other not in found:
                found.add(other)
                open_.append(other)
    return found


def _local(name: str, folder: Path) -> Path | None:
    """The file of the module ``name`` as found from ``folder``; None where there is none."""
    *packages, last = name.split(".")
    place = folder.joinpath(*packages)
    files = [place / f"{last}.py", place / last / "__init__.py"]
    if packages:  # a name in a module
        files.append(place.with_suffix(".py"))
    return next((path for path in files if path.is_file()), None)


def _names(path: Path) -> Iterator[str]:
    """The modules that a file imports, those of ``from . import`` as found from its own folder."""
    try:
        tree = ast.parse(path.read_bytes())
    except SyntaxError:
        return  # whoever runs it says so
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.module and node.level < 2:
                yield node.module
            if node.level == 1 or (node.module and not node.level):
                yield from (f"{node.module}.{a.name}" if node.module else a.name for a in node.names)
