"""Random ONNX graphs, written node by node with ``onnx.helper`` and run while they are drawn.

A *rule* (``onnx_rules.py``) reads a value and appends nodes in the spelling of the opset at hand; ONNX Runtime computes
each node as it is drawn, so a rule sees real shapes.  What a rule cannot do it refuses by raising :class:`Unfit`.
Weights are initialisers or Constant nodes, now and then shared; nodes may have no names; the batch is open.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from .program import ANY, IMAGE, INPUTS, LARGEST, VECTOR, Dice, Featured, Unfit

Array = NDArray[Any]
OPSETS = (9, 11, 13, 14, 17, 18, 20, 21, 22, 23)
_LOUDEST = 1e3
_IR = 10


@dataclass(frozen=True, eq=False)
class Val(Featured):
    """A value of the graph: its name, and what it holds in the example run."""

    name: str
    array: Array

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.array.shape)


Rule = Callable[["Maker", Val], None]
RULES: dict[str, tuple[Rule, frozenset[int], int]] = {}


def rule(*ranks: int, since: int = 1) -> Callable[[Rule], Rule]:
    """Enter a rule under its function's name, for values of ``ranks`` (any when none), from opset ``since`` on."""

    def enter(draw: Rule) -> Rule:
        RULES[draw.__name__.rstrip("_")] = draw, frozenset(ranks) or ANY, since
        return draw

    return enter


@dataclass
class Maker(Dice):
    """A graph in the making, and the dice."""

    opset: int
    nodes: list[NodeProto] = field(default_factory=list)
    weights: dict[str, Array] = field(default_factory=dict)
    values: list[Val] = field(default_factory=list)
    drawn: list[str] = field(default_factory=list)
    numbered: int = 0

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.dice.randrange(1 << 16))
        self.prefix = self.pick(("v", "net/a.b:", "", "/x_"))
        self.named = self.chance(0.6)

    # ------------------------------------------------------------------ what a graph holds

    def fresh(self) -> str:
        self.numbered += 1
        return f"{self.prefix}{self.numbered}"

    def weight(self, *shape: int, low: float | None = None) -> Val:
        """Floats of their own; now and then those of an earlier weight of that shape, or all alike."""
        known = [n for n, a in self.weights.items() if a.shape == shape and a.dtype.kind == "f"]
        if known and low is None and self.chance(0.15):
            name = self.pick(known)
            return Val(name, self.weights[name])
        array = self.rng.normal(0, 0.7, shape) if low is None else self.rng.uniform(low, low + 1, shape)
        return self.stored(np.full(shape, 1.0) if len(shape) == 1 and self.chance(0.1) else array)

    def stored(self, array: Any, dtype: Any = np.float32) -> Val:
        """A constant: an initialiser, or a Constant node."""
        array, name = np.asarray(array, dtype), self.fresh()
        if self.chance(0.3):
            self.nodes.append(helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array)))
        else:
            self.weights[name] = array
        return Val(name, array)

    def ints(self, *numbers: int) -> Val:
        return self.stored(numbers, np.int64)

    def node(self, op: str, *inputs: Val | None, **attributes: Any) -> Val:
        """Append a node with one result."""
        return self.nodes_(op, 1, *inputs, **attributes)[0]

    def nodes_(self, op: str, count: int, *inputs: Val | None, **attributes: Any) -> list[Val]:
        """Append a node with ``count`` results."""
        names = ["" if v is None else v.name for v in inputs]
        made = helper.make_node(op, names, [self.fresh() for _ in range(count)], **attributes)
        made.name = f"{op.lower()} {self.numbered}" if self.named else ""
        found = run_node(made, {v.name: v.array for v in inputs if v is not None}, self.opset)
        for a in found:
            if a.dtype.kind == "f" and (
                not 0 < a.size <= LARGEST or not np.isfinite(a).all() or np.abs(a).max() > _LOUDEST
            ):
                raise Unfit(f"{op} gives what is too large, too small, or too loud")
        self.nodes.append(made)
        results = [Val(name, a) for name, a in zip(made.output, found, strict=True)]
        self.values += results
        return results

    def axes(self, op: str, x: Val, axes: Sequence[int], since: int, **attributes: Any) -> Val:
        """A node whose axes are an attribute before opset ``since`` and an input from then on."""
        if self.opset < since:
            return self.node(op, x, axes=list(axes), **attributes)
        return self.node(op, x, self.ints(*axes), **attributes)

    def floats(self, ranks: frozenset[int]) -> list[Val]:
        """Values of floats that have one of these ranks."""
        return [v for v in self.values if v.rank in ranks and v.array.dtype == np.float32]

    def partner(self, x: Val, fits: Callable[[Val], bool]) -> Val:
        """Another value that fits, ``x`` itself where there is none."""
        found = [v for v in self.values if v.array.dtype == np.float32 and v is not x and fits(v)]
        return self.pick(found) if found else x

    # ------------------------------------------------------------------ shape arithmetic

    def size(self, x: Val, d: int) -> Val:
        """The size of an axis, (1,), computed at run time."""
        shape = self.node("Shape", x)
        if self.chance(0.5):
            return self.node("Gather", shape, self.ints(d), axis=0)
        if self.opset < 10:
            return self.node("Slice", shape, starts=[d], ends=[d + 1], axes=[0])
        return self.node("Slice", shape, self.ints(d), self.ints(d + 1), self.ints(0))

    def reshape(self, x: Val, sizes: Sequence[int]) -> Val:
        """``x`` in another shape, 0 for the batch: numbers, or computed."""
        if self.chance(0.6):
            return self.node("Reshape", x, self.ints(*sizes))
        parts = [self.size(x, 0) if s == 0 else self.ints(s) for s in sizes]
        return self.node("Reshape", x, self.node("Concat", *parts, axis=0))

    # ------------------------------------------------------------------ drawing

    def draw(self, name: str, x: Val) -> bool:
        """Apply a rule to ``x``; False, with nothing changed, where it does not fit."""
        before, held = (len(self.nodes), len(self.values)), dict(self.weights)
        try:
            RULES[name][0](self, x)
        except Unfit:
            del self.nodes[before[0] :], self.values[before[1] :]
            self.weights = held
            return False
        self.drawn.append(name)
        return True


