"""The way to a budget."""

from __future__ import annotations

import numpy as np
import pytest

from prunec.passes.schedule import share


@pytest.mark.parametrize("kept", [0.02, 0.5, 1.0])
def test_from_all_to_what_is_kept(kept: float) -> None:
    exponential, linear = ([share(kept, t, 4, how) for t in range(5)] for how in ("exponential", "linear"))
    np.testing.assert_allclose([exponential[0], exponential[-1]], [1, kept])
    np.testing.assert_allclose(np.divide(exponential[1:], exponential[:-1]), kept**0.25)
    np.testing.assert_allclose(linear, np.linspace(1, kept, 5))
