"""The picture of a graph as SVG: boxes and lines in the colours of the groups that they carry, grey for what stays.

A box shows the axes of its largest parameter as squares, an axis in the colours of its groups.  Every box, line and
square says more when pointed at (``title``).  Start at :func:`drawing`, or :func:`standalone` for a file with a legend.
"""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..ir.words import counted
from ..wording import opaque_lines, pin_text, quantity, spread_text
from .blocks import Block, Chip, Link, Picture
from .layout import Layout, Point, Size, arrange
from .markup import Element, as_xml, tag
from .modules import by_module

_CHAR, _LINE, _ROW = 6.2, 14.0, 16.0
"""Width of a character of the drawing's font, height of its lines and of those of the legend, in pixels."""
_WIDEST, _LONGEST = 40, 130
"""Characters of a label, and of a line of the legend, that are shown; all is told when it is pointed at."""
_SQUARE, _STRIPE, _MARGIN = 11.0, 7.0, 20.0
GREY = "#9a9a9a"
NAMESPACE = "http://www.w3.org/2000/svg"
STYLE = Path(__file__).with_name("svg.css").read_text(encoding="utf-8")


def colour(number: int) -> str:
    """The colour of a group: neighbours in number are far apart on the circle of hues."""
    hue, light = number * 0.381966 % 1, (0.42, 0.55, 0.33)[number % 3]
    return "#" + "".join(f"{round(255 * c):02x}" for c in colorsys.hls_to_rgb(hue, light, 0.62))


def drawing(drawn: Picture, names: Sequence[str]) -> Element:
    """The picture as an ``svg`` element; ``names`` are those of the groups."""
    drawn = by_module(drawn, names)
    placed = arrange({b.number: _size(b) for b in drawn.blocks}, [(k.source, k.target) for k in drawn.links])
    width, height = (n + 2 * _MARGIN for n in placed.size)
    root = Element("svg", xmlns=NAMESPACE, width=f"{width:g}", height=f"{height:g}", role="img",
                   viewBox=f"{-_MARGIN:g} {-_MARGIN:g} {width:g} {height:g}")  # fmt: skip
    for link in drawn.links:
        _link(root, link, placed)
    for block in drawn.blocks:
        _box(root, block, placed.corners[block.number])
    return root


def standalone(drawn: Picture, found: Mapping[str, Any], title: str) -> str:
    """An SVG file: the picture, and beside it a legend of groups, of pins and of what is not understood."""
    picture = drawing(drawn, [g["name"] for g in found["groups"]])
    legend, wide, high = _legend(found, title)
    across, down = float(picture.get("width", 0)), float(picture.get("height", 0))
    root = Element("svg", xmlns=NAMESPACE, width=f"{across + wide:g}", height=f"{max(down, high):g}")
    tag(root, "title", title)
    tag(root, "style", STYLE + _lights(len(found["groups"])))
    tag(root, "rect", width="100%", height="100%", fill="#fff")
    picture.set("x", f"{wide:g}")
    root.extend([legend, picture])
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + as_xml(root) + "\n"


# ---------------------------------------------------------------------- boxes and lines


def _shown(text: str, most: int = _WIDEST) -> str:
    """A label that fits: the last parts of a long name tell more than the first."""
    if len(text) <= most:
        return text
    end = text[-most + 1 :]
    return "…" + (end.partition(".")[2] or end)


def _begun(text: str) -> str:
    return text if len(text) <= _WIDEST else text[: _WIDEST - 1] + "…"


def _lines(block: Block) -> list[str]:
    return [_shown(block.title), *([_begun(block.detail)] if block.detail else [])]


def _size(block: Block) -> Size:
    text = max(len(line) for line in _lines(block)) * _CHAR
    squares = sum(_wide(chip) + 2 for chip in block.chips)
    return max(text, squares, 40) + 14, len(_lines(block)) * _LINE + (_SQUARE + 5 if block.chips else 0) + 8


def _wide(chip: Chip) -> float:
    return max(_SQUARE, len(chip.label) * _CHAR + 4, _STRIPE * len(chip.groups))


def _marks(groups: Sequence[int]) -> dict[str, Any]:
    return {"data_groups": " ".join(map(str, groups)), "class_": " ".join(f"g{k}" for k in groups) or "none"}


