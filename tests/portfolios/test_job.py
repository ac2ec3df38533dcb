"""What ``--levels`` means, and jobs that make no sense."""

from __future__ import annotations

from typing import Any

import pytest

from prunec.ir.errors import UsageError
from prunec.portfolios.job import Job, densities


def test_a_number_of_levels() -> None:
    assert densities("3") == pytest.approx((0.8, 0.64, 0.512))
    assert densities("2", 0.5) == (0.5, 0.25)


def test_densities_themselves() -> None:
    assert densities("0.8, 0.5,0.2") == (0.8, 0.5, 0.2)
    assert densities("0.3") == (0.3,)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0", "no level"),
        ("a,b", "cannot be 'a,b'"),
        ("0.5,0.8", "do not fall"),
        ("0.5,0.5", "do not fall"),
        ("1.5,0.5", "cannot be 1.5"),
        ("0.5,0", "cannot be 0"),
        ("-3", "cannot be -3"),
        ("nan", "cannot be nan"),
    ],
)
def test_what_is_neither_is_said(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        densities(text)
    assert "--levels" in caught.value.hint


def test_a_share_that_is_none() -> None:
    with pytest.raises(UsageError, match="--keep cannot be 1"):
        densities("3", 1.0)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"of": "layers"}, "--of cannot be 'layers'"),
        ({"rewind": -1}, "--rewind cannot be -1"),
        ({"rewind": 1.5}, "--rewind cannot be 1.5"),
        ({"rewind": float("nan")}, "--rewind cannot be nan"),
        ({"rewind": float("inf")}, "--rewind cannot be inf"),
        ({"threads": 0}, "--threads cannot be 0"),
    ],
)
def test_a_job_that_makes_no_sense(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Job("net.onnx", (0.5,), **options)


def test_levels_have_names() -> None:
    assert Job("net.onnx", (0.5, 0.2), rewind=2000).levels == [("level-1", 0.5), ("level-2", 0.2)]
