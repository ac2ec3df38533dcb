"""The figure of :mod:`bench.switching`: latency, variant and accuracy of each contender over the same trace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

COLOURS = {"controller": "#1f5fa8", "reloading": "#c0504d"}
FIXED = ("#555555", "#8a8a8a", "#b8b8b8")
STYLES = ("-", "--", ":")
PRESSED = "#f2d8a7"
SHADE = "#eeeeee"
_LAST = 4
"""Quarters of a second that accuracy is a mean of."""


def draw(result: dict[str, Any], path: Path) -> None:
    """Write the figure of ``result``, what :func:`.switching_trace.traces` returns, to ``path``, an SVG file.

    The same result gives the same bytes.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.hashsalt": "prunec", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(9, 7), layout="constrained")
        latency, variant, accuracy = figure.subplots(3, sharex=True, height_ratios=(2, 1, 1))
        fixed = [n for n in result["contenders"] if n not in COLOURS]
        for name, row in result["contenders"].items():
            style: dict[str, Any] = {"color": COLOURS[name], "linewidth": 1.4} if name in COLOURS else {
                "color": FIXED[fixed.index(name) % 3], "linestyle": STYLES[fixed.index(name) % 3], "linewidth": 1.0,
            }  # fmt: skip
            _contender(latency, accuracy, row["series"], name, style)
            if name in COLOURS:
                _steps(variant, result, row["series"]["variant"], style)
        place = latency.get_yaxis_transform()
        latency.axhline(result["objective_ms"], color="black", linewidth=0.8, linestyle="--")
        latency.text(0.995, result["objective_ms"] * 1.08, "objective", ha="right", fontsize=8, transform=place)
        latency.set(yscale="log", ylabel="ms, 95th percentile\nof each quarter second")
        variant.set_yticks(range(len(result["variants"])), list(result["variants"]))
        variant.set_ylim(len(result["variants"]) - 0.6, -0.4)
        variant.set_ylabel("variant")
        accuracy.set(ylabel="named right, %\n(the last second)", xlabel="seconds", xlim=(0, result["seconds"]))
        latency.legend(frameon=False, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.08), fontsize=8)
        for panel in (latency, variant, accuracy):
            _phases(panel, result["phases"], named=panel is latency)
        figure.savefig(path, metadata={"Date": None})


def _contender(latency: Any, accuracy: Any, series: dict[str, Any], name: str, style: dict[str, Any]) -> None:
    at = np.array(series["at"])
    took, right = (np.array(series[k], float) for k in ("p95_ms", "accuracy"))
    latency.plot(at, took, label=name, **style)
    last = [right[max(0, k + 1 - _LAST) : k + 1] for k in range(len(right))]
    means = [100 * float(v[~np.isnan(v)].mean()) if (~np.isnan(v)).any() else np.nan for v in last]
    accuracy.plot(at, means, **style)


def _steps(panel: Any, result: dict[str, Any], moves: list[list[Any]], style: dict[str, Any]) -> None:
    """The variant that answers, a line that jumps."""
    rank = {name: k for k, name in enumerate(result["variants"])}
    at = [max(0.0, t) for t, _ in moves] + [result["seconds"]]
    panel.step(at, [rank[n] for _, n in moves] + [rank[moves[-1][1]]], where="post", **style)


def _phases(panel: Any, phases: list[dict[str, Any]], *, named: bool) -> None:
    """Every other phase shaded, and memory pressure in a colour of its own."""
    start = 0.0
    for k, phase in enumerate(phases):
        end = start + phase["seconds"]
        if phase["pressed"] or k % 2:
            panel.axvspan(start, end, color=PRESSED if phase["pressed"] else SHADE, zorder=-1, linewidth=0)
        if named:
            rate = "–".join(f"{r:g}" for r in dict.fromkeys(phase["rate"]))
            place = {"ha": "center", "va": "bottom", "fontsize": 7}
            panel.text(
                (start + end) / 2, 1.01, f"{phase['name']}\n{rate}×", transform=panel.get_xaxis_transform(), **place
            )
        start = end
