"""What a finished report is worth a word about."""

from __future__ import annotations

from typing import Any

import pytest

import prunec
from prunec.notes import remarks

from .runtime.onnx_models import layers

VERIFIED = {"ok": True, "max_rel_err": 1e-7, "rounding": False, "tolerance": 1e-4}


def report(**changes: Any) -> dict[str, Any]:
    passes = [{"name": name} for name in ("score", "plan", "eliminate", "verify")]
    units = {"removed": 5}
    return {"units": units, "passes": passes, "notes": [], "budget": {}, "verify": VERIFIED, **changes}


@pytest.mark.parametrize(
    ("changes", "notes"),
    [
        ({}, []),
        ({"notes": ["of a pass", "of a pass"]}, ["of a pass"]),
        ({"units": {"removed": 0}}, ["nothing was pruned"]),
        ({"units": {"removed": 0}, "notes": ["nothing was pruned: so"]}, ["nothing was pruned: so"]),
        ({"units": {"removed": 0}, "passes": []}, ["nothing was pruned: the pipeline has no plan"]),
        ({"units": {"removed": 0}, "passes": [{"name": "shrink"}]}, ["nothing was pruned"]),
        (
            {"units": {"removed": 0}, "passes": [{"name": "plan"}]},
            ["nothing was pruned: the pipeline has no eliminate"],
        ),
        ({"budget": {"ratio": {"asked": 0.5, "reached": 0.54}}}, []),
        (
            {"budget": {"ratio": {"asked": 0.5, "reached": 0.12}}},
            [
                "ratio 0.12 was reached where 0.5 was asked: units go in blocks of channels, and floor, ceiling, "
                "targets and ignore bound what may go"
            ],
        ),
        ({"verify": None}, ["verify: not run, so nothing proves that the compact model equals the masked dense one"]),
        (
            {"verify": {**VERIFIED, "max_rel_err": 3e-4, "rounding": True}},
            [
                "verify: rounding explains the error of 3.0e-04 (allowed 0.0001): the masked model moves as "
                "far when its inputs change in the last digits"
            ],
        ),
    ],
)
def test_remarks(changes: dict[str, Any], notes: list[str]) -> None:
    assert remarks(report(**changes)) == notes


def compiled(*widths: int, **options: Any) -> dict[str, Any]:
    return prunec.compile(layers(*widths), **{"measure": False, **options}).report


@pytest.mark.parametrize("pipeline", ["fold,verify", "score,plan{ratio=0.5},verify", "score,plan{ratio=0},eliminate"])
def test_nothing_was_pruned_is_always_said(pipeline: str) -> None:
    assert any(note.startswith("nothing was pruned") for note in compiled(4, 8, 2, pipeline=pipeline)["notes"])


def test_a_model_in_which_everything_is_pinned() -> None:
    found = compiled(4, 2, ratio=0.5)
    assert [note.partition(":")[0] for note in found["notes"]] == ["nothing was pruned"]
    assert found["budget"] == {"ratio": {"asked": 0.5, "reached": 0.0}}


def test_what_was_asked_and_reached_stands_in_the_report() -> None:
    found = compiled(4, 64, 2, pipeline="score,plan{ratio=0.1,ceiling=0.5,align=1},eliminate,verify")
    assert found["budget"] == {"ratio": {"asked": 0.1, "reached": 0.5}}
    assert [note.partition(":")[0] for note in found["notes"]] == ["ratio 0.5 was reached where 0.1 was asked"]
    found = compiled(4, 64, 2, macs=0.5)
    assert found["budget"]["macs"] == {"asked": 0.5, "reached": found["macs"]["ratio"]}
    assert found["notes"] == []


@pytest.mark.parametrize("options", [{"verify": False}, {"pipeline": "score,plan{ratio=0.5},eliminate,fold"}])
def test_a_compile_that_proves_nothing_says_so(options: dict[str, Any]) -> None:
    found = compiled(4, 64, 2, **options)
    assert found["verify"] is None
    assert found["notes"] == ["verify: not run, so nothing proves that the compact model equals the masked dense one"]