def _box(root: Element, block: Block, corner: Point) -> None:
    (x, y), (width, height) = corner, _size(block)
    marks = _marks(block.groups)
    marks["class_"] = f"box {marks['class_']}"
    box = tag(root, "g", transform=f"translate({x:g} {y:g})", **marks)
    tag(box, "title", block.about)
    main = GREY if block.main is None else colour(block.main)
    tag(box, "rect", width=f"{width:g}", height=f"{height:g}", rx=4, fill=_tint(main), stroke=main)
    for k, line in enumerate(_lines(block)):
        tag(box, "text", line, x=7, y=f"{(k + 1) * _LINE:g}", class_="name" if k == 0 else "detail")
    left = 7.0
    for chip in block.chips:
        _square(box, chip, left, height - _SQUARE - 5)
        left += _wide(chip) + 2


def _square(box: Element, chip: Chip, x: float, y: float) -> None:
    """A square in stripes of the groups that an axis carries."""
    wide = _wide(chip)
    square = tag(box, "g", class_="axis")
    tag(square, "title", chip.about)
    colours = [colour(k) for k in chip.groups] or [GREY]
    for k, fill in enumerate(colours):
        stripe = wide / len(colours)
        tag(square, "rect", x=f"{x + k * stripe:.1f}", y=f"{y:g}", width=f"{stripe:.1f}", height=_SQUARE, fill=fill)
    tag(square, "text", chip.label, x=f"{x + wide / 2:.1f}", y=f"{y + 8.5:g}", text_anchor="middle")


def _tint(found: str) -> str:
    """The same colour, nearly white."""
    return "#" + "".join(f"{round(255 - (255 - int(found[k : k + 2], 16)) * 0.14):02x}" for k in (1, 3, 5))


def _link(root: Element, link: Link, placed: Layout) -> None:
    marks = _marks(link.groups)
    marks["class_"] = f"line {marks['class_']}"
    line = tag(root, "path", d=_curve(placed.lines[link.source, link.target]), fill="none",
               stroke=colour(link.groups[0]) if link.groups else GREY, **marks)  # fmt: skip
    tag(line, "title", link.about)


def _curve(points: Sequence[Point]) -> str:
    """Curves between rows, straight lines through them."""
    parts = [f"M{points[0][0]:g} {points[0][1]:g}"]
    for k in range(0, len(points) - 1, 2):
        (x, y), (to_x, to_y) = points[k], points[k + 1]
        middle = f"{(y + to_y) / 2:g}"
        parts.append(f"C{x:g} {middle} {to_x:g} {middle} {to_x:g} {to_y:g}")
        if k + 2 < len(points):
            parts.append(f"L{points[k + 2][0]:g} {points[k + 2][1]:g}")
    return "".join(parts)


# ---------------------------------------------------------------------- the legend


@dataclass(frozen=True)
class _Row:
    """A line of the legend; ``fill`` is the colour of its square, ``marks`` its classes."""

    text: str
    fill: str | None = None
    marks: str | None = None


def _legend(found: Mapping[str, Any], title: str) -> tuple[Element, float, float]:
    """The legend and its size."""
    rows = [_Row(title), _Row(""), *map(_key, range(len(found["groups"])), found["groups"])]
    rows += [_Row(""), _Row("pinned: stays as it is", GREY)]
    rows += [_Row(f"{k}. {pin_text(pin)}") for k, pin in enumerate(found["pins"], 1)]
    rows += map(_Row, opaque_lines(found["opaque"]))
    legend = Element("g", {"class": "legend"})
    for j, row in enumerate(rows):
        place = tag(legend, "g", transform=f"translate({_MARGIN:g} {_MARGIN + j * _ROW:g})", class_=row.marks)
        tag(place, "title", row.text)
        if row.fill is not None:
            tag(place, "rect", width=_SQUARE, height=_SQUARE, fill=row.fill)
        tag(place, "text", _cut(row.text), x=17, y=9.5, class_="detail" if j else "name")
    wide = max(len(_cut(row.text)) for row in rows) * _CHAR + 17
    return legend, wide + 2 * _MARGIN, len(rows) * _ROW + 2 * _MARGIN


def _key(k: int, group: Mapping[str, Any]) -> _Row:
    scores = "" if group["scores"] is None else f", scores {spread_text(group['scores'])}"
    share = f"{group['cost']['macs_share']:.1%} of MACs, {quantity('macs', group['cost']['unit_macs'])} a unit"
    text = f"{k + 1} {_shown(group['name'], _LONGEST // 2)}: {counted(group['units'], 'unit')}, {share}{scores}"
    return _Row(text, colour(k), f"key t{k} g{k}")


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _lights(groups: int) -> str:
    """Rules by which pointing at a group in the legend leaves only that group bright."""
    return "".join(f"svg:has(.t{k}:hover) :is(.box,.line):not(.g{k}){{opacity:.1}}\n" for k in range(groups))
