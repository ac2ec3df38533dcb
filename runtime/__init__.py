"""The runtime: ONNX Runtime sessions and latency measured on them."""

from .profile import Comparison, Latency, compare, measure
from .session import Input, Session, available_cores, declared_inputs, feeds_for

__all__ = [
    "Comparison",
    "Input",
    "Latency",
    "Session",
    "available_cores",
    "compare",
    "declared_inputs",
    "feeds_for",
    "measure",
]
