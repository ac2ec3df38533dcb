from __future__ import annotations

import math

import pytest

from prunec.ir.errors import UsageError
from prunec.serve.limits import Limits


def test_each_limit_is_documented() -> None:
    assert all(f"\n    {name}\n" in str(Limits.__doc__) for name in Limits.__dataclass_fields__)


@pytest.mark.parametrize("name", ["body_bytes", "connections", "head_s", "batch"])
def test_a_limit_is_positive(name: str) -> None:
    with pytest.raises(UsageError, match=f"the limit {name} cannot be 0"):
        Limits(**{name: 0})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_limit_is_a_number(value: float) -> None:
    with pytest.raises(UsageError, match=f"the limit head_s cannot be {value}"):
        Limits(head_s=value)


def test_a_stop_may_be_without_notice() -> None:
    assert Limits(notice_s=0, grace_s=0).notice_s == 0
    with pytest.raises(UsageError, match="notice_s cannot be -1"):
        Limits(notice_s=-1)


def test_one_request_fits_into_what_all_may_hold() -> None:
    with pytest.raises(UsageError, match="the limit body_bytes is 2,000, and that of all requests 1,000"):
        Limits(body_bytes=2000, json_bytes=10, held_bytes=1000)
