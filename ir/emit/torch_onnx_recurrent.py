"""Recurrent layers on their way to ONNX, through torch's exporter.

The exporter's own forms are left aside: it traces every step of a layer, unrolls plain ones, and writes a projected
LSTM as one whose hidden size is that of the projection, which is another network.  Here a layer is one ONNX node that
holds its weights in ONNX's order; a projected one, for which ONNX has no node, is unrolled over time.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from .fx import Recurrent

_NODES = {"lstm": "LSTM", "gru": "GRU", "rnn_tanh": "RNN", "rnn_relu": "RNN"}
_GATES = {"lstm": (0, 3, 1, 2), "gru": (1, 0, 2)}
"""Where each of ONNX's gates stands in torch's order."""
_ZEROS = (torch.ops.aten.zeros.default, torch.ops.aten.new_zeros.default)


def with_onnx_layers(module: fx.GraphModule) -> fx.GraphModule:
    """``module`` with its recurrent layers in a form that ONNX has (in place); to be exported, not run."""
    for node in module.graph.find_nodes(op="call_module"):
        name = str(node.target)
        leaf = module.get_submodule(name)
        if isinstance(leaf, Recurrent):
            module.add_module(name, _Unrolled(leaf) if _is_projected(leaf, node) else _as_node(module, node, leaf))
    module.graph.eliminate_dead_code()
    module.recompile()
    return module


def _is_projected(leaf: Recurrent, call: fx.Node) -> bool:
    return len(_nodes(call.args[2])) // _directions(leaf) > (4 if leaf.options["has_biases"] else 2)


def _directions(leaf: Recurrent) -> int:
    return 1 + int(leaf.options["bidirectional"])


def _as_node(module: fx.GraphModule, call: fx.Node, leaf: Recurrent) -> _Layer:
    """A layer that holds its weights, unless they are computed; a state of zeros is left out."""
    states, weights = _nodes(call.args[1]), _nodes(call.args[2])
    stored = all(w.op == "get_attr" for w in weights)
    call.args = (call.args[0], [None if _is_zero(module, s) else s for s in states], [] if stored else weights)
    return _Layer(leaf, [_held(module, w) for w in weights] if stored else [])


def _nodes(argument: Any) -> list[fx.Node]:
    return list(argument) if isinstance(argument, (list, tuple)) else [argument]


def _held(module: fx.GraphModule, node: fx.Node) -> Tensor:
    held: Tensor = operator.attrgetter(str(node.target))(module)
    return held


def _is_zero(module: fx.GraphModule, state: fx.Node) -> bool:
    if state.op == "get_attr" and str(state.target).startswith("_literal."):
        return not _held(module, state).any()
    return state.target in _ZEROS


class _Layer(torch.nn.Module):
    """One layer as an ONNX node: w (D, G h, i), r (D, G h, h), b (D, 2 G h)."""

    flat: Tensor

    def __init__(self, leaf: Recurrent, weights: Sequence[Tensor]) -> None:
        super().__init__()
        self.function, self.batch_first = leaf.kind.split(".")[1], bool(leaf.options["batch_first"])
        self.directions = _directions(leaf)
        self.register_buffer("flat", torch.tensor([0, 0, -1]))
        for name, held in zip("wrb", self._stacked(weights) if weights else (), strict=False):
            self.register_buffer(name, held)

    def forward(self, x: Tensor, states: Sequence[Tensor | None], weights: Sequence[Tensor]) -> tuple[Tensor, ...]:
        held = self._stacked(weights) if weights else [v for n, v in self.named_buffers() if n != "flat"]
        x = x.transpose(0, 1) if self.batch_first else x
        (t, n), (d, _, h) = x.shape[:2], held[1].shape
        results = [(t, d, n, h), *[(d, n, h)] * len(states)]
        operands = [x, *held, *[None] * (4 - len(held)), *states]
        while operands[-1] is None:
            operands.pop()
        made = _onnx(_NODES[self.function], operands, results, **self._attributes(h))
        steps = made[0].squeeze(1)
        if self.directions == 2:
            (steps,) = _onnx("Reshape", [made[0].transpose(1, 2), self.flat], [(t, n, d * h)])
        return (steps.transpose(0, 1) if self.batch_first else steps, *made[1:])

    def _attributes(self, hidden: int) -> dict[str, Any]:
        given: dict[str, Any] = {"hidden_size": hidden}
        if self.directions == 2:
            given["direction"] = "bidirectional"
        if self.function == "gru":
            given["linear_before_reset"] = 1
        if self.function == "rnn_relu":
            given["activations"] = ["Relu"] * self.directions
        return given

    def _stacked(self, weights: Sequence[Tensor]) -> list[Tensor]:
        """Torch's weights, direction after direction, as ONNX holds them."""
        each = len(weights) // self.directions
        sides = [[self._in_order(w) for w in weights[k : k + each]] for k in range(0, len(weights), each)]
        biases = [torch.stack([torch.cat(side[2:]) for side in sides])] if each > 2 else []
        return [torch.stack([side[k] for side in sides]) for k in range(2)] + biases

    def _in_order(self, weight: Tensor) -> Tensor:
        order = _GATES.get(self.function, (0,))
        gates = weight.detach().chunk(len(order))
        return torch.cat([gates[k] for k in order])


def _onnx(
    op_type: str, operands: Sequence[Tensor | None], shapes: Sequence[Sequence[Any]], **attributes: Any
) -> Sequence[Tensor]:
    dtype = operands[0].dtype if operands[0] is not None else torch.float32
    return torch.onnx.ops.symbolic_multi_out(op_type, operands, attributes, dtypes=[dtype] * len(shapes), shapes=shapes)


class _Unrolled(torch.nn.Module):
    """A projected LSTM step by step: x (T, B, i), state (D, B, p), cell (D, B, h)."""

    def __init__(self, leaf: Recurrent) -> None:
        super().__init__()
        self.directions, self.batch_first = _directions(leaf), bool(leaf.options["batch_first"])

    def forward(self, x: Tensor, states: Sequence[Tensor], weights: Sequence[Tensor]) -> tuple[Tensor, ...]:
        x, each = x.transpose(0, 1) if self.batch_first else x, len(weights) // self.directions
        sides = []
        for d in range(self.directions):
            side = weights[d * each : (d + 1) * each]
            sides.append(_side(x.flip(0) if d else x, states[0][d], states[1][d], side))
        steps = torch.cat([y.flip(0) if d else y for d, (y, _, _) in enumerate(sides)], -1)
        last = (torch.stack([side[k] for side in sides]) for k in (1, 2))
        return (steps.transpose(0, 1) if self.batch_first else steps, *last)


def _side(x: Tensor, state: Tensor, cell: Tensor, weights: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """All states of one direction, the last one, and the last cell."""
    w_ih, w_hh, *biases, w_hr = weights
    b_ih, b_hh = biases or (None, None)
    states = []
    for step in F.linear(x, w_ih, b_ih).unbind(0):
        i, f, g, o = (step + F.linear(state, w_hh, b_hh)).chunk(4, -1)
        cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
        state = F.linear(torch.sigmoid(o) * torch.tanh(cell), w_hr)
        states.append(state)
    return torch.stack(states), state, cell
