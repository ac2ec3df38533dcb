"""The manifest of a portfolio: which variants there are, which file each is, and where its tensors lie.

It is the one file that says what a portfolio is: whatever else stands in the folder and is not named here is nothing.
So a change is made whole by replacing it, and it carries its own SHA-256.  Its schema is ``manifest_schema.json``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..files import digest, write_whole
from ..ir.errors import ModelError, UsageError
from ..version import __version__
from .pack import Pack, Place
from .session import Input
from .variant import Variant

FORMAT = 1
MANIFEST = "manifest.json"
UNFINISHED = ".build"
"""The folder inside of a portfolio's that holds what is finished of a build."""

_PORTFOLIO = "give the folder that `prunec portfolio build` wrote"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_PACK = re.compile(r"pack-[0-9]{1,9}\.bin")
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,120}")
_SHA = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Manifest:
    """What a portfolio holds.

    Attributes
    ----------
    name
        What the model is called where it is served.
    inputs, outputs
        The same for every variant.
    pack
        The file of tensors and its index.
    variants
        By name, the largest first.
    example
        Shapes of the inputs that latency is measured on.
    facts
        Where the portfolio comes from.
    """

    name: str
    inputs: tuple[Input, ...]
    outputs: tuple[Input, ...]
    pack: Pack
    variants: Mapping[str, Variant]
    example: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Variant:
        """The variant of that name; raises :class:`UsageError` for one that is not there."""
        if name not in self.variants:
            raise UsageError(f"there is no variant {name!r}", hint=f"variants: {', '.join(self.variants)}", name=name)
        return self.variants[name]

    @property
    def files(self) -> set[str]:
        """The names of all files that belong to the portfolio, but for the manifest."""
        return {self.pack.path.name, *(s.file for v in self.variants.values() for s in v.files)}

    @property
    def tensors(self) -> set[str]:
        """All tensors that a variant points to."""
        return {t for v in self.variants.values() for s in v.files for t in s.tensors}

    def as_dict(self) -> dict[str, Any]:
        """JSON-serialisable, with its own SHA-256."""
        found: dict[str, Any] = {
            "format": FORMAT,
            "prunec": __version__,
            "name": self.name,
            "inputs": [_input(i) for i in self.inputs],
            "outputs": [_input(o) for o in self.outputs],
            "example": {k: list(v) for k, v in self.example.items()},
            "pack": {
                "file": self.pack.path.name,
                "tensors": {n: [p.offset, p.length] for n, p in sorted(self.pack.places.items())},
            },
            "variants": [{"name": n, **v.as_dict()} for n, v in self.variants.items()],
            "facts": dict(self.facts),
        }
        return {**found, "sha256": _digest(found)}

    def write(self, folder: Path) -> None:
        """Put this manifest in the place of the one that is there: the moment at which a change becomes true."""
        write_whole(folder / MANIFEST, json.dumps(self.as_dict(), indent=1) + "\n")

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """The manifest of ``folder``.

        Raises
        ------
        ModelError
            There is none, or it was changed since it was written.
        """
        path = folder / MANIFEST
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            begun = (folder / UNFINISHED).is_dir()
            raise ModelError(
                f"{folder} is no portfolio{' yet' if begun else ''}: it has no {MANIFEST}",
                hint="its build broke off: the same command goes on from there" if begun else _PORTFOLIO,
            ) from error
        except (OSError, ValueError, RecursionError) as error:
            raise ModelError(f"{path} cannot be read: {error}", hint=_PORTFOLIO) from error
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            raise ModelError(f"{path} is no manifest of a portfolio of format {FORMAT}", hint=_PORTFOLIO)
        if found.pop("sha256", None) != _digest(found):
            raise ModelError(f"{path} was changed since it was written", hint="build the portfolio again")
        try:
            return cls._of(folder, found)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise ModelError(f"{path} is no manifest: {type(error).__name__}: {error}", hint=_PORTFOLIO) from error

    @classmethod
    def _of(cls, folder: Path, found: dict[str, Any]) -> Manifest:
        places = {_matching(_SHA, n): Place(int(o), int(k)) for n, (o, k) in found["pack"]["tensors"].items()}
        if any(p.offset < 0 or p.length < 0 or p.end >= 1 << 62 for p in places.values()):
            raise ValueError("a tensor that lies in no file")
        variants = {}
        for item in found["variants"]:
            name = checked_name(item.pop("name"))
            if name in variants:
                raise ValueError(f"two variants are named {name}")
            variants[name] = variant = Variant.from_dict(name, item)
            for stored in variant.files:
                _matching(_FILE, stored.file)
                if not places.keys() >= set(stored.tensors):
                    raise ValueError(f"variant {name} points to tensors that are not there")
        if not variants:
            raise ValueError("there is no variant")
        return cls(
            name=checked_name(found["name"]),
            inputs=tuple(map(_read_input, found["inputs"])),
            outputs=tuple(map(_read_input, found["outputs"])),
            pack=Pack(folder / _matching(_PACK, found["pack"]["file"]), places),
            variants=variants,
            example={str(k): _sizes(v) for k, v in found["example"].items()},
            facts=dict(found["facts"]),
        )


def checked_name(name: str) -> str:
    """``name``, which is fit for a variant or a portfolio: a word in file names, addresses and metrics.

    Raises
    ------
    UsageError
        It is not.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot be the name of a variant or a portfolio",
            hint="letters, digits, dots, dashes and underscores, 64 at most, and no dot or dash first",
        )
    return name


def _matching(pattern: re.Pattern[str], text: str) -> str:
    if not pattern.fullmatch(text):
        raise ValueError(f"{text!r} is out of place")
    return text


def _sizes(found: Any) -> tuple[int, ...]:
    if not all(isinstance(d, int) and 0 <= d < 1 << 24 for d in found):
        raise ValueError(f"{found} is no shape")
    return tuple(found)


def _digest(found: Mapping[str, Any]) -> str:
    return digest([json.dumps(found, sort_keys=True).encode()])


def _input(item: Input) -> dict[str, Any]:
    return {"name": item.name, "dtype": str(item.dtype), "shape": list(item.shape)}


def _read_input(found: Mapping[str, Any]) -> Input:
    if not all(d is None or isinstance(d, str) or (isinstance(d, int) and d >= 0) for d in found["shape"]):
        raise ValueError(f"{found['shape']} is no shape")
    return Input(str(found["name"]), _dtype(found["dtype"]), tuple(found["shape"]))


def _dtype(text: str) -> np.dtype[Any]:
    if text == "bfloat16":
        import ml_dtypes

        text = ml_dtypes.bfloat16
    return np.dtype(text)
