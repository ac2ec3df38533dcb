"""The Pareto plot of a portfolio: accuracy over latency, the variants worth having on a line.

It is drawn by matplotlib, which is an extra: a portfolio is built without it, and says that the plot is missing.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

from ..files import write_whole
from ..ir.errors import EnvironmentProblem, UsageError
from ..runtime.manifest import Manifest
from ..runtime.variant import Variant

KINDS = ("svg", "png")
_KEPT, _GONE = "#1f5fa8", "#b0b0b0"


def plot(manifest: Manifest, path: str | Path) -> None:
    """Write the plot to ``path``, an ``.svg`` or ``.png`` file; the same portfolio gives the same picture.

    Raises
    ------
    UsageError
        Another kind of file, or nothing to draw.
    EnvironmentProblem
        matplotlib is not installed, or the file cannot be written.
    """
    kind = check_kind(path)
    if not any(v.latency_ms for v in manifest.variants.values()):
        raise UsageError("no variant was measured", hint="`prunec portfolio measure` does that")
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise EnvironmentProblem("plots are drawn by matplotlib", hint="pip install 'prunec[plots]'") from error
    with mpl.rc_context({"svg.hashsalt": "prunec", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(6, 4), layout="constrained")
        _draw(figure.subplots(), manifest)
        data = BytesIO()
        figure.savefig(data, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else {})
    write_whole(path, data.getvalue())


def check_kind(path: str | Path) -> str:
    """The kind of picture that ``path`` names; raises :class:`UsageError` for one that is not drawn."""
    kind = Path(path).suffix.lower().lstrip(".")
    if kind not in KINDS:
        raise UsageError(f"{path} is no kind of picture that is drawn", hint="give a name that ends in .svg or .png")
    return kind


def _draw(panel: Any, manifest: Manifest) -> None:
    shown = [v for v in manifest.variants.values() if v.latency_ms is not None]
    kept = sorted((v for v in shown if v.dominated_by is None), key=lambda v: v.latency_ms or 0.0)
    panel.plot([v.latency_ms for v in kept], [_height(v) for v in kept], "o-", color=_KEPT, label="worth having")
    if gone := [v for v in shown if v.dominated_by is not None]:
        panel.plot([v.latency_ms for v in gone], [_height(v) for v in gone], "o", color=_GONE, label="dominated")
        panel.legend(frameon=False, loc="lower right")
    for variant in shown:
        panel.annotate(
            variant.name, (variant.latency_ms, _height(variant)), xytext=(4, -10), textcoords="offset points"
        )
    measured = any(v.accuracy is not None for v in shown)
    panel.set_xlabel("latency of one example, ms (median)")
    panel.set_ylabel("accuracy" if measured else "parameters (accuracy was not measured)")
    panel.set_title(manifest.name)
    panel.grid(alpha=0.3)


def _height(variant: Variant) -> float:
    return float(variant.params if variant.accuracy is None else variant.accuracy)
