"""What is found, in words: figures with their units, layers, pins and ops as the console and drawings show them.

Everything here makes text of plain data.  ``console.py`` prints it and ``draw`` draws it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .ir.words import counted


def quantity(key: str, value: float | None) -> str:
    """A number with its unit, as the tables show it."""
    if value is None:
        return "-"
    if key == "size_bytes":
        return _scaled(value, (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)), "B")
    if key == "latency_ms":
        return f"{value:.3g} ms" if value < 100 else f"{value:.0f} ms"
    return _scaled(value, (("G", 1e9), ("M", 1e6), ("k", 1e3)), "")


def _scaled(value: float, scales: Sequence[tuple[str, float]], unit: str) -> str:
    name, size = next(((n, s) for n, s in scales if value >= s), (unit, 1.0))
    return f"{value / size:,.2f} {name}" if size > 1 else f"{value:,.0f} {name}".rstrip()


def layer_of(parameter: str) -> str:
    """The layer that holds a parameter: its name without the last part.

    >>> layer_of("features.0.weight"), layer_of("cls_token")
    ('features.0', 'cls_token')
    """
    return parameter.rpartition(".")[0] or parameter


def places_text(places: Sequence[tuple[str, int]]) -> str:
    """``qkv.weight:0, qkv.bias:0``, the first three in full."""
    named = [f"{name}:{axis}" for name, axis in places]
    return ", ".join(named[:3]) + (f", ... {len(named) - 3} more" if len(named) > 3 else "")


def spread_text(scores: Mapping[str, float]) -> str:
    """The least, the median and the greatest of a group's scores: ``0.01 / 0.02 / 0.3``."""
    return " / ".join(f"{scores[k]:.2g}" for k in ("min", "median", "max"))


def pin_text(pin: Mapping[str, Any]) -> str:
    """``36 units: aten.select.int 'select' and 35 more, axis 1 of x (qkv.weight:0): selected by its number``."""
    first, *more = map(repr, pin["nodes"])
    where = f"{first} and {len(more)} more" if more else first
    alone = f", {pin['alone']:,} by this alone" if pin["alone"] < pin["units"] else ""
    held = counted(pin["units"], "unit") + alone
    return f"{held}: {pin['cause']} {where}{_axes(pin['axes'])} ({places_text(pin['parameters'])}): {pin['why']}"


def _axes(axes: Sequence[tuple[str, int]]) -> str:
    """``, axis 1 of x``, for the first value that is pinned there."""
    if not axes:
        return ""
    value, found = axes[0][0], [str(axis) for name, axis in axes if name == axes[0][0]]
    return f", ax{'es' if len(found) > 1 else 'is'} {' and '.join(found)} of {value}"


def opaque_lines(opaque: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What is not understood: a line for each kind of op that holds units, then one for all that hold none."""
    for kind in opaque:
        if kind["pins"]:
            shared = "" if kind["cost"] else "; other reasons hold the same ones"
            yield f"opaque   {kind['kind']}: not understood, costs {counted(kind['cost'], 'unit')}{shared}"
            yield from (f"why      {kind['kind']}: {why}" for why in kind["why"])
    free = [kind["kind"] for kind in opaque if not kind["pins"]]
    if free:
        yield f"opaque   not understood, but no unit passes, so they cost 0 units: {', '.join(free)}"
    if not opaque:
        yield "opaque   none"
