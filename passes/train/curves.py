"""The course of a training as an SVG picture: sparsity, loss and each metric over the epochs, one panel each.

It is one file that loads nothing and needs no library for figures; the same history gives the same bytes.
Start at :func:`curves`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from ...draw.markup import Element, as_xml, tag

Point = tuple[int, float]

_WIDTH, _HEIGHT, _LEFT, _GAP = 560.0, 130.0, 64.0, 44.0
"""Of a panel's inside, and the room beside it and between panels, in pixels."""
_COLOURS = ("#1f5fa8", "#c0504d", "#3b8132", "#8155a6", "#b8761b", "#20808d")
_TICKS = 5
"""About how many marks an axis has."""
_DOTS = 60
"""With more epochs than that, only the line is drawn."""
_STYLE = 'text{font:11px ui-monospace,"DejaVu Sans Mono",Menlo,Consolas,monospace;fill:#333}text.name{font-weight:600}'


def curves(history: Sequence[Mapping[str, Any]], title: str) -> str:
    """An SVG file of ``history``, the entries of a training object; at least one panel has something to show."""
    names = dict.fromkeys(["sparsity", "loss", *(name for entry in history for name in entry if name != "epoch")])
    panels = {name: points for name in names if (points := _points(history, name))}
    first, last = history[0]["epoch"], history[-1]["epoch"]
    width, height = _WIDTH + _LEFT + 24, len(panels) * (_HEIGHT + _GAP) + 60
    root = Element("svg", xmlns="http://www.w3.org/2000/svg", width=f"{width:g}", height=f"{height:g}",
                   viewBox=f"0 0 {width:g} {height:g}", role="img")  # fmt: skip
    tag(root, "title", title)
    tag(root, "style", _STYLE)
    tag(root, "rect", width="100%", height="100%", fill="#fff")
    tag(root, "text", title, x=_LEFT, y=20, class_="name")
    for k, (name, points) in enumerate(panels.items()):
        place = tag(root, "g", transform=f"translate({_LEFT:g} {44 + k * (_HEIGHT + _GAP):g})")
        _panel(place, name, points, (first, last), _COLOURS[k % len(_COLOURS)])
    tag(root, "text", "epoch", x=f"{_LEFT + _WIDTH:g}", y=f"{height - 10:g}", text_anchor="end")
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + as_xml(root) + "\n"


def _points(history: Sequence[Mapping[str, Any]], name: str) -> list[Point]:
    """Epochs and values, those that are there and are numbers."""
    told = ((entry["epoch"], entry.get(name)) for entry in history)
    return [(epoch, float(value)) for epoch, value in told if value is not None and math.isfinite(value)]


def _panel(place: Element, name: str, points: Sequence[Point], epochs: tuple[int, int], colour: str) -> None:
    values = [0.0, 1.0] if name == "sparsity" else [value for _, value in points]
    low, high = _range(values)

    def x(epoch: float) -> float:
        return (epoch - epochs[0]) / max(1, epochs[1] - epochs[0]) * _WIDTH

    def y(value: float) -> float:
        return _HEIGHT * (high - value) / (high - low)

    tag(place, "text", name, x=0, y=-6, class_="name")
    for mark in _marks(low, high):
        tag(place, "path", d=f"M0 {y(mark):.1f}H{_WIDTH:g}", stroke="#ddd")
        text = f"{mark:.0%}" if name == "sparsity" else f"{mark:.10g}"
        tag(place, "text", text, x=-6, y=f"{y(mark) + 4:.1f}", text_anchor="end")
    for mark in _marks(*map(float, epochs)):
        if mark == int(mark):
            tag(place, "text", f"{mark:.0f}", x=f"{x(mark):.1f}", y=f"{_HEIGHT + 15:g}", text_anchor="middle")
    for part in _unbroken(points):
        line = " ".join(f"{x(epoch):.1f},{y(value):.1f}" for epoch, value in part)
        tag(place, "polyline", points=line, fill="none", stroke=colour, stroke_width=1.8)
    for epoch, value in points if len(points) <= _DOTS else ():
        dot = tag(place, "circle", cx=f"{x(epoch):.1f}", cy=f"{y(value):.1f}", r=2.6, fill=colour)
        tag(dot, "title", f"epoch {epoch}: {name} {value:.6g}")


def _unbroken(points: Sequence[Point]) -> list[list[Point]]:
    """Runs of neighbouring epochs: a line does not bridge what was not told."""
    runs = groupby(enumerate(points), key=lambda found: found[1][0] - found[0])
    return [[point for _, point in run] for _, run in runs]


def _range(values: Sequence[float]) -> tuple[float, float]:
    """From the least to the greatest of ``values``, with some room where they are nearly the same."""
    low, high = min(values), max(values)
    size = max(abs(low), abs(high), 1e-300)
    room = 0.0 if high - low > 1e-9 * size else size / 2
    return low - room, high + room


def _marks(low: float, high: float) -> list[float]:
    """Round numbers from ``low`` to ``high``: 1, 2 or 5 times a power of ten apart."""
    if not high > low:
        return [low]
    rough = (high - low) / _TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    apart = next(k * power for k in (1, 2, 5, 10) if k * power >= rough * 0.999)
    return [k * apart for k in range(math.ceil(low / apart - 1e-9), math.floor(high / apart + 1e-9) + 1)]
