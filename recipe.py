"""Recipes: ordered lists of passes with their options, as pipeline text, TOML or Python objects.

Pipeline text is what one types (``score{method=l2},plan{ratio=0.5},eliminate``), TOML is what one keeps in a file;
both read into the same :class:`Recipe`, and both are written from it with only the options that differ from their
default.  The grammar is small enough to stand here::

    pipeline = pass { "," pass }
    pass     = name [ "{" [ option { "," option } ] "}" ]
    option   = name "=" value
    value    = word | quoted | "[" [ value { "," value } ] "]"

A word holds letters, digits and ``_ - . : / * +``; numbers, ``true``, ``false`` and ``none`` are read as such where the
option's type takes them.  Anything else stands in double quotes, as in JSON.  Start reading at :class:`Recipe`.
"""

from __future__ import annotations

import dataclasses
import json
import re
import tomllib
import types
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args, get_origin

from .ir.errors import UsageError
from .ir.words import did_you_mean
from .passes.base import PASSES, Pass, coerce, default_of, find, is_required, make

_WORD = re.compile(r"[\w\-.:/*+]+")
_INT = re.compile(r"[+-]?\d+")
_FLOAT = re.compile(r"[+-]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][+-]?\d+)?|[+-]?inf|nan")
_QUOTED = re.compile(r'"(?:[^"\\\n]|\\.)*"')
_KEYWORDS = {"true": True, "false": False, "none": None}
_EXAMPLE = "a pipeline reads score{method=l2},plan{ratio=0.5},eliminate,fold,verify"
_TABLE = '[[pass]] with name = "score" and options of that pass as keys (`prunec explain recipe` shows one)'
_QUOTES = "a value with characters other than letters, digits and _ - . : / * + stands in double quotes"
_BUDGETS = ("ratio", "macs", "params")


@dataclass(frozen=True)
class Recipe:
    """An ordered list of passes.

    Examples
    --------
    >>> recipe = Recipe.parse("score{method=l2},plan{ratio=0.5},eliminate,fold,verify")
    >>> [p.name for p in recipe]
    ['score', 'plan', 'eliminate', 'fold', 'verify']
    """

    passes: tuple[Pass, ...]
    description: str = ""

    def __iter__(self) -> Iterator[Pass]:
        return iter(self.passes)

    def __len__(self) -> int:
        return len(self.passes)

    def __str__(self) -> str:
        """The pipeline text; reading it gives the same passes."""
        return ",".join(_pass_text(p) for p in self.passes)

    @classmethod
    def parse(cls, text: str) -> Recipe:
        """The recipe that pipeline text describes; :class:`UsageError` shows the place of a mistake."""
        return cls(tuple(_Reader(text).pipeline()))

    @classmethod
    def from_toml(cls, path: str | Path) -> Recipe:
        """The recipe in a TOML file; the passes of included files come first.

        Raises
        ------
        UsageError
            The file is missing or no TOML, names an unknown pass or option, or includes itself.
        """
        return _read_toml(Path(path), ())

    def to_toml(self) -> str:
        """The TOML text; reading it gives the same recipe."""
        head = [f"description = {_toml(self.description)}\n"] if self.description else []
        return "\n".join(head + [_pass_toml(p) for p in self.passes])

    @classmethod
    def load(cls, spec: Recipe | str | Path) -> Recipe:
        """A recipe as it is, from pipeline text, or from the path of a ``.toml`` file."""
        if isinstance(spec, Recipe):
            return spec
        if isinstance(spec, Path) or spec.strip().endswith(".toml"):
            return cls.from_toml(str(spec).strip())
        return cls.parse(spec)

    @classmethod
    def default(
        cls,
        ratio: float | None = None,
        macs: float | None = None,
        params: float | None = None,
    ) -> Recipe:
        """The default pipeline, for at most one budget; raises :class:`UsageError` for two."""
        given = {k: v for k, v in zip(_BUDGETS, (ratio, macs, params)) if v is not None}
        if len(given) > 1:
            raise UsageError(f"two budgets: {' and '.join(given)}", hint=f"give one of {', '.join(_BUDGETS)}")
        steps: list[tuple[str, dict[str, Any]]] = [("score", {"method": "lamp"}), ("plan", given)]
        return cls(tuple(make(n, o) for n, o in [*steps, ("eliminate", {}), ("fold", {}), ("verify", {})]))

    @staticmethod
    def schema() -> dict[str, Any]:
        """A JSON Schema of recipe files, printed from the registry of passes."""
        return {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": "prunec recipe",
            "type": "object",
            "properties": {
                "description": {"type": "string"},
                "include": {"type": "array", "items": {"type": "string"}},
                "pass": {"type": "array", "items": {"oneOf": [_pass_schema(PASSES[n]) for n in sorted(PASSES)]}},
            },
            "additionalProperties": False,
        }


