"""The figure of :mod:`bench.unconstrained_accuracy`: a row of two panels for each network, a line for each curve."""

from __future__ import annotations

from pathlib import Path
from typing import Any

AXES = {"share": "share of input channels pruned", "latency": "latency/dense"}
"""The panels, by what lies along x."""

_COLOURS = {"constrained": "#c0504d", "unconstrained": "#1f5fa8"}


def draw(result: dict[str, Any], path: Path) -> None:
    """Write the figure of ``result`` to ``path``, an SVG file; the same result gives the same bytes."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.hashsalt": "prunec", "svg.fonttype": "none", "font.size": 9}):
        networks = result["networks"]
        figure = Figure(figsize=(9, 3.2 * len(networks)), layout="constrained")
        rows = figure.subplots(len(networks), len(AXES), squeeze=False, sharey="row")
        for panels, (name, network) in zip(rows, networks.items(), strict=True):
            for panel, key in zip(panels, AXES, strict=True):
                _panel(panel, network, key)
            panels[0].set_ylabel(f"{name}: top-1 without fine-tuning, %")
        rows[0][0].legend(frameon=False)
        figure.savefig(path, metadata={"Date": None})


def _panel(panel: Any, network: dict[str, Any], key: str) -> None:
    """The curves of ``network`` over ``key``, and the dense network's accuracy as a dotted line."""
    panel.axhline(network["top1"], color="black", linewidth=0.8, linestyle=":", label="dense")
    for curve in dict.fromkeys(p["curve"] for p in network["points"]):
        found = sorted((p[key], p["top1"]) for p in network["points"] if p["curve"] == curve)
        mode, _, aligned = curve.partition(",")
        style = {"linestyle": "--", "marker": "s"} if aligned else {"linestyle": "-", "marker": "o"}
        panel.plot(*zip(*found, strict=True), color=_COLOURS[mode], markersize=4, label=curve, **style)
    panel.set_xlabel(AXES[key])
    panel.grid(alpha=0.3)
