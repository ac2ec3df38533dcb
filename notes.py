"""Notes: what a report's figures mean for the user, in lines that are shown with them.

Passes write notes of their own while they run; these follow from the finished report.  Start at :func:`remarks`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .passes.base import PASSES, revaluing

NOTHING = "nothing was pruned"
_FAR = 0.05
"""A budget that is missed by more than this, on the side where it counts as met, is worth a word."""

_AFTER_PLAN = {
    "layout": "what is made is all that any layer reads (layout)",
    "split": "layers read zeros in parts that they share (split)",
}
"""Passes that change what a plan reached, and how."""


def remarks(report: Mapping[str, Any]) -> list[str]:
    """The notes of a finished report, those of the passes first, each once."""
    removed = report["units"]["removed"]
    own = [*(_off_budget(report) if removed else _nothing(report)), *_verified(report["verify"])]
    return list(dict.fromkeys([*report["notes"], *own]))


def _nothing(report: Mapping[str, Any]) -> Iterator[str]:
    if any(note.startswith(NOTHING) for note in report["notes"]):
        return
    if revaluing(report.get("values") or ()) or _is_packed(report.get("packed") or {}):
        return
    ran = [PASSES[step["name"]] for step in report["passes"] if step["name"] in PASSES]
    made = frozenset[str]().union(*(step.ensures for step in ran))
    wanted = () if "shrunk" in made else (("plan", "plan"), ("eliminate", "compact"))
    absent = next((name for name, fact in wanted if fact not in made), None)
    yield f"{NOTHING}: the pipeline has no {absent}" if absent else NOTHING


def _is_packed(packed: Mapping[str, Any]) -> bool:
    """Whether a tensor of either file is in a packed form."""
    forms = (packed.get("forms") or {}, (packed.get("torch") or {}).get("forms") or {})
    return any(count for found in forms for form, count in found.items() if form != "dense")


def _off_budget(report: Mapping[str, Any]) -> Iterator[str]:
    ran = {step["name"] for step in report["passes"]}
    after = [text for name, text in _AFTER_PLAN.items() if name in ran]
    for name, found in report["budget"].items():
        if abs(found["reached"] - found["asked"]) > _FAR:
            why = ", ".join(["units go in blocks of channels", *after])
            yield (
                f"{name} {found['reached']:.3g} was reached where {found['asked']:.3g} was asked: {why}, and floor, "
                "ceiling, targets and ignore bound what may go"
            )


def _verified(verify: Mapping[str, Any] | None) -> Iterator[str]:
    if verify is None:
        yield "verify: not run, so nothing proves that the compact model equals the masked dense one"
    elif verify.get("rounding"):
        yield (
            f"verify: rounding explains the error of {verify['max_rel_err']:.1e} (allowed "
            f"{verify['tolerance']:g}): the masked model moves as far when its inputs change in the last digits"
        )
