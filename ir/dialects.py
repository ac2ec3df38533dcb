"""What belongs to a graph's dialect, found by its name, so that nothing else needs torch or onnx to be imported.

:func:`names` is how the dialect spells ops, :func:`runtime` is what writes and runs its graphs; :func:`spell` teaches a
dialect one kind of node more.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from .frontends.spelling import Spelling
from .graph import Graph

DIALECTS = ("fx", "onnx")


def names(graph: Graph) -> Any:
    """The module with the spellings: ``write``, ``make``, ``set_operand``, ``constant``, ``explicit``, ``SHARED``."""
    return import_module(f".frontends.{graph.dialect}_names", __package__)


def runtime(graph: Graph) -> Any:
    """The module that emits, runs and observes graphs, and makes inputs for them; ``DOUBLE`` = float64 works."""
    return import_module(f".emit.{graph.dialect}", __package__)


def spell(dialect: str, kind: str, spelling: Spelling) -> None:
    """Enter how a dialect spells an op: an overload (``acme.scale.default``) for ``fx``, ``domain::Op`` for ``onnx``.

    Raises ``ValueError`` for a kind that is spelled already, and for a dialect that there is not.
    """
    if dialect not in DIALECTS:
        raise ValueError(f"there is no dialect {dialect!r}, but {' and '.join(DIALECTS)}")
    table = import_module(f".frontends.{dialect}_names", __package__).NAMES
    if kind in table:
        raise ValueError(f"{kind} is spelled already: it is op {table[kind].op!r}")
    table[kind] = spelling
