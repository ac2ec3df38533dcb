"""Criteria on cases worked out by hand."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

import prunec
from prunec.ir.errors import ModelError, UsageError
from prunec.passes.base import State
from prunec.passes.groups import groups_of
from prunec.passes.parameter import Parameter
from prunec.passes.score.scoring import CRITERIA, Score, Scores, Scoring, find_criterion
from prunec.passes.target import find_target

from ..models import oracle
from .subjects import mlp, scored, total, two_units
from .test_layout import stream

RAW = "score{{method={},normalize=none}}"


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("l1", [3 + 4 + 12, 1 + 2 + 2]),
        ("l2", [np.sqrt(9 + 16 + 144), np.sqrt(1 + 4 + 4)]),
        ("lamp", [9 / 25 + 16 / 16 + 144 / 144, 1 / 26 + 4 / 148]),
        ("fpgm", [np.sqrt(9 + 9), np.sqrt(9 + 9)]),
        # h = (11, 4), y = 12·11 - 2·4: dL/dW2 = 2h, dL/dW1 = W2ᵀ·2x, dL/db1 = 2·W2
        ("taylor", [12 * 22 + 3 * 24 + 4 * 48, 2 * 8 + 1 * 8 + 2 * 4]),
    ],
)
def test_by_hand(method: str, expected: list[float]) -> None:
    np.testing.assert_allclose(scored(two_units(), RAW.format(method), loss=total), expected)


def test_bn_gamma() -> None:
    np.testing.assert_allclose(scored(two_units(norm=True), RAW.format("bn_gamma")), [0.25, 0.75])
    np.testing.assert_allclose(scored(two_units(), RAW.format("bn_gamma")), [1, 1])


def test_fpgm_ranks_the_channels_that_a_layer_reads() -> None:
    """Where each layer chooses its own, a unit is what reads a channel: no filter is its own."""
    subject = stream()
    groups = groups_of(subject.graph, "unconstrained")
    state = State(subject.graph, subject.graph, find_target("generic"), facts={"groups": groups})
    scores = Score(method="fpgm", normalize="none").run(state)
    assert all(np.unique(scores[g.units]).size > 1 for g in groups.groups)


def test_fpgm_of_three_filters() -> None:
    """The one in the middle is the most replaceable."""
    first = nn.Linear(2, 3)
    model = nn.Sequential(first, nn.Linear(3, 1)).double()
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[0.0, 0.0], [3.0, 4.0], [6.0, 8.0]]))
    subject = oracle.subject(model, (torch.randn(2, 2).double(),))
    np.testing.assert_allclose(scored(subject, RAW.format("fpgm")), [15, 10, 15])


def test_taylor_without_a_loss_is_the_mean_square_of_the_outputs() -> None:
    """Two equal rows: dL/dy is y in each, so the scores are those of the sum, times y."""
    subject = two_units()
    y = float(oracle.call(subject.module, subject.inputs)[0])
    np.testing.assert_allclose(scored(subject, RAW.format("taylor")), [528 * abs(y), 32 * abs(y)])


def test_a_criterion_sums_over_everything_that_goes_with_a_unit() -> None:
    """A residual stream counts in every layer that reads or writes it."""
    subject = oracle.known("residual")
    elements = scored(subject, "score{method=" + f"{__name__}:elements" + ",normalize=none}")
    groups = {len(g): elements[np.searchsorted(subject.groups.prunable, g.units)] for g in subject.groups.groups}
    stem = 3 * 9 + 4 + 6 * 9 + 6 * 9 + 4 + 10 * 9 + 12 * 1  # own filter, two batch norms, and what reads or adds
    batch_norms_without_statistics = 2 * 2
    assert set(groups[8].tolist()) == {stem - 8 + batch_norms_without_statistics}


def elements(scoring: Scoring) -> Scores:
    """How many elements a unit has."""
    return scoring.total(lambda p: np.ones(p.data.shape))


@pytest.mark.parametrize(("how", "expected"), [("mean", [19 / 12, 5 / 12]), ("max", [1, 5 / 19]), ("none", [19, 5])])
def test_normalized_within_each_group(how: str, expected: list[float]) -> None:
    np.testing.assert_allclose(scored(two_units(), f"score{{method=l1,normalize={how}}}"), expected)


def test_per_multiply_accumulate() -> None:
    """A hidden unit costs 2 MACs in and 1 out, for each of two rows."""
    found = scored(two_units(), "score{method=l1,normalize=none,per=macs}")
    np.testing.assert_allclose(found, [19 / 6, 5 / 6])


def test_random_is_reproducible() -> None:
    subject = mlp(4, 8, 2)
    first, again, other = (scored(subject, RAW.format("random"), seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_a_users_criterion_by_decorator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prunec.passes.score.scoring.CRITERIA", CRITERIA)

    @prunec.criterion("test_elements")
    def mine(scoring: Scoring) -> Scores:
        """How many elements a unit has."""
        return scoring.total(lambda p: np.ones(p.data.shape))

    try:
        np.testing.assert_array_equal(scored(two_units(), RAW.format("test_elements")), [4, 4])
    finally:
        del CRITERIA["test_elements"]


def test_a_users_criterion_by_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_criteria.py").write_text("def first(scoring):\n    return -scoring.zeros().cumsum() + 7.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    np.testing.assert_array_equal(scored(two_units(), RAW.format("my_criteria:first")), [7, 7])
    with pytest.raises(UsageError, match="cannot be imported"):
        scored(two_units(), RAW.format("my_criteria:absent"))


def test_a_users_criterion_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed command does not look there by itself."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [p for p in sys.path if p])
    text = "import prunec\n@prunec.criterion('prunec_test_mine')\ndef mine(s):\n    return s.zeros() + 7\n"
    (tmp_path / "prunec_test_here.py").write_text(text)
    try:
        for name in ("prunec_test_here:mine", "prunec_test_here.py:mine", "prunec_test_here.py:mine"):
            np.testing.assert_array_equal(scored(two_units(), RAW.format(name)), [7, 7])
    finally:
        CRITERIA.pop("prunec_test_mine", None)


@pytest.mark.parametrize(
    ("text", "message"),
    [("1 / 0", "ZeroDivisionError: division by zero"), ("import absent_package", "No module named 'absent_package'")],
)
def test_a_users_module_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prunec_test_fails.py").write_text(text)
    for name in ("prunec_test_fails:f", "prunec_test_fails.py:f"):
        with pytest.raises(UsageError, match="cannot be imported") as error:
            find_criterion(name)
        assert message in error.value.message
    with pytest.raises(UsageError, match=r"there is no file absent\.py"):
        find_criterion("absent.py:f")


def test_two_criteria_of_one_name() -> None:
    with pytest.raises(ValueError, match="two criteria are named 'l2'"):
        prunec.criterion("l2")(of_the_wrong_shape)


def of_the_wrong_shape(scoring: Scoring) -> Scores:
    return np.zeros(1)


def not_finite(scoring: Scoring) -> Scores:
    scores: Scores = scoring.zeros() / np.array([0, 1])
    return scores


def writes(scoring: Scoring) -> Scores:
    """Into the user's own model, were it not for the check."""

    def halved(p: Parameter) -> NDArray[Any]:
        p.data[...] *= 0.5
        return p.data

    return scoring.total(halved)


