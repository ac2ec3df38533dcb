"""A batch norm in evaluation as a scale and a shift of each channel."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..ir import arrays
from ..ir.graph import Graph, Node, Value

Vector = NDArray[np.float64]


def affine(graph: Graph, norm: Node) -> tuple[Vector, Vector]:
    """Scale and shift of each channel of a batch norm whose weight, bias and statistics are constants."""
    weight, bias, mean, var = (numbers(graph, v) for v in norm.inputs[1:5])
    assert mean is not None and var is not None
    scale = (1.0 if weight is None else weight) / np.sqrt(var + float(norm.attrs["eps"]))
    return scale, (0.0 if bias is None else bias) - mean * scale


def numbers(graph: Graph, value: Value | None) -> Vector | None:
    """A constant in float64; None where there is none."""
    held = None if value is None else graph.constants.get(value)
    return None if held is None else arrays.to_numpy(held.data).astype(np.float64)
