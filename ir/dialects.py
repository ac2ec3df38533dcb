"""What belongs to a graph's dialect, found by its name, so that nothing else needs torch or onnx to be imported.

:func:`names` is how the dialect spells ops, :func:`runtime` is what writes and runs its graphs.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from .graph import Graph


def names(graph: Graph) -> Any:
    """The module with the spellings: ``write``, ``make``, ``set_operand``, ``constant``, ``explicit``."""
    return import_module(f".frontends.{graph.dialect}_names", __package__)


def runtime(graph: Graph) -> Any:
    """The module that emits and runs graphs: ``run``, ``sample_inputs``, ``evaluate``; ``DOUBLE`` = float64 works."""
    return import_module(f".emit.{graph.dialect}", __package__)
