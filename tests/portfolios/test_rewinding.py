"""The state to rewind to: kept exactly at a step, and near a share of steps that nobody knows beforehand."""

from __future__ import annotations

import pytest
import torch

from prunec.ir.errors import UsageError
from prunec.portfolios.rewinding import AtShare, AtStep, recorder


def seen(rewind: float, total: int) -> tuple[int, int, int]:
    """The step chosen, the number in its state, and how many states were held at most."""
    found, most = recorder(rewind), 0
    for step in range(total + 1):
        found.see(step, lambda step=step: {"x": torch.tensor(step)})  # type: ignore[misc]
        most = max(most, len(found.states) if isinstance(found, AtShare) else 1)
    step, state = found.chosen(total)
    return step, int(state["x"]), most


@pytest.mark.parametrize("step", [0, 1, 7, 20])
def test_a_step_is_kept_exactly(step: int) -> None:
    assert seen(step, 20)[:2] == (step, step)


@pytest.mark.parametrize("share", [0.02, 0.1, 0.3, 0.9])
@pytest.mark.parametrize("total", [40, 168, 1000, 20011])
def test_a_share_is_nearly_kept_and_little_is_held(share: float, total: int) -> None:
    step, held, most = seen(share, total)
    assert step == held
    assert abs(step - share * total) <= max(1.0, 0.15 * share * total)
    assert most <= 20


def test_a_tenth_is_kept_within_seven_hundredths() -> None:
    wrong = [abs(seen(0.1, total)[0] / (0.1 * total) - 1) for total in range(500, 6000, 97)]
    assert max(wrong) < 0.08


def test_a_step_beyond_the_end_is_an_error() -> None:
    with pytest.raises(UsageError, match="took 20 optimizer steps") as caught:
        seen(21, 20)
    assert "0 to 20" in caught.value.hint


def test_what_is_a_share() -> None:
    assert isinstance(recorder(0.5), AtShare) and isinstance(recorder(1), AtStep) and isinstance(recorder(0), AtStep)
