"""What ``prunec passes`` and ``prunec explain`` print: names, docstrings and options, read from the registries."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterator
from typing import Any

from . import kinds
from .ir.errors import UsageError
from .ir.opset import OPS
from .ir.words import did_you_mean
from .passes.base import PASSES, Pass, default_of, find, is_required
from .passes.score.scoring import CRITERIA
from .passes.target import TARGETS
from .portfolios import METHODS

RECIPE = """\
description = "Half of the MACs, in blocks of 16 channels"
# include = ["base.toml"]    # the passes of other recipes, before these

[[pass]]
name = "score"
method = "l1"

[[pass]]
name = "plan"
macs = 0.5
align = 16
# ignore = ["head.*"]        # left alone; a pattern that matches nothing is an error

[[pass]]
name = "eliminate"

[[pass]]
name = "fold"

[[pass]]
name = "verify"
tolerance = 1e-5
"""
PIPELINE = "score{method=l1},plan{macs=0.5,align=16},eliminate,fold,verify{tolerance=1e-05}"


def described_passes() -> list[dict[str, Any]]:
    """All passes by name, as JSON: name, kind, help, options."""
    return [_described(PASSES[name]) for name in sorted(PASSES)]


def explain(name: str) -> list[str]:
    """Lines that explain a pass, a criterion, a target, a method, an op, a kind of node of a source, or ``recipe``.

    All of them where a name stands for several.

    Raises :class:`UsageError` with the names closest to one that is not known.
    """
    lines: list[str] = []
    for found in (entries(name) for entries in _ENTRIES.values()):
        lines += [*([""] if lines and found else []), *found]
    if not lines:
        more = "`prunec passes` lists passes, criteria, targets, methods and ops"
        raise UsageError(f"nothing is called {name!r}", hint=did_you_mean(name, _names(), more, most=5), name=name)
    return lines


def registered() -> dict[str, list[str]]:
    """What else can be named: criteria for ``score{method=…}``, targets, methods of portfolios, ops understood."""
    return {"criteria": sorted(CRITERIA), "targets": list(TARGETS), "methods": sorted(METHODS), "ops": sorted(OPS)}


def known_pass(name: str) -> None:
    """Raise :class:`UsageError` unless ``name`` is a pass or ``all``."""
    if name != "all":
        find(name)


def _described(cls: type[Pass]) -> dict[str, Any]:
    return {"name": cls.name, "kind": cls.kind, "help": inspect.getdoc(cls) or "", "options": _options(cls)}


def _options(cls: type[Pass]) -> list[dict[str, Any]]:
    hints = typing.get_type_hints(cls)
    return [
        {
            "name": name,
            "type": _type_name(hints[name]),
            "required": is_required(f),
            "default": None if is_required(f) else default_of(f),
        }
        for name, f in cls.options().items()
    ]


def _type_name(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint).replace("typing.", "")


def _pass_lines(name: str) -> list[str]:
    if name not in PASSES:
        return []
    found = _described(PASSES[name])
    options = [
        f"  {o['name']}: {o['type']}" + (", required" if o["required"] else f" = {o['default']!r}")
        for o in found["options"]
    ]
    needs = [f"requires: {', '.join(sorted(PASSES[name].requires))}"] if PASSES[name].requires else []
    return [
        f"pass {name} ({found['kind']})",
        "",
        found["help"],
        "",
        *needs,
        "options:" if options else "no options",
        *options,
    ]


def _criterion_lines(name: str) -> list[str]:
    return [f"criterion {name}", "", inspect.getdoc(CRITERIA[name]) or ""] if name in CRITERIA else []


def _target_lines(name: str) -> list[str]:
    if name not in TARGETS:
        return []
    target = TARGETS[name]
    return [f"target {name}", "", target.help, "", f"channel block: {target.channel_block}"]


def _method_lines(name: str) -> list[str]:
    if name not in METHODS:
        return []
    method = METHODS[name]
    trains = "needs a training function" if method.trains == "always" else "does without a training function"
    takes = f", which takes {' and '.join(method.takes)}" if method.takes else ""
    return [f"method {name}, of portfolios", "", method.help, "", f"{trains}{takes}; of {' or '.join(method.of)}"]


def _op_lines(name: str) -> list[str]:
    if name not in OPS:
        return []
    signature = OPS[name].signature
    declared = f"signature: {signature.text}" if signature is not None else "declared by a function: it moves positions"
    return [f"op {name}", "", OPS[name].help, "", declared]


def _recipe_lines(name: str) -> list[str]:
    if name not in ("recipe", "pipeline"):
        return []
    return [
        "recipe: an ordered list of passes with their options, as TOML (--recipe FILE):",
        "",
        *RECIPE.splitlines(),
        "",
        "the same as pipeline text (-p TEXT):",
        "",
        PIPELINE,
        "",
        "`prunec passes` lists the passes, `prunec explain plan` the options of one, `prunec passes --schema` all",
    ]


_ENTRIES: dict[str, Callable[[str], list[str]]] = {
    "pass": _pass_lines,
    "criterion": _criterion_lines,
    "target": _target_lines,
    "method": _method_lines,
    "op": _op_lines,
    "kind": kinds.described,
    "recipe": _recipe_lines,
}


def _names() -> Iterator[str]:
    yield from PASSES
    yield from CRITERIA
    yield from TARGETS
    yield from METHODS
    yield from OPS
    yield from kinds.names()
    yield "recipe"
