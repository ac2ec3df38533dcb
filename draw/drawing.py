"""A drawing of the groups of a graph: an HTML page, or an SVG picture with a legend.

Either is one file that loads nothing from anywhere.  ``blocks.py`` says what is drawn, ``layout.py`` where it stands,
``svg.py`` and ``page.py`` how it looks; names from the model pass as text, never as markup.  Start at :func:`draw`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..ir.errors import UsageError
from ..passes.groups import Groups
from .blocks import Picture, picture
from .page import page
from .svg import standalone

Write = Callable[[Picture, Mapping[str, Any], str], str]
_WRITERS: dict[str, Write] = {".html": page, ".svg": standalone}


def draw(groups: Groups, found: Mapping[str, Any], title: str, path: str | Path) -> str:
    """The drawing of ``groups`` that belongs into ``path``; ``found`` are their findings.  The same each time."""
    return _WRITERS[check_suffix(path)](picture(groups, found), found, title)


def check_suffix(path: str | Path) -> str:
    """The suffix of a drawing's file; raises :class:`UsageError` for one that is no kind of drawing."""
    suffix = Path(path).suffix.lower()
    if suffix not in _WRITERS:
        raise UsageError(
            f"--graph {path} is no kind of drawing",
            hint="FILE.html is a page in which groups light up, FILE.svg a picture with a legend",
            path=str(path),
        )
    return suffix
