"""How ATen spells recurrent layers and cells: one overload for each function, any number of layers in one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..graph import Value
from .spelling import Arguments, Read, Spelling, whole

_GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}
_CELL = ("input", "hx", "w_ih", "w_hh", "b_ih", "b_hh")


def _layer(function: str) -> Read:
    def read(a: Arguments) -> dict[str, Any]:
        layers, directions, biased = whole(a["num_layers"]), 1 + bool(a["bidirectional"]), bool(a["has_biases"])
        each = len(a["params"]) // (layers * directions)
        return {
            "function": function,
            "gates": _GATES[function],
            "layers": layers,
            "directions": directions,
            "biased": biased,
            "projected": each > (4 if biased else 2),
            "dropout": a["dropout"],
            "batch_first": bool(a["batch_first"]),
        }

    return read


def make_layer(inputs: Sequence[Value], attrs: Mapping[str, Any]) -> tuple[str, Arguments]:
    """Kind and arguments of a layer with these attributes."""
    count = 2 if attrs["function"] == "lstm" else 1
    states = list(inputs[1 : 1 + count])
    return f"aten.{attrs['function']}.input", {
        "input": inputs[0],
        "hx": states if count > 1 else states[0],
        "params": list(inputs[1 + count :]),
        "has_biases": attrs["biased"],
        "num_layers": attrs["layers"],
        "dropout": attrs["dropout"],
        "train": False,
        "bidirectional": attrs["directions"] == 2,
        "batch_first": attrs["batch_first"],
    }


def _cell(gates: int) -> Read:
    return lambda a: {"gates": gates}


LAYERS = {f"aten.{f}.input": Spelling("recurrent", ("input", "hx", "params"), _layer(f)) for f in _GATES}
CELLS = {
    "aten.lstm_cell.default": Spelling("lstm_cell", _CELL, _cell(4)),
    **{f"aten.{f}_cell.default": Spelling("recurrent_cell", _CELL, _cell(_GATES[f])) for f in list(_GATES)[1:]},
}
