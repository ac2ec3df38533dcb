"""The one runner of pipelines: it checks what passes require and ensure, times them, and says which one failed.

A fact that a pass requires and no earlier pass ensured is provided by the pass that ensures it, when that pass decides
nothing for the user (an analysis, or canonicalize): the one that stands later in the pipeline, before any rewrite, else
one with default options.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Any

from ..ir.errors import ModelError, PassError, PrunecError, UsageError
from ..ir.graph import Graph
from ..ir.printer import print_graph
from .base import PASSES, Pass, Progress, State
from .check import broken
from .values import carried_back, kept

_AUTOMATIC = ("analysis", "rewrite")


@dataclass(frozen=True)
class Step:
    """One pass that ran: its options that are no defaults, and its seconds."""

    name: str
    options: dict[str, Any]
    seconds: float


@dataclass
class Runner:
    """Runs passes over a state.

    verify_each: run ``verify`` after each rewrite of the plan, with the options that the pipeline gives it.
    print_after: names of passes (or ``all``) after which the graph goes to ``show``.  progress: told the name of each
    pass as it starts.  skip: names of passes that are left out.
    """

    verify_each: bool = False
    print_after: tuple[str, ...] = ()
    progress: Progress = lambda stage, detail: None
    show: Callable[[str], None] = lambda text: None
    steps: list[Step] = field(default_factory=list)
    ensured: set[str] = field(default_factory=set)
    skip: frozenset[str] = frozenset()
    _verifier: Pass | None = None

    def run(self, passes: Iterable[Pass], state: State) -> State:
        """Run ``passes`` in order.

        Raises
        ------
        UsageError
            A requirement that no automatic pass provides, a pass that may not stand there, or one that must follow and
            does not.
        PassError
            A pass crashed or broke an invariant; the message names it and those before it.
        """
        passes = list(passes)
        self._verifier = next((p for p in passes if "verified" in p.ensures), None) or PASSES["verify"]()
        _check_expected(passes)
        waiting = [p for p in passes if p.name not in self.skip]
        while waiting:
            step = waiting.pop(0)
            self._provide(step, state, waiting)
            self._one(step, state)
        return state

    def _provide(self, step: Pass, state: State, waiting: list[Pass]) -> None:
        """Run what ``step`` requires, out of those ``waiting`` where it stands there."""
        if forbidden := step.forbids & self.ensured:
            raise UsageError(
                f"pass {step.name!r} cannot follow a pass that ensures {', '.join(sorted(forbidden))} "
                f"(before it: {self._before()}): indices and proof are those of the source",
                hint=self._before_hint(step, forbidden),
            )
        for fact in sorted(step.requires - self.ensured):
            makers = [
                p for p in PASSES.values() if fact in p.ensures and p.kind in _AUTOMATIC and not p.requires_choice
            ]
            if not makers:
                givers = [p.name for p in PASSES.values() if fact in p.ensures - p.requires]
                raise UsageError(
                    f"pass {step.name!r} requires {fact!r}, which no pass before it ensures "
                    f"(before it: {self._before() or 'none'})",
                    hint=f"put {' or '.join(givers)} before it" if givers else "no pass ensures it",
                )
            soon = takewhile(lambda p: p.kind != "rewrite", waiting)
            maker = next((p for p in soon if type(p) in makers), None)
            if maker is None:
                maker = makers[0]()
            else:
                waiting.remove(maker)
            self._provide(maker, state, waiting)
            self._one(maker, state)

    def _before_hint(self, step: Pass, forbidden: Collection[str]) -> str:
        """Where ``step`` may stand: before the first pass that ensured what it forbids, unless it is one of them."""
        makers = [s.name for s in self.steps if PASSES[s.name].ensures & set(forbidden)]
        if step.name in makers:
            return "compile what came out again, in a compile of its own"
        return f"put {step.name} before {makers[0]}"

    def _one(self, step: Pass, state: State) -> None:
        self.progress(step.name, "")
        start = time.perf_counter()
        before = state.deployed if step.inference_only else state.graph
        try:
            result = step.run(replace(state, graph=before) if step.inference_only else state)
        except PrunecError:
            raise
        except MemoryError as error:
            raise ModelError(
                f"pass {step.name!r} needs more memory than there is: {error}",
                hint="check the sizes that the model declares; give smaller example inputs, or a larger machine",
            ) from error
        except Exception as error:
            raise PassError(
                f"pass {step.name!r} crashed: {type(error).__name__}: {error} "
                f"(passes before it: {self._before() or 'none'})",
                hint="this is a bug in prunec; please report it with the reproducer",
                name=step.name,
            ) from error
        self._store(step, state, result, before)
        self.steps.append(Step(step.name, step.chosen(), time.perf_counter() - start))
        self.ensured |= step.ensures
        if step.kind == "rewrite":
            if step.name in self.print_after or "all" in self.print_after:
                self.show(f"after {step.name}:\n{print_graph(result)}")
            if self.verify_each and self._verifier and "plan" in self.ensured and "verified" not in step.ensures:
                self._verifier.run(state)

    def _store(self, step: Pass, state: State, result: Any, before: Graph) -> None:
        if step.kind != "rewrite":
            self._state_facts(step, state, result)
            return
        if problem := broken(result, before):
            raise PassError(
                f"pass {step.name!r} broke the graph: {problem} (passes before it: {self._before() or 'none'})",
                hint="this is a bug in prunec; please report it with the reproducer",
                name=step.name,
            )
        if step.inference_only:
            state.inference = result
            return
        if state.inference is not None:
            raise UsageError(f"pass {step.name!r} cannot follow a pass for inference only", hint="put fold after it")
        if step.revalues:
            groups = state.facts["groups"]
            state.facts["groups"] = carried_back(groups, kept(state, groups), before, result)
        state.graph = result
        if "canonical" in step.ensures and "groups" not in self.ensured:
            state.dense = result

    def _state_facts(self, step: Pass, state: State, result: Any) -> None:
        """What a pass gave stands under each fact that it ensures; nothing is no fact."""
        if step.ensures and result is None:
            raise PassError(
                f"pass {step.name!r} ensures {', '.join(map(repr, sorted(step.ensures)))} and gave None "
                f"(passes before it: {self._before() or 'none'})",
                hint="its run() must return what later passes require",
                name=step.name,
            )
        for fact in step.ensures:
            state.facts[fact] = result
        if step.kind == "criterion":
            earlier = state.facts.get("scored_by", ()) if "scores" in step.requires else ()
            state.facts["scored_by"] = (*earlier, step)

    def _before(self) -> str:
        return ", ".join(s.name for s in self.steps)


def _check_expected(passes: Sequence[Pass]) -> None:
    """Refuse a pipeline without a pass that an earlier one counts on."""
    for k, step in enumerate(passes):
        wanted = step.expects()
        if wanted and wanted not in {p.name for p in passes[k + 1 :]}:
            raise UsageError(
                f"pass {step.name!r} counts on {wanted!r}, which does not follow",
                hint=f"put {wanted} behind it, after eliminate",
            )