def run_node(node: NodeProto, inputs: dict[str, Array], opset: int) -> list[Array]:
    """The results of one node in ONNX Runtime; :class:`Unfit` where that refuses it."""
    declared = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape) for n, a in inputs.items()
    ]
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output]
    model = model_of([node], declared, outputs, {}, opset)
    try:
        return [np.asarray(a) for a in session(model).run(None, inputs)]
    except Exception as refusal:  # the runtime's exceptions share no base class; a test holds that every rule is drawn
        raise Unfit(str(refusal)) from refusal


def model_of(
    nodes: Sequence[NodeProto], inputs: Any, outputs: Any, weights: dict[str, Array], opset: int
) -> ModelProto:
    stored = [numpy_helper.from_array(a, n) for n, a in weights.items()]
    graph = helper.make_graph(list(nodes), "random", inputs, outputs, stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=_IR)


def session(model: ModelProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def program(dice: random.Random, rules: Sequence[str] | None = None) -> tuple[ModelProto, list[str]]:
    """A random model and the rules that made it; ``rules`` are applied in turn where given."""
    maker = Maker(dice, dice.choice(OPSETS))
    kinds = [dice.choice(sorted(INPUTS)) for _ in range(dice.choice((1, 1, 1, 2)))]
    batch = maker.pick(("N", "N", "N", 2))
    inputs = [
        Val(f"in_{k}", maker.rng.standard_normal(INPUTS[kind]).astype(np.float32)) for k, kind in enumerate(kinds)
    ]
    declared = [helper.make_tensor_value_info(v.name, TensorProto.FLOAT, (batch, *v.shape[1:])) for v in inputs]
    maker.values += inputs
    for x in inputs:
        maker.draw("conv" if x.rank == IMAGE else "linear", x)
    for name in rules if rules is not None else [None] * dice.randint(1, 9):
        found = maker.floats(RULES[name][1] if name else ANY)
        if found:
            x = found[-1] if maker.chance(0.7) else maker.pick(found)
            fitting = [n for n, (_, ranks, since) in RULES.items() if x.rank in ranks and since <= maker.opset]
            maker.draw(name or maker.pick(fitting), x)
    outputs = [onnx.ValueInfoProto(name=n) for n in _results(maker, len(inputs))]
    for value in outputs:
        value.type.tensor_type.elem_type = TensorProto.FLOAT
    return model_of(maker.nodes, declared, outputs, maker.weights, maker.opset), maker.drawn


def _results(maker: Maker, inputs: int) -> list[str]:
    """Outputs: the last value through a head, and now and then others, as they are."""
    ends = [v for v in maker.values[inputs:] if v.array.dtype == np.float32] or maker.values[:1]
    chosen = [ends[-1], *(maker.pick(ends) for _ in range(maker.pick((0, 0, 1, 2))))]
    results = [_end(maker, v) if maker.chance(0.95 if k == 0 else 0.7) else v for k, v in enumerate(chosen)]
    return list(dict.fromkeys(v.name for v in results))


def _end(maker: Maker, x: Val) -> Val:
    """Three numbers of a value, by a linear layer on its features; the value itself where that does not fit."""
    if x.rank < VECTOR:
        return x
    try:
        last = [k for k in range(x.rank) if k != x.feature] + [x.feature]
        y = x if x.feature == x.rank - 1 else maker.node("Transpose", x, perm=last)
        return maker.node("MatMul", y, maker.weight(y.shape[-1], 3))
    except Unfit:
        return x
