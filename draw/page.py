"""The drawing as a page: the picture, and beside it what the findings say of each group.

Pointing at a box, a line or a row lights the groups that it carries; a click keeps them lit and shows all about them.
Without scripts the picture, the table and the reasons still stand there.  Start at :func:`page`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..findings import SPREAD
from ..ir.words import counted
from ..wording import opaque_lines, pin_text, quantity, spread_text
from .blocks import Picture
from .markup import Element, as_html, tag
from .svg import STYLE, colour, drawing

_HERE = Path(__file__)
_PAGE_STYLE = _HERE.with_name("page.css").read_text(encoding="utf-8")
_SCRIPT = _HERE.with_name("page.js").read_text(encoding="utf-8")
_ALONE = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
"""What a browser may load for this page: nothing."""
_BAR, _HIGH = 70, 12
_HELP = (
    "A box is a layer with what follows it, or a join; its squares are the axes of its largest parameter. Colours are "
    "groups, grey stays as it is. Point at anything to light its groups; click to keep them lit; Escape lets go."
)


def page(drawn: Picture, found: Mapping[str, Any], title: str) -> str:
    """An HTML page that stands alone."""
    root = Element("html", lang="en")
    head = tag(root, "head")
    tag(head, "meta", charset="utf-8")
    tag(head, "meta", http_equiv="Content-Security-Policy", content=_ALONE)
    tag(head, "title", f"{title}: groups")
    tag(head, "style", STYLE + _PAGE_STYLE)
    body = tag(root, "body")
    tag(body, "main").append(drawing(drawn, [g["name"] for g in found["groups"]]))
    side = tag(body, "aside")
    tag(side, "h1", title)
    tag(side, "p", _summary(found))
    tag(side, "p", _HELP, class_="help")
    tag(side, "pre", id="about", hidden="hidden")
    for k, group in enumerate(found["groups"]):
        _about(side, k, group, found["pins"])
    _table(side, found)
    _reasons(side, found)
    tag(body, "script", _SCRIPT)
    return "<!DOCTYPE html>\n" + as_html(root) + "\n"


def _summary(found: Mapping[str, Any]) -> str:
    return (
        f"{counted(found['units'], 'unit')} can be removed, {found['pinned']:,} are pinned; "
        f"{quantity('macs', found['macs'])} MACs, {quantity('macs', found['params'])} parameters"
    )


def _table(side: Element, found: Mapping[str, Any]) -> None:
    tag(side, "h2", counted(len(found["groups"]), "group"))
    table = tag(side, "table")
    head = tag(tag(table, "thead"), "tr")
    for text in ("", "group", "units", f"scores ({found['criterion']})", "MACs a unit", "of MACs"):
        tag(head, "th", text)
    rows = tag(table, "tbody")
    for k, group in enumerate(found["groups"]):
        row = tag(rows, "tr", data_groups=k, tabindex=0)
        tag(tag(row, "td"), "b", str(k + 1), style=f"background:{colour(k)}")
        tag(row, "td", group["name"], class_="name")
        tag(row, "td", f"{group['units']:,}")
        _bar(tag(row, "td"), group["scores"], colour(k))
        tag(row, "td", quantity("macs", group["cost"]["unit_macs"]))
        tag(row, "td", f"{group['cost']['macs_share']:.1%}")


def _bar(cell: Element, scores: Mapping[str, float] | None, fill: str) -> None:
    """From the least to the greatest score a line, between the quartiles a box, at the median a mark."""
    if scores is None:
        cell.text = "-"
        return
    low, high = min(0.0, scores["min"]), max(scores["max"], 0.0)
    x = {k: 1 + (_BAR - 2) * ((scores[k] - low) / (high - low) if high > low else 0.5) for k in SPREAD}
    bar = tag(cell, "svg", width=_BAR, height=_HIGH)
    tag(bar, "title", spread_text(scores))
    tag(bar, "path", d=f"M{x['min']:.1f} {_HIGH / 2:g}H{x['max']:.1f}", stroke=fill)
    wide = max(x["upper"] - x["lower"], 1.0)
    tag(bar, "rect", x=f"{x['lower']:.1f}", y=2, width=f"{wide:.1f}", height=_HIGH - 4, fill=fill, opacity=0.5)
    tag(bar, "path", d=f"M{x['median']:.1f} 1V{_HIGH - 1}", stroke="#222")


def _about(side: Element, k: int, group: Mapping[str, Any], pins: list[Mapping[str, Any]]) -> None:
    """All about one group; shown when it is chosen."""
    about = tag(side, "section", id=f"group-{k}", hidden="hidden")
    tag(about, "h3", f"{k + 1} {group['name']}", style=f"border-color:{colour(k)}")
    tag(about, "p", f"{counted(group['units'], 'unit')}, each at least {counted(group['span'], 'position')}")
    cost = group["cost"]
    one = f"{quantity('macs', cost['unit_macs'])} MACs and {quantity('macs', cost['unit_params'])} parameters"
    every = f"{cost['macs_share']:.1%} of the MACs and {cost['params_share']:.1%} of the parameters"
    tag(about, "p", f"a unit costs {one}, the group {every}")
    if group["scores"] is not None:
        tag(about, "p", "scores: " + ", ".join(f"{name} {group['scores'][name]:.3g}" for name in SPREAD))
    tag(about, "p", f"read by {', '.join(group['ops'])}")
    layers = tag(about, "ul")
    for name, axis in group["parameters"]:
        tag(layers, "li", f"{name}:{axis}")
    for number in group["pins"]:
        tag(about, "p", f"pinned beside it, reason {number + 1}: {pin_text(pins[number])}", class_="pin")


def _reasons(side: Element, found: Mapping[str, Any]) -> None:
    tag(side, "h2", f"{counted(found['pinned'], 'unit')} pinned, and why")
    reasons = tag(side, "ol")
    for pin in found["pins"]:
        tag(reasons, "li", pin_text(pin))
    tag(side, "h2", "not understood")
    opaque = tag(side, "ul")
    for line in [*opaque_lines(found["opaque"]), *found["notes"]]:
        tag(opaque, "li", line)
