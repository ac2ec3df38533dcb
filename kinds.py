"""Kinds of nodes by their names in the sources (ATen overloads, ONNX op types), and the ops that they spell.

A kind that no table names is pinned, unless ATen itself says that it acts on elements alone.  torch and onnx are
imported only for names that the tables do not hold.  Start at :func:`described`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .ir.frontends import fx_names, onnx_names
from .ir.opset import OPS

_TABLES = {"ATen": fx_names.NAMES, "ONNX": onnx_names.NAMES}
_PINNED = (
    "no op says what it means: whatever it reads is pinned, which costs only size (`prunec analyze` says how much)"
)


def described(name: str) -> list[str]:
    """Lines on the kinds that ``name`` means, with or without overload: ``Gemm``, ``aten.gru.input``, ``conv2d``."""
    name = name.removeprefix("torch.ops.")
    found = [
        _spelled(source, kind, spelling.op)
        for source, table in _TABLES.items()
        for kind, spelling in table.items()
        if name in _short(kind)
    ]
    return found or _in_aten(name) or _in_onnx(name) or _custom(name)


def names() -> Iterator[str]:
    """Every kind that the tables name."""
    for table in _TABLES.values():
        yield from table


def _short(kind: str) -> tuple[str, ...]:
    """The ways to say a kind: ``aten.gru.input``, ``aten.gru`` and ``gru``."""
    parts = kind.split(".")
    return (kind, ".".join(parts[:2]), parts[1]) if parts[0] == "aten" else (kind,)


def _spelled(source: str, kind: str, op: str) -> str:
    help = f": {OPS[op].help.splitlines()[0]}" if op in OPS else ""
    return f"{source} {kind} is op {op}{help}  (a form that the op does not cover is pinned)"


def _in_aten(name: str) -> list[str]:
    """Overloads that exist, though no table names them."""
    parts = name.split(".")
    if parts[0] != "aten" or len(parts) < 2:
        return []
    import torch

    packet: Any = getattr(torch.ops.aten, parts[1], None)
    overloads = [] if packet is None else [o for o in packet.overloads() if parts[2:] in ([], [o])]
    return [_untabled(getattr(packet, o)) for o in overloads]


def _untabled(overload: Any) -> str:
    from .ir.frontends.fx import pointwise

    spelling = pointwise(overload)
    return f"ATen {overload}: {_PINNED}" if spelling is None else _spelled("ATen", str(overload), spelling.op)


def _in_onnx(name: str) -> list[str]:
    """An op type of the default domain that exists, though no table names it."""
    import onnx

    return [f"ONNX {name}: {_PINNED}"] if onnx.defs.has(name) else []


def _custom(name: str) -> list[str]:
    """Anything that is written like an op of another namespace or domain; a module of torch is not."""
    written = "::" in name or (name.count(".") == 2 and not name.startswith(("aten.", "torch.")))
    return [f"{name}: {_PINNED}"] if written else []
