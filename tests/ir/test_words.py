from __future__ import annotations

import pytest

from prunec.ir.words import counted, did_you_mean, near


@pytest.mark.parametrize(
    ("number", "said"), [(0, "0 batch norms"), (1, "1 batch norm"), (2, "2 batch norms"), (2000, "2,000 batch norms")]
)
def test_counted(number: int, said: str) -> None:
    assert counted(number, "batch norm") == said


@pytest.mark.parametrize(
    ("name", "found"),
    [("scor", ["score"]), ("Score", ["score"]), ("L2", ["l2"]), ("resnet81", ["resnet18"]), ("nonsense", []), ("", [])],
)
def test_near(name: str, found: list[str]) -> None:
    assert near(name, ["plan", "score", "l1", "l2", "resnet18"]) == found


def test_did_you_mean() -> None:
    known = ["score", "scores", "plan"]
    assert did_you_mean("scor", known) == "did you mean 'score' or 'scores'?"
    assert did_you_mean("scor", known, "or ask") == "did you mean 'score' or 'scores'? or ask"
    assert did_you_mean("scor", known, most=1) == "did you mean 'score'?"
    assert did_you_mean("nothing", known, "known: all") == "known: all"
