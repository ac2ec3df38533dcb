from __future__ import annotations

import numpy as np
import pytest

from prunec.ir.errors import ModelError
from prunec.runtime.session import Input
from prunec.serve.datatypes import DTYPES, check_served, datatype

from .client import NAMES


def test_all_types_of_the_protocol_have_their_names() -> None:
    assert {datatype(np.dtype(object)), *DTYPES} == set(NAMES.values())
    assert all(datatype(DTYPES[name]) == name for name in DTYPES)


def test_a_type_without_a_name_is_a_model_error_that_names_the_input() -> None:
    with pytest.raises(ModelError, match=r"'z': tensors of complex64 cannot be served.*\n.*cast inputs"):
        check_served(Input("z", np.dtype(np.complex64), (1,)))
