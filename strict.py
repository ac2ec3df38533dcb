"""``--strict``: an op that is not understood is an error, and the error prints the declaration to write.

Start at :func:`refuse_opaque`.
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence

from .ir import dialects
from .ir.analysis import analyse
from .ir.errors import ModelError
from .ir.graph import Graph, Node, Value, reads
from .ir.opset import OPS

_LETTERS = string.ascii_lowercase[2:]


def refuse_opaque(graph: Graph) -> None:
    """Raise :class:`ModelError` for ops that are not understood; the hint is for the first of them."""
    found = analyse(graph).opaque
    if not found:
        return
    kinds = sorted({f"{o.kind}: {o.why}" for o in found})
    many = "1 kind of op is" if len(kinds) == 1 else f"{len(kinds)} kinds of ops are"
    raise ModelError(
        f"--strict: {many} not understood: {'; '.join(kinds)}",
        hint=advice(graph, min(found, key=lambda o: (o.kind, o.why)).node),
        ops=kinds,
    )


def advice(graph: Graph, node: Node) -> str:
    """What to write so that ``node`` is understood, on the shapes that it has here."""
    operands = [v for v in dict.fromkeys(reads(node)) if v.is_tensor]
    shapes = f"{', '.join(map(_shape, operands))} -> {', '.join(map(_shape, node.outputs))}"
    table, name = f"ir/frontends/{graph.dialect}_names.py", op_name(node.kind)
    if node.kind in dialects.names(graph).NAMES:
        return f"{node.kind} is known, but not in this form ({shapes}): extend it in {table} or its op in ir/ops"
    spelled = f'spell("{graph.dialect}", "{node.kind}", Spelling("{name}"))'
    plugin = "in a file of yours that --plugin names (docs/adding-an-op.md)"
    if name in OPS:
        return f"if {node.kind} ({shapes}) is what `prunec explain {name}` says, write {spelled} {plugin}"
    return (
        f'for {node.kind} ({shapes}) write declare("{name}", "{signature(operands, node.outputs)}", "What it does."), '
        f"where equal letters live and die together, and {spelled}, {plugin}"
    )


def signature(operands: Sequence[Value], results: Sequence[Value]) -> str:
    """A signature with one letter for each size: a guess to start from; a dynamic axis is ``B``, which is kept."""
    sizes = dict.fromkeys(n for v in (*operands, *results) for n in _prunable(v))
    letters = dict(zip(sizes, _LETTERS))
    sides = (", ".join(_terms(v, letters) for v in side) for side in (operands, results))
    return " -> ".join(sides)


def op_name(kind: str) -> str:
    """The name that an op of this kind would have.

    >>> op_name("aten.gru.input"), op_name("com.microsoft::FastGelu")
    ('gru', 'fast_gelu')
    """
    parts = kind.rpartition("::")[2].split(".")
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", parts[min(1, len(parts) - 1)]).lower()


def _prunable(value: Value) -> list[int]:
    return [n for d, n in enumerate(value.shape or ()) if d not in value.dynamic and n > 1]


def _terms(value: Value, letters: dict[int, str]) -> str:
    if value.shape is None:
        return "*"
    return " ".join("B" if d in value.dynamic else letters.get(n, "N") for d, n in enumerate(value.shape))


def _shape(value: Value) -> str:
    return "?" if value.shape is None else "x".join(map(str, value.shape)) or "scalar"
