"""What a pass is, and the one registry of them.

A pass is a frozen dataclass: its fields are its options, its docstring is its help.  Decorating it with
:func:`register` is all it takes to appear in the pipeline language, the command line and the recipe schema.
The kinds differ by what ``run`` returns:

========== ======================= ==========================================
kind       ``run(state)`` returns  what the runner does with it
========== ======================= ==========================================
rewrite    a Graph                 becomes ``state.graph``
analysis   a value                 stored under the fact that the pass ensures
criterion  scores                  stored as the fact ``scores``
planner    a Plan                  stored as the fact ``plan``
training   nothing: it refuses     stands in recipes of ``prunec.train``
========== ======================= ==========================================

Analyses, criteria and planners never change a graph.  A rewrite works on a copy.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol, TypeVar, get_args, get_origin

from ..ir.errors import UsageError
from ..ir.graph import Graph
from ..ir.words import did_you_mean
from .rewrite import Kept
from .target import Target

Kind = Literal["rewrite", "analysis", "criterion", "planner", "training"]
Progress = Callable[[str, str], None]


class Rewriting(Protocol):
    """Channels of a compact graph in other places, or gone: what a pass chose, to be done to other weights as well."""

    def applied(self, graph: Graph) -> Graph:
        """A copy of ``graph``, which has the structure of the one it was chosen for, rewritten."""
        ...

    def of(self, kept: Kept) -> Kept:
        """The ``kept`` indices of parameters as they are in the rewritten graph."""
        ...

    @property
    def removed(self) -> int:
        """How many units it took out."""
        ...


@dataclass
class State:
    """What flows through a pipeline.

    ``dense`` is the canonical source and stays as it is; ``graph`` is what rewrites replace.  ``facts`` holds the
    results of the other passes by name (``groups``, ``scores``, ``plan``, ``alive``, ``verified``).  ``rewritings``
    are what passes did to the compact graph, in order, for the proof to do it again.  ``inference`` is the graph after
    rewrites that are only right for inference, None while there were none.  ``context`` is what the caller hands in:
    ``loss`` and ``targets``, for gradient criteria, and ``samples``.  ``notes`` are lines for the report, ``values``
    what passes say of the numbers that they changed.  ``tell`` gets the name of a pass that takes long, and which part
    of its work starts.
    """

    dense: Graph
    graph: Graph
    target: Target
    seed: int = 0
    facts: dict[str, Any] = field(default_factory=dict)
    rewritings: list[Rewriting] = field(default_factory=list)
    inference: Graph | None = None
    context: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)
    tell: Progress = lambda stage, detail: None

    @property
    def deployed(self) -> Graph:
        """The graph that runs at inference."""
        return self.graph if self.inference is None else self.inference


@dataclass(frozen=True)
class Pass(ABC):
    """One step of a pipeline; subclasses add their options as fields."""

    name: ClassVar[str] = ""
    kind: ClassVar[Kind]
    requires: ClassVar[frozenset[str]] = frozenset()
    ensures: ClassVar[frozenset[str]] = frozenset()
    forbids: ClassVar[frozenset[str]] = frozenset()  # facts that no earlier pass may have ensured
    inference_only: ClassVar[bool] = False
    requires_choice: ClassVar[bool] = False  # True: never run unasked, whatever a later pass requires
    revalues: ClassVar[bool] = False  # True: a rewrite that changes numbers alone, in the dense network as well
    may_revalue: ClassVar[bool] = False  # True: it may do so too, and carries them back and gives values then

    @abstractmethod
    def run(self, state: State) -> Any:
        """The result of this pass on ``state``; see the table above."""

    def expects(self) -> str:
        """The name of a pass that must follow, for this one counts on it; empty for none."""
        return ""

    @classmethod
    def options(cls) -> dict[str, dataclasses.Field[Any]]:
        """Fields by name: the options of the pass."""
        return {f.name: f for f in dataclasses.fields(cls)}

    def chosen(self) -> dict[str, Any]:
        """Options that differ from their default, in declaration order."""
        return {n: getattr(self, n) for n, f in self.options().items() if getattr(self, n) != default_of(f)}


PASSES: dict[str, type[Pass]] = {}
P = TypeVar("P", bound=type[Pass])


def register(cls: P) -> P:
    """Enter a pass into the registry under its ``name``."""
    if cls.name in PASSES:
        raise ValueError(f"two passes are named {cls.name!r}")
    PASSES[cls.name] = cls
    return cls


def find(name: str) -> type[Pass]:
    """The pass class called ``name``; raises :class:`UsageError` that lists the known ones."""
    if name not in PASSES:
        known = f"known passes: {', '.join(sorted(PASSES))}"
        raise UsageError(f"unknown pass {name!r}", hint=did_you_mean(name, PASSES, known), name=name)
    return PASSES[name]


def revaluing(names: Iterable[str]) -> tuple[str, ...]:
    """Those of the passes ``names`` that change numbers, once each."""
    found = (name for name in names if name in PASSES and (PASSES[name].revalues or PASSES[name].may_revalue))
    return tuple(dict.fromkeys(found))


def make(name: str, options: dict[str, Any]) -> Pass:
    """A pass from its name and options, each checked against the field's type."""
    cls = find(name)
    known, hints = cls.options(), typing.get_type_hints(cls)
    for key in options:
        if key not in known:
            raise UsageError(
                f"pass {name!r} has no option {key!r}",
                hint=did_you_mean(key, known, f"options: {', '.join(known) or 'none'}"),
                name=name,
                option=key,
            )
    return cls(**{k: coerce(v, hints[k], f"{name}{{{k}}}") for k, v in options.items()})


def coerce(value: Any, hint: Any, where: str) -> Any:
    """``value`` as the annotated type of an option, or :class:`UsageError`."""
    alternatives = get_args(hint) if get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    for alternative in alternatives:
        fitted = _fit(value, alternative)
        if fitted is not _MISFIT:
            return fitted
    words = [word for a in alternatives if get_origin(a) is Literal for word in get_args(a)]
    raise UsageError(
        f"option {where} cannot be {value!r}",
        hint=did_you_mean(str(value), words, f"expected {_describe(hint)}"),
        option=where, value=value,
    )  # fmt: skip


_MISFIT = object()


def _fit(value: Any, hint: Any) -> Any:
    if hint is Any:
        return value
    if get_origin(hint) is Literal:
        return value if value in get_args(hint) else _MISFIT
    if get_origin(hint) is tuple:
        items = value if isinstance(value, (list, tuple)) else (value,)
        fitted = tuple(_fit(item, get_args(hint)[0]) for item in items)
        return _MISFIT if any(item is _MISFIT for item in fitted) else fitted
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint in (int, float) and isinstance(value, bool):
        return _MISFIT
    if hint is type(None) or hint is None:
        return None if value is None else _MISFIT
    return value if isinstance(hint, type) and isinstance(value, hint) else _MISFIT


def _describe(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(str, get_args(hint)))
    if get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(_describe(a) for a in get_args(hint))
    if hint is bool:
        return "true or false"
    return "none" if hint is type(None) else getattr(hint, "__name__", str(hint))


def is_required(option: dataclasses.Field[Any]) -> bool:
    """Whether an option has no default."""
    return option.default is dataclasses.MISSING and option.default_factory is dataclasses.MISSING


def default_of(option: dataclasses.Field[Any]) -> Any:
    """The default of an option; ``MISSING`` where it has none."""
    return option.default_factory() if option.default_factory is not dataclasses.MISSING else option.default
