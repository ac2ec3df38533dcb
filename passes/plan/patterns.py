"""Patterns of names: which groups or weights a pass may touch.

A pattern is a glob, ``re:regex`` or ``type:op``.  It is held against the names of a group: its own, and those of the
parameters whose first axis it is, under every name that a tied weight has.  A pattern that means nothing in the model
is an error, for one wrong letter would prune what is to be left alone.  Start at :func:`chosen`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import ClassVar, Protocol

from ...ir.errors import UsageError
from ...ir.words import did_you_mean
from ..groups import Group, Groups

Matches = Callable[[str], bool]
_TYPE, _REGEX = "type:", "re:"
_MORE = "`prunec analyze` lists groups and pins"
_MORE_TYPE = f"type: means layers, by ops that hold parameters; {_MORE}"


class Choosing(Protocol):
    """A pass that is told by patterns what it may touch."""

    name: ClassVar[str]

    @property
    def targets(self) -> Sequence[str]:
        """Only these; all where there is none."""

    @property
    def ignore(self) -> Sequence[str]:
        """None of these."""


def chosen(groups: Groups, by: Choosing) -> list[Group]:
    """The groups that some pattern of its ``targets`` means (all where there is none), and none of its ``ignore``.

    Raises
    ------
    UsageError
        A pattern is no regular expression; one of ``targets`` means no group; one of ``ignore`` means neither a group
        nor any other parameter of the model, which would be left alone anyhow.
    """
    names = _Names(groups)
    if not groups.groups:
        return []
    wanted = [_asked(names, p, f"{by.name}{{targets}}", names.of_groups()) for p in by.targets] or [groups.groups]
    unwanted = [_asked(names, p, f"{by.name}{{ignore}}", names.of_model()) for p in by.ignore]
    yes, no = ({g.name for found in lists for g in found} for lists in (wanted, unwanted))
    return [g for g in groups.groups if g.name in yes - no]


class _Names:
    """What patterns are held against: names of groups and parameters, or the ops that read them."""

    def __init__(self, groups: Groups) -> None:
        self.groups = groups
        self.graph = groups.analysis.graph
        self.tied = {c.name: c.names for c in self.graph.constants.values()}

    def of(self, group: Group) -> list[str]:
        return [group.name, *(n for name, axis in group.places if axis == 0 for n in self.tied[name])]

    def of_groups(self) -> list[str]:
        return [
            *(n for g in self.groups.groups for n in self.of(g)),
            *_typed(o for g in self.groups.groups for o in g.ops),
        ]

    def of_model(self) -> list[str]:
        parameters = (n for names in self.tied.values() for n in names)
        learned = {v for v, c in self.graph.constants.items() if c.role == "parameter"}
        layers = (n.op for n in self.graph.nodes if not learned.isdisjoint(n.inputs))
        return [*self.of_groups(), *parameters, *_typed(layers)]


def _typed(ops: Iterable[str]) -> list[str]:
    return [_TYPE + op for op in ops]


def _asked(names: _Names, pattern: str, option: str, known: list[str]) -> list[Group]:
    """The groups that ``pattern`` means; raises where it means none of the ``known`` names."""
    matches = _matcher(pattern, option)
    if not any(map(matches, known)):
        pinned = any(map(matches, names.of_model()))
        raise UsageError(
            f"{option}: pattern {pattern!r} matches " + ("only what is pinned" if pinned else "nothing"),
            hint=_near(pattern, [] if pinned else known, _MORE_TYPE if pattern.startswith(_TYPE) else _MORE),
            pattern=pattern,
        )
    return [g for g in names.groups.groups if any(map(matches, [*names.of(g), *_typed(g.ops)]))]


def among(names: Mapping[str, Sequence[str]], by: Choosing) -> set[str]:
    """Those of ``names``, each with its other names and types, that its ``targets`` mean (all if none), not ``ignore``.

    Raises
    ------
    UsageError
        A pattern is no regular expression, or means none of them.
    """

    def meant(pattern: str, option: str) -> set[str]:
        matches = _matcher(pattern, option)
        found = {name for name, others in names.items() if any(map(matches, (name, *others)))}
        if not found:
            known = [n for name, others in names.items() for n in (name, *others)]
            more = f"weights: {', '.join(list(names)[:4])}{', …' if len(names) > 4 else ''}"
            raise UsageError(
                f"{option}: pattern {pattern!r} matches no weight", hint=_near(pattern, known, more), pattern=pattern
            )
        return found

    asked = [meant(p, f"{by.name}{{targets}}") for p in by.targets] or [set(names)]
    return set[str]().union(*asked).difference(*(meant(p, f"{by.name}{{ignore}}") for p in by.ignore))


def _matcher(pattern: str, option: str) -> Matches:
    if pattern.startswith(_TYPE):
        return lambda name: name == pattern
    if not pattern.startswith(_REGEX):
        return lambda name: not name.startswith(_TYPE) and fnmatchcase(name, pattern)
    try:
        expression = re.compile(pattern.removeprefix(_REGEX))
    except re.error as error:
        raise UsageError(
            f"{option}: pattern {pattern!r} is no regular expression: {error}",
            hint="a pattern is a glob, re:regex or type:op",
        ) from error
    return lambda name: not name.startswith(_TYPE) and expression.search(name) is not None


def _near(pattern: str, known: list[str], more: str) -> str:
    """A hint with names, and beginnings of names, that look like ``pattern``."""
    bare = re.sub(r"[*?^$\[\]]", "", pattern.removeprefix(_REGEX)).rstrip(".")
    starts = {f"{n[: m.end()]}.*" for n in known for m in re.finditer(r"[^.]+(?=[.])", n)}
    return did_you_mean(bare, {*known, *starts}, more, most=4)
