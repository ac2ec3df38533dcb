"""Recurrent layers and cells.  Hidden unit ``h`` is a row of every gate and a column of what reads the state."""

from __future__ import annotations

from ..axes import Axes
from ..errors import Declined
from ..graph import Node
from ..opset import AtDead, Cost, Fitting, Site, declare, moves, zero_within
from ..signature import Signature, apply

_STATES = {"lstm": 2}


def _macs(cost: Cost) -> float:
    """Every gate reads the input and the state, at each step of each direction; a projection reads the cell."""
    steps = cost("D") * cost.operand(0) / max(1, cost("i"))
    projected = "p" in cost.site.binding.letters
    state = cost("p") if projected else cost("h")
    return steps * cost("h") * (cost("G") * (cost("i") + state) + (state if projected else 0))


def _zero(node: Node, at_dead: AtDead) -> bool:
    """A unit without weights and state stays zero, unless some function of the layer is not zero at zero."""
    return bool(node.attrs.get("silent", True)) and all(at_dead(v) for v in node.inputs[1:])


def _applied(site: Site, operands: str, results: str) -> list[Axes]:
    gates = int(site.attrs["gates"])
    sizes = {"G": gates, "Z": 2 * gates, "D": int(site.attrs["directions"])}
    signature = Signature.parse(f"{operands} -> {results}")
    found, site.binding = apply(signature, site.atoms, site.axes, site.shapes, sizes, site.reason)
    return found


@moves("recurrent", macs=_macs, zero=_zero)
def recurrent(site: Site) -> list[Axes]:
    """One layer, weights apart for each direction: ``A B i, D B h, (G h) i, (G h) h, (G h), … -> A B (D h), D B h``.

    A projection (``p h``) makes the state ``p`` of the cell ``h``.
    """
    if site.attrs["layers"] != 1:
        raise Declined("several layers in one call")
    state = "p" if site.attrs["projected"] else "h"
    states = [f"D B {state}", "D B h"][: _STATES.get(str(site.attrs["function"]), 1)]
    weights = ["(G h) i", f"(G h) {state}"]
    weights += ["(G h)", "(G h)"] if site.attrs["biased"] else []
    weights += ["p h"] if site.attrs["projected"] else []
    operands = ["A B i", *states, *weights * int(site.attrs["directions"])]
    return _applied(site, ", ".join(operands), ", ".join([f"A B (D {state})", *states]))


def _hidden(fitting: Fitting) -> dict[str, object]:
    return {"hidden": fitting.site.count(fitting.alive, "h")}


@moves("recurrent_stacked", refit=_hidden, macs=_macs, zero=_zero)
def recurrent_stacked(site: Site) -> list[Axes]:
    """One layer, weights of both directions on one axis: ``T B i, D (G h) i, D (G h) h, D (Z h), … -> T D B h``.

    ``results`` are those that are there: all steps, the last state, the last cell.
    """
    operands = "T B i, D (G h) i, D (G h) h, D (Z h), B, D B h, D B h, D (3 h)"
    results = ("T D B h", "D B h", "D B h")
    return _applied(site, operands, ", ".join(results[k] for k in site.attrs["results"]))


declare(
    "recurrent_cell",
    "... i, ... h, (G h) i, (G h) h, (G h), (G h) -> ... h",
    "One step of a recurrent layer.",
    macs=_macs,
    zero=zero_within(1, _zero),
    G="gates",
)
declare(
    "lstm_cell",
    "... i, ... h, ... h, (G h) i, (G h) h, (G h), (G h) -> ... h, ... h",
    "One step of a layer with a cell beside its state.",
    macs=_macs,
    zero=zero_within(1, _zero),
    G="gates",
)
