"""What the outcome of a step depends on, as one digest: then what is finished can be told from what is not.

In it are the options that count, prunec's version, and the bytes of the files: the source, the files of the user's
functions, and what these import from their own folder, from the current one or from their package.  What is installed,
and data that a function reads, is not looked at.  A file that is no longer what this process has loaded is refused, for
what it holds now is not what would run.  Start at :func:`identity`.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

from ..files import digest, file_digest
from ..ir.errors import EnvironmentProblem
from ..sources import data_files_of, source_file
from ..version import __version__
from .job import Job

_EACH = ("densities",)
"""Options that steps name themselves: a further level leaves the others as they are."""

_INSTALLED = {"site-packages", "dist-packages"}


def identity(job: Job, *, evaluates: bool) -> str:
    """The digest of all that steps of ``job`` have in common; without the evaluation for those that do none.

    Raises
    ------
    EnvironmentProblem
        A file changed since this process loaded it.
    """
    options = {name: value for name, value in asdict(job).items() if name not in _EACH}
    texts = [job.source, job.train, *job.plugins]
    if evaluates:
        texts.append(job.evaluate)
    else:
        del options["evaluate"]
    return digested({"prunec": __version__, "options": options, "files": _digests(filter(None, texts))})


def digested(facts: Any) -> str:
    """SHA-256 of facts that have a JSON form."""
    return digest([json.dumps(facts, sort_keys=True, default=str).encode()])


def _digests(texts: Iterable[str]) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for text in texts:
        for path in _files(text):
            found[str(path)] = file_digest(path)
    _check_loaded(found)
    return found


_LOADED: dict[str, tuple[ModuleType, str]] = {}
"""The modules of files that this process has loaded, and the digest of each when it was first seen here."""


def _check_loaded(digests: Mapping[str, str]) -> None:
    modules = {file: m for m in list(sys.modules.values()) if isinstance(file := getattr(m, "__file__", None), str)}
    for text, now in digests.items():
        path = Path(text)
        if (module := modules.get(str(path.resolve())) or modules.get(str(path.absolute()))) is None:
            continue
        loaded, then = _LOADED.get(text, (None, now))
        if loaded is module and then != now:
            raise EnvironmentProblem(
                f"building a portfolio: {text} changed since this process loaded it",
                hint="start a new one; what is finished is kept, as far as it does not depend on that file",
            )
        _LOADED[text] = module, now


def _files(text: str) -> Iterator[Path]:
    """The files behind ``text`` that are there."""
    home = text.rpartition(":")[0] or text
    path = Path(source_file(text) or text)
    if path.is_file() and path.suffix != ".py":
        yield path
        yield from (p for p in map(Path, data_files_of(str(path)).values()) if p.is_file())
    else:
        start = Path(home) if home.endswith(".py") else _local(home, Path()) or _elsewhere(home)
        yield from sorted(_imported(start, home)) if start is not None and start.is_file() else ()


def _elsewhere(home: str) -> Path | None:
    """The file of a module that is neither in the current folder nor installed."""
    try:
        spec = importlib.util.find_spec(home)
    except (ImportError, ValueError):
        return None  # whoever imports it says so
    path = Path(spec.origin) if spec is not None and spec.has_location and spec.origin else None
    return None if path is None or _INSTALLED & set(path.parts) else path


def _imported(start: Path, home: str) -> set[Path]:
    """``start`` and what it imports from its folder, the current one or its root, and what that imports, and so on."""
    root = start.parent if home.endswith(".py") else _root(start, home)
    found, open_ = set[Path](), [start]
    while open_:
        path = open_.pop()
        if path in found:
            continue
        found.add(path)
        open_ += _packages(path)
        for level, name in _names(path):
            folders = [path.parents[level - 1]] if level else [path.parent, start.parent, root, Path()]
            open_ += [other for folder in folders if (other := _local(name, folder)) is not None][:1]
    return found


def _root(start: Path, home: str) -> Path:
    """The folder from which the file ``start`` is the module ``home``."""
    deep = home.count(".") + (start.name == "__init__.py")
    return start.absolute().parents[deep]


def _packages(path: Path) -> list[Path]:
    """The ``__init__.py`` of the packages that a file is in."""
    found: list[Path] = []
    for folder in path.parents:
        if not (init := folder / "__init__.py").is_file():
            break
        found.append(init)
    return found


def _local(name: str, folder: Path) -> Path | None:
    """The file of the module ``name`` as found from ``folder``; None where there is none."""
    *packages, last = name.split(".")
    place = folder.joinpath(*packages)
    files = [place / f"{last}.py", place / last / "__init__.py"]
    if packages:  # a name in a module
        files += [place.with_suffix(".py"), place / "__init__.py"]
    return next((path for path in files if path.is_file()), None)


def _names(path: Path) -> Iterator[tuple[int, str]]:
    """The modules that a file imports, and from how many folders up each is found (0: by its whole name)."""
    try:
        tree = ast.parse(path.read_bytes())
    except SyntaxError:
        return  # whoever runs it says so
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level <= len(path.parents):
            names = [f"{node.module}.{a.name}" if node.module else a.name for a in node.names]
            yield from ((node.level, name) for name in ([node.module] if node.module else []) + names)
