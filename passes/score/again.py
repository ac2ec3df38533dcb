"""Scores computed anew on what remains of a network.

The passes that gave the scores give them again: those of the pipeline that ensure ``scores``, in order, from the one
that needs none before it.  Start at :func:`scored_again`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ...ir.errors import UsageError
from ..base import Pass, State
from ..groups import Groups
from .scoring import Scores


def scored_again(state: State, groups: Groups, asking: str) -> Scores:
    """A score for each unit of ``groups``, which are what remains of those of ``state``; ``asking`` is for messages.

    Raises
    ------
    UsageError
        No pass gave the scores of ``state``: they are values, which nothing computes anew.
    """
    scorers: Sequence[Pass] = state.facts.get("scored_by", ())
    if not scorers:
        raise UsageError(
            f"{asking}: the scores are given as values, and no pass of the pipeline computes them anew",
            hint="let a criterion give them (score{method=…}, or package.module:function), or leave steps out",
        )
    graph = groups.analysis.graph
    again = replace(state, dense=graph, graph=graph, facts={**state.facts, "groups": groups}, notes=[])
    for step in scorers:
        again.facts["scores"] = step.run(again)
    state.notes += [note for note in again.notes if note not in state.notes]
    scores: Scores = again.facts["scores"]
    return scores
