from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from prunec.runtime.session import Input
from prunec.serve.limits import Limits
from prunec.serve.refusal import Refused
from prunec.serve.shapes import Shapes

FLOAT = np.dtype(np.float32)
IMAGE = Input("x", FLOAT, ("N", 3, None, "W"))
LIMITS = Limits(batch=8, axis=32)


@pytest.mark.parametrize("shape", [[1, 3, 4, 4], [8, 3, 32, 0], [2, 3, 0, 32]])
def test_what_fits_is_taken(shape: list[int]) -> None:
    assert Shapes(LIMITS).checked(IMAGE, shape) == tuple(shape)


def test_a_scalar_has_no_axes() -> None:
    assert Shapes(LIMITS).checked(Input("x", FLOAT, ()), []) == ()


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        (None, "has the shape null; a shape is a list"),
        ("1,3", "has the shape '1,3'"),
        ([1, 3, 4], r"has the shape \[1, 3, 4\], and the model declares \[N, 3, \?, W\]; 3 axes for 4"),
        ([1] * 1000, "1000 axes for 4"),
        ([1, 4, 4, 4], "declares .*; axis 1"),
        ([1, 3, -4, 4], "-4 is no size"),
        ([1, 3, 4.0, 4], "4.0 is no size"),
        ([True, 3, 4, 4], "true is no size"),
        ([1, 3, "4", 4], "'4' is no size"),
        ([1, 3, [4], 4], r"and \[4\] is no size"),
        ([1, 3, 10**400, 4], "an integer of 1329 bits is no size"),
        ([1, 3, 2**31, 4], "is no size"),
        ([0, 3, 4, 4], "axis 0 takes 1 to 8"),
        ([9, 3, 4, 4], r"axis 0 takes 1 to 8 \(the server's limit `batch`\)"),
        ([1, 3, 33, 4], r"axis 2 takes 0 to 32 \(the server's limit `axis`\)"),
    ],
)
def test_what_does_not_fit_is_refused(shape: Any, said: str) -> None:
    with pytest.raises(Refused, match=said) as refused:
        Shapes(LIMITS).checked(IMAGE, shape)
    assert refused.value.status == 400


def test_a_symbol_has_one_size_in_all_inputs() -> None:
    shapes = Shapes(LIMITS)
    shapes.checked(IMAGE, [2, 3, 4, 5])
    with pytest.raises(Refused, match=r"input 'y' has the shape \[3, 5\].*; N is 2 in another input"):
        shapes.checked(Input("y", FLOAT, ("N", "W")), [3, 5])