def writes_rows(scoring: Scoring) -> Scores:
    def halved(rows: NDArray[Any]) -> NDArray[Any]:
        rows *= 0.5
        return rows

    return scoring.total_by_rows(lambda p: halved)


def raises(scoring: Scoring) -> Scores:
    raise KeyError("head")


WRONG: dict[str, tuple[Any, str]] = {
    "raises": (raises, "failed: KeyError: 'head'"),
    "writes": (writes, "failed: ValueError: output array is read-only"),
    "writes_rows": (writes_rows, "failed: ValueError: output array is read-only"),
    "not_finite": (not_finite, "gave NaN or infinite scores for 1 unit"),
    "of_the_wrong_shape": (of_the_wrong_shape, "gave scores of shape (1,) for 2 units"),
    "a_number": (lambda s: 1.0, "gave scores of shape () for 2 units"),
    "nothing": (lambda s: None, "gave a NoneType, which is no array of floats"),
    "words": (lambda s: np.array(["a", "b"]), "gave <U1, which is no array of floats"),
    "complex": (lambda s: s.zeros() + 1j, "gave complex128, which is no array of floats"),
    "with_gradient": (lambda s: torch.zeros(2, requires_grad=True), "gave a Tensor, which is no array of floats"),
    "ragged": (lambda s: [[1.0], [1.0, 2.0]], "gave a list, which is no array of floats"),
}


@pytest.mark.filterwarnings("ignore:invalid value encountered in divide")
@pytest.mark.parametrize("name", WRONG)
def test_a_users_criterion_that_is_wrong_is_named(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """It is neither a bug in prunec nor the model's fault."""
    function, message = WRONG[name]
    monkeypatch.setitem(CRITERIA, f"test_{name}", function)
    with pytest.raises(UsageError) as error:
        scored(two_units(), RAW.format(f"test_{name}"))
    assert error.value.message == f"scoring: criterion 'test_{name}' {message}"
    assert "an array of one finite float for each unit" in error.value.hint


def test_a_criterion_of_ours_blames_the_model() -> None:
    subject = two_units()
    constant = next(c for c in subject.graph.constants.values() if c.role == "parameter")
    with torch.no_grad():
        constant.data.fill_(np.nan)
    with pytest.raises(ModelError, match=r"'l2' gave NaN or infinite scores .*; parameter '0\.weight' is not finite"):
        scored(subject, RAW.format("l2"))
    with pytest.raises(ModelError, match="is not finite"):
        scored(subject, RAW.format(f"{__name__}:by_weights"))
    with pytest.raises(ModelError, match="the loss is nan"):
        scored(two_units(), RAW.format("taylor"), loss=lambda y: total(y) * np.nan)


def by_weights(scoring: Scoring) -> Scores:
    return scoring.total(lambda p: p.data)


def test_what_a_criterion_refuses_itself_stands() -> None:
    def refuses(scoring: Scoring) -> Scores:
        raise ModelError("no labels here")

    CRITERIA["test_refuses"] = refuses
    try:
        with pytest.raises(ModelError, match=r"^no labels here$"):
            scored(two_units(), RAW.format("test_refuses"))
    finally:
        del CRITERIA["test_refuses"]


def test_a_list_of_whole_numbers_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CRITERIA, "test_list", lambda s: [2, 1])
    np.testing.assert_array_equal(scored(two_units(), RAW.format("test_list")), [2, 1])


def test_refusals() -> None:
    with pytest.raises(UsageError, match="unknown criterion 'nonsense'") as error:
        scored(two_units(), RAW.format("nonsense"))
    assert "bn_gamma" in error.value.hint
    with pytest.raises(UsageError, match="cannot be 'mode'"):
        scored(two_units(), "score{normalize=mode}")