class _Reader:
    """Recursive descent over pipeline text; ``at`` is where it stands."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def pipeline(self) -> list[Pass]:
        found = [self.one_pass()]
        while self.skips(","):
            found.append(self.one_pass())
        self.blanks()
        if self.at < len(self.text):
            self.fail("expected ',' or the end")
        return found

    def one_pass(self) -> Pass:
        name, start = self.word("the name of a pass")
        places, options = {"": start}, dict[str, _Written]()
        if self.skips("{") and not self.skips("}"):
            self.option(options, places)
            while self.skips(","):
                self.option(options, places)
            self.expect("}", "expected ',' or '}'")
        try:
            return _build(name, options)
        except UsageError as error:
            place = places.get(str(error.data.get("key", "")), start)
            raise UsageError(_pointed(error.message, self.text, place), hint=error.hint, **error.data) from error

    def option(self, options: dict[str, _Written], places: dict[str, int]) -> None:
        key, start = self.word("the name of an option")
        if key in options:
            self.fail(f"option {key!r} stands twice", start)
        self.expect("=", f"expected '=' after {key!r}")
        options[key], places[key] = self.value(), start

    def value(self) -> _Written:
        if not self.skips("["):
            return self.scalar()
        items: list[_Written] = []
        if not self.skips("]"):
            items.append(self.value())
            while self.skips(","):
                items.append(self.value())
            self.expect("]", "expected ',' or ']'")
        return _Written([i.value for i in items], [i.text for i in items])

    def scalar(self) -> _Written:
        self.blanks()
        if self.text[self.at : self.at + 1] == '"':
            value = self.quoted()
            return _Written(value, value)
        word, _ = self.word("a value")
        return _Written(_meaning(word), word)

    def quoted(self) -> str:
        match = _QUOTED.match(self.text, self.at)
        if match is None:
            self.fail('the closing " is missing')
        try:
            value = str(json.loads(match[0]))
        except json.JSONDecodeError as error:
            self.fail(f"not a quoted string: {error.msg}", self.at + error.pos)
        self.at = match.end()
        return value

    def word(self, what: str) -> tuple[str, int]:
        self.blanks()
        match = _WORD.match(self.text, self.at)
        if match is None:
            self.fail(f"expected {what}")
        self.at = match.end()
        return match[0], match.start()

    def blanks(self) -> None:
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1

    def skips(self, mark: str) -> bool:
        self.blanks()
        found = self.text.startswith(mark, self.at)
        self.at += len(mark) * found
        return found

    def expect(self, mark: str, message: str) -> None:
        if not self.skips(mark):
            self.fail(message)

    def fail(self, message: str, at: int | None = None) -> NoReturn:
        place = self.at if at is None else at
        found = f"{self.text[place]!r}" if place < len(self.text) else "the end of the text"
        message = f"{message}, found {found}" if message.startswith("expected") else message
        raise UsageError(
            _pointed(f"cannot read the pipeline: {message}", self.text, place),
            hint=_EXAMPLE if place >= len(self.text) or self.text[place] in '{}[],="' else _QUOTES,
            text=self.text, place=place,
        )  # fmt: skip


@dataclass(frozen=True)
class _Written:
    """A value as it was written: ``value`` is what the text means by itself, ``text`` the words as strings."""

    value: Any
    text: Any


def _meaning(word: str) -> Any:
    if word in _KEYWORDS:
        return _KEYWORDS[word]
    if _INT.fullmatch(word):
        return int(word)
    return float(word) if _FLOAT.fullmatch(word) else word


def _pointed(message: str, text: str, place: int) -> str:
    """``message`` above the line of ``text`` with a caret under ``place``."""
    start = text.rfind("\n", 0, place) + 1
    line = text[start:].split("\n", 1)[0]
    margin = "".join(c if c == "\t" else " " for c in line[: place - start])
    return f"{message}\n  {line}\n  {margin}^"


def _build(name: str, options: dict[str, _Written]) -> Pass:
    """A pass from written options, each read as its field's type asks; the error's ``key`` is the option at fault."""
    hints = typing.get_type_hints(find(name))
    fields = find(name).options()
    chosen: dict[str, Any] = {}
    for key, written in options.items():
        chosen[key] = _settle(written, hints[key], f"{name}{{{key}}}", key) if key in fields else written.value
    absent = [k for k, f in fields.items() if k not in options and is_required(f)]
    if absent:
        raise UsageError(f"pass {name!r} needs the option {absent[0]!r}", hint=_options_hint(fields), name=name)
    try:
        return make(name, chosen)
    except UsageError as error:
        raise UsageError(
            error.message, hint=error.hint, **{"key": error.data.get("option", ""), **error.data}
        ) from error


def _settle(written: _Written, hint: Any, where: str, key: str) -> Any:
    """The value if the type takes it, else the bare words as strings (``align=none`` where the option is a string)."""
    try:
        return coerce(written.value, hint, where)
    except UsageError as error:
        try:
            return coerce(written.text, hint, where)
        except UsageError:
            raise UsageError(error.message, hint=error.hint, **{**error.data, "key": key}) from error


def _options_hint(fields: dict[str, Any]) -> str:
    return f"options: {', '.join(fields) or 'none'}"


def _pass_text(step: Pass) -> str:
    options = ",".join(f"{key}={_text(value, f'{step.name}{{{key}}}')}" for key, value in step.chosen().items())
    return f"{step.name}{{{options}}}" if options else step.name


def _text(value: Any, where: str) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{','.join(_text(item, where) for item in value)}]"
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, str):
        return value if _WORD.fullmatch(value) and _meaning(value) == value else json.dumps(value)
    raise UsageError(f"option {where} holds {value!r}, which cannot be written as text", hint="pass the recipe object")


def _read_toml(path: Path, within: tuple[Path, ...]) -> Recipe:
    if path.resolve() in within:
        raise UsageError(f"recipe {path} includes itself", hint=" -> ".join(map(str, [*within, path.resolve()])))
    tree = _parse_toml(path)
    for key in tree:
        if key not in ("description", "include", "pass"):
            known = f"keys: description, include, {_TABLE}"
            hint = did_you_mean(key, ("description", "include", "pass"), known)
            raise UsageError(f"recipe {path} has the unknown key {key!r}", hint=hint)
    passes: list[Pass] = []
    for name in _listed(tree, "include", str, path):
        passes += _read_toml(path.parent / name, (*within, path.resolve())).passes
    passes += [_toml_pass(dict(table), path, i) for i, table in enumerate(_listed(tree, "pass", dict, path), 1)]
    if not passes:
        raise UsageError(f"recipe {path} has no pass", hint=_TABLE)
    description = tree.get("description", "")
    if not isinstance(description, str):
        raise UsageError(f"recipe {path}: description is no string", hint='write description = "…"')
    return Recipe(tuple(passes), description)


def _parse_toml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        there = (p.name for p in path.parent.glob("*.toml"))
        hint = did_you_mean(path.name, there, "give the path of a .toml file")
        raise UsageError(f"there is no recipe {path}", hint=hint, path=str(path)) from error
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"cannot read the recipe {path}: {error}", hint="a recipe is a text file in UTF-8", path=str(path)
        ) from error
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"line (\d+), column (\d+)", str(error))
        place = _offset(text, int(found[1]), int(found[2])) if found else len(text)
        raise UsageError(
            _pointed(f"recipe {path} is no TOML: {error}", text, place),
            hint=_TABLE,
            path=str(path),
        ) from error


def _offset(text: str, line: int, column: int) -> int:
    return sum(len(row) + 1 for row in text.split("\n")[: line - 1]) + column - 1


def _listed(tree: dict[str, Any], key: str, kind: type, path: Path) -> list[Any]:
    items = tree.get(key, [])
    if not isinstance(items, list) or not all(isinstance(item, kind) for item in items):
        form = _TABLE if key == "pass" else f'{key} = ["…"]'
        raise UsageError(f"recipe {path}: {key!r} has the wrong form", hint=f"write {form}")
    return items


def _toml_pass(table: dict[str, Any], path: Path, number: int) -> Pass:
    name = table.pop("name", None)
    if not isinstance(name, str):
        raise UsageError(f"recipe {path}: pass {number} has no name", hint=_TABLE)
    try:
        return _build(name, {k: _Written(None if v == "none" else v, v) for k, v in table.items()})
    except UsageError as error:
        unknown = error.data.get("option") in table and name in PASSES
        hint = error.hint
        if unknown:
            keys = ["name", *find(name).options()]
            hint = did_you_mean(str(error.data["option"]), keys, f"keys in this [[pass]]: {', '.join(keys)}")
        raise UsageError(f"recipe {path}, pass {number}: {error.message}", hint=hint, **error.data) from error


def _pass_toml(step: Pass) -> str:
    rows = [f"{key} = {_toml(value)}" for key, value in step.chosen().items()]
    return "\n".join(["[[pass]]", f'name = "{step.name}"', *rows]) + "\n"


def _toml(value: Any) -> str:
    """A value in TOML, which has no null: None is the string "none"."""
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_toml(item) for item in value)}]"
    if value is None:
        return '"none"'
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return _text(value, "")


def _pass_schema(cls: type[Pass]) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    fields = cls.options()
    return {
        "type": "object",
        "description": (cls.__doc__ or "").strip(),
        "properties": {"name": {"const": cls.name}, **{k: _with_default(f, hints[k]) for k, f in fields.items()}},
        "required": ["name", *(k for k, f in fields.items() if is_required(f))],
        "additionalProperties": False,
    }


def _with_default(field: dataclasses.Field[Any], hint: Any) -> dict[str, Any]:
    schema = _type_schema(hint)
    default = default_of(field)
    if default is None or isinstance(default, (bool, int, float, str)):
        return {**schema, "default": "none" if default is None else default}
    return {**schema, "default": list(default)} if isinstance(default, tuple) else schema


_TYPES: dict[Any, dict[str, Any]] = {
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    str: {"type": "string"},
    type(None): {"const": "none"},
}
_GENERIC: dict[Any, Callable[[Any], dict[str, Any]]] = {
    Literal: lambda hint: {"enum": list(get_args(hint))},
    tuple: lambda hint: {"type": "array", "items": _type_schema(get_args(hint)[0])},
    typing.Union: lambda hint: {"anyOf": [_type_schema(a) for a in get_args(hint)]},
    types.UnionType: lambda hint: {"anyOf": [_type_schema(a) for a in get_args(hint)]},
}


def _type_schema(hint: Any) -> dict[str, Any]:
    rule = _GENERIC.get(get_origin(hint))
    return rule(hint) if rule else dict(_TYPES.get(hint, {}))
