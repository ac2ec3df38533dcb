"""Files that are written whole or not at all: a temporary file in the same folder, then one rename.

A model above 2 GB does not fit in one protobuf; its tensors go to ``NAME.data`` beside it, and that file is in place
before the model that refers to it.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from .ir.errors import EnvironmentProblem, UsageError

if TYPE_CHECKING:
    import onnx

    from .ir.emit.onnx_external import Emitted


MODEL_SUFFIXES = (".onnx",)
"""Of the models that are written."""


def check_writable(path: str | Path) -> None:
    """Raise :class:`EnvironmentProblem` unless a file can be written at ``path``; leaves nothing behind."""
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise EnvironmentProblem(f"cannot write {path}: it is a folder", hint="give the name of a file", path=str(path))
    if _is_device(target):
        return
    with _explained(target), _beside(target) as temporary:
        temporary.touch(exist_ok=False)


def check_suffix(path: str | Path) -> None:
    """Raise :class:`UsageError` for a file whose name does not say that it is a model; a device has any name."""
    if Path(path).suffix.lower() not in MODEL_SUFFIXES and not _is_device(Path(os.path.realpath(path))):
        raise UsageError(
            f"--output {path} is no kind of model that prunec writes",
            hint=f"give a name that ends in {' or '.join(MODEL_SUFFIXES)}",
            path=str(path),
        )


def check_apart(read: Mapping[str, str], written: Mapping[str, str]) -> None:
    """Raise :class:`UsageError` where one file is to be read and written, or written twice; keys name the arguments."""
    taken: dict[Path, str] = {}
    for argument, path in [*read.items(), *written.items()]:
        real = Path(os.path.realpath(path))
        other = taken.setdefault(real, argument)
        if other != argument and argument in written and not _is_device(real):
            raise UsageError(
                f"{argument} {path} is the file of {other}, which would be overwritten",
                hint="give each a name of its own",
                path=path,
            )


def check_outside(folder: str | Path, files: Mapping[str, str]) -> None:
    """Raise :class:`UsageError` for a file inside ``folder``, which is written as a whole; keys name the arguments."""
    whole = Path(os.path.realpath(folder))
    for argument, path in files.items():
        if Path(os.path.realpath(path)).is_relative_to(whole):
            raise UsageError(
                f"{argument} {path} lies in the folder {folder}, which is written as a whole",
                hint="give --save a folder of its own",
                path=path,
            )


def check_folder(path: str | Path) -> None:
    """Raise :class:`EnvironmentProblem` unless ``path`` is a folder that can be written, or can be made."""
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_dir():
        raise EnvironmentProblem(
            f"cannot write into {path}: it is a file", hint="give the name of a folder", path=str(path)
        )
    nearest = next(p for p in (target, *target.parents) if p.exists())
    if not nearest.is_dir():
        raise EnvironmentProblem(
            f"cannot make the folder {path}: {nearest} is a file", hint="give another folder", path=str(path)
        )
    check_writable(nearest / f".{target.name}.probe")


def write_whole(path: str | Path, data: bytes | str | Iterable[bytes | memoryview]) -> None:
    """Write ``data`` to ``path`` in one step; an old file stays as it was when anything goes wrong."""
    target = Path(os.path.realpath(path))
    chunks = [data.encode()] if isinstance(data, str) else [data] if isinstance(data, bytes) else data
    with _explained(target):
        if _is_device(target):
            _fill(target, chunks, "wb")
            return
        with _beside(target) as temporary:
            _fill(temporary, chunks, "xb")
            os.replace(temporary, target)


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A folder to fill, which takes the place of ``target`` at the end, unless anything goes wrong."""
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = target.parent / f".{target.name}.{secrets.token_hex(8)}"
    staging.mkdir()  # with the rights that the user gives to new folders
    try:
        yield staging
        _swap(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def write_model(path: str | Path, model: onnx.ModelProto | Emitted, *, external: bool | None = None) -> list[Path]:
    """Write an ONNX model and return the files written: one, or two when its tensors lie in ``NAME.data``.

    ``external`` says whether tensors go to their own file; None: only where the model is too large for one file.
    Raises :class:`EnvironmentProblem` when the folder cannot be written.
    """
    from .ir.emit.onnx_external import as_emitted, is_large, split

    target = Path(os.path.realpath(path))
    if not (is_large(model) if external is None else external):
        write_whole(target, as_emitted(model).serialised())
        return [target]
    data = target.with_name(target.name + ".data")
    slim, chunks = split(model, data.name)
    with _explained(target), _beside(data) as new_data, _beside(target) as new_model:
        _fill(new_data, chunks, "xb")
        _fill(new_model, [slim.SerializeToString(deterministic=True)], "xb")
        os.replace(new_data, data)
        os.replace(new_model, target)
    return [target, data]


def _swap(staging: Path, target: Path) -> None:
    """Put ``staging`` in the place of ``target``; whatever was there goes only once the new one stands."""
    if not target.exists():
        os.replace(staging, target)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent))
    os.replace(target, old / "artifact")
    try:
        os.replace(staging, target)
    except OSError:
        os.replace(old / "artifact", target)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def _fill(path: Path, chunks: Iterable[bytes | memoryview], mode: str) -> None:
    with open(path, mode) as file:
        for chunk in chunks:
            file.write(chunk)
        file.flush()
        if mode == "xb":
            os.fsync(file.fileno())


@contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """A free name in the folder of ``target``; what is there afterwards is removed."""
    temporary = target.with_name(f".{target.name[:100]}.{secrets.token_hex(6)}.tmp")
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _explained(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        hint = "make the folder first" if not target.parent.is_dir() else "check permissions and free space"
        raise EnvironmentProblem(
            f"cannot write {target}: {error.strerror or error}", hint=hint, path=str(target)
        ) from error


def _is_device(target: Path) -> bool:
    """True for what exists and must not be replaced by a file: /dev/null, a pipe."""
    return target.exists() and not target.is_file() and not target.is_dir()


def file_digest(path: Path) -> str:
    """SHA-256 of a file, which is read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def digest(parts: Iterable[bytes]) -> str:
    """SHA-256 of the parts, one after another."""
    found = hashlib.sha256()
    for part in parts:
        found.update(part)
    return found.hexdigest()
