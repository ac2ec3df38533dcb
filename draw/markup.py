"""Markup built as a tree, so that names from a model can be text and nothing else.  Start at :func:`tag`."""

from __future__ import annotations

import re
from xml.etree import ElementTree

Element = ElementTree.Element
_NO_TEXT = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML does not allow, not even escaped."""


def tag(parent: Element, name: str, text: str = "", /, **attributes: object) -> Element:
    """A new element of ``parent``; in names of attributes ``_`` stands for ``-``, and one at the end for nothing."""
    made = ElementTree.SubElement(parent, name, named(attributes))
    made.text = clean(text)
    return made


def named(attributes: dict[str, object]) -> dict[str, str]:
    """Attributes as markup spells them; those that are None are left out."""
    return {k.rstrip("_").replace("_", "-"): clean(str(v)) for k, v in attributes.items() if v is not None}


def clean(text: str) -> str:
    """``text`` with a mark in place of each character that markup cannot hold."""
    return _NO_TEXT.sub("\ufffd", text)


def as_xml(root: Element) -> str:
    return ElementTree.tostring(root, encoding="unicode")


def as_html(root: Element) -> str:
    """As HTML: style and script are not escaped, so nothing of a model may stand in them."""
    return ElementTree.tostring(root, encoding="unicode", method="html")
