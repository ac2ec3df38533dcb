"""Random torch networks: a program of steps, drawn one rule at a time and run while it is drawn.

A *rule* (``torch_rules.py``) is a short function that reads a value and appends steps; it is entered under its name
with the ranks of the values that it takes: images (B, c, H, W), sequences (B, T, d), vectors (B, d).  Because each step
runs as it is drawn, a rule sees real shapes.  What it cannot do with a value it refuses by raising :class:`Unfit`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..models import micro
from .program import ANY, IMAGE, INPUTS, LARGEST, SEQUENCE, VECTOR, Dice, Featured, Unfit

_LOUDEST = 1e4


@dataclass(frozen=True, eq=False)
class Val(Featured):
    """A value of the program: its number, and what it holds in the example run."""

    number: int
    tensor: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensor.shape)


Step = tuple[Callable[..., Any], tuple[int, ...]]


class Program(nn.Module):
    """A network that runs a list of steps.  ``net[name]`` is a layer, parameter or buffer of it."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[Step] = []
        self.results: list[int] = []
        self.named = False

    def __getitem__(self, name: str) -> Any:
        return getattr(self, name)

    def forward(self, *inputs: Tensor) -> Any:
        values = list(inputs)
        for run, operands in self.steps:
            values += listed(run(self, *(values[k] for k in operands)))
        found = [values[k] for k in self.results]
        if self.named:
            return {f"y{k}": v for k, v in enumerate(found)}
        return found[0] if len(found) == 1 else tuple(found)


def listed(result: Any) -> list[Tensor]:
    return list(result) if isinstance(result, (tuple, list)) else [result]


Rule = Callable[["Maker", Val], None]
RULES: dict[str, tuple[Rule, frozenset[int]]] = {}


def rule(*ranks: int) -> Callable[[Rule], Rule]:
    """Enter a rule under its function's name, for values of ``ranks``; for any when there are none."""

    def enter(draw: Rule) -> Rule:
        RULES[draw.__name__.rstrip("_")] = draw, frozenset(ranks) or ANY
        return draw

    return enter


@dataclass
class Maker(Dice):
    """A program in the making, and the dice."""

    divisors = (1, 1, 2, 3, 4, 6)
    program: Program = field(default_factory=Program)
    values: list[Val] = field(default_factory=list)
    drawn: list[str] = field(default_factory=list)
    layers: dict[str, str] = field(default_factory=dict)

    # ------------------------------------------------------------------ what a program holds

    def layer(self, made: nn.Module) -> str:
        """The name of a new layer; now and then of one like it that is there, which is then shared."""
        like = repr(made)
        if like in self.layers and self.chance(0.3):
            return self.layers[like]
        for part in made.modules():
            micro._unsettle(part)
        name = f"{type(made).__name__.lower()}{len(self.program._modules)}"
        self.program.add_module(name, made.double().eval())
        self.layers[like] = name
        return name

    def parameter(self, *shape: int) -> str:
        name = f"p{len(self.program._parameters)}"
        self.program.register_parameter(name, nn.Parameter(torch.randn(*shape, dtype=torch.float64)))
        return name

    def buffer(self, data: Tensor) -> str:
        name = f"b{len(self.program._buffers)}"
        self.program.register_buffer(name, data)
        return name

    def step(self, run: Callable[..., Any], *operands: Val) -> Val:
        """Append a step; its (first) result.  ``run`` takes the network and the operands."""
        return self.steps(run, *operands)[0]

    def steps(self, run: Callable[..., Any], *operands: Val) -> list[Val]:
        """Append a step; all its results."""
        try:
            with torch.no_grad():
                found = listed(run(self.program, *(v.tensor for v in operands)))
        except RuntimeError as refusal:  # torch itself says that it does not fit; a test holds that every rule is drawn
            raise Unfit(str(refusal)) from refusal
        for t in found:
            if not 1 < t.numel() <= LARGEST or 0 in t.shape or not torch.isfinite(t).all() or t.abs().max() > _LOUDEST:
                raise Unfit(f"{tuple(t.shape)} is too large, too small, or too loud")
        self.program.steps.append((run, tuple(v.number for v in operands)))
        made = [Val(len(self.values) + k, t) for k, t in enumerate(found)]
        self.values += made
        return made

    def input(self, tensor: Tensor) -> Val:
        self.values.append(Val(len(self.values), tensor))
        return self.values[-1]

    def floats(self, ranks: frozenset[int]) -> list[Val]:
        """Values of floats that have one of these ranks."""
        return [v for v in self.values if v.tensor.ndim in ranks and v.tensor.is_floating_point()]

    def partner(self, x: Val, fits: Callable[[Val], bool]) -> Val:
        """Another value that fits, ``x`` itself where there is none."""
        found = [v for v in self.values if v.tensor.is_floating_point() and v is not x and fits(v)]
        return self.pick(found) if found else x

    # ------------------------------------------------------------------ drawing

    def draw(self, name: str, x: Val) -> bool:
        """Apply a rule to ``x``; False, with nothing changed, where it does not fit."""
        net = self.program
        before = len(net.steps), len(self.values), dict(self.layers)
        held = [dict(part) for part in (net._modules, net._parameters, net._buffers)]
        try:
            RULES[name][0](self, x)
        except Unfit:
            del net.steps[before[0] :], self.values[before[1] :]
            self.layers = before[2]
            net._modules, net._parameters, net._buffers = held  # type: ignore[assignment]
            return False
        self.drawn.append(name)
        return True


def program(dice: random.Random, rules: Sequence[str] | None = None) -> tuple[Program, tuple[Tensor, ...], list[str]]:
    """A random network, its inputs and the rules that made it; ``rules`` are applied in turn where given."""
    torch.manual_seed(dice.randrange(1 << 16))
    maker = Maker(dice)
    kinds = [dice.choice(sorted(INPUTS)) for _ in range(dice.choice((1, 1, 1, 2)))]
    for x in [maker.input(torch.randn(INPUTS[kind], dtype=torch.float64)) for kind in kinds]:
        _widened(maker, x)
    for name in rules if rules is not None else [None] * dice.randint(1, 9):
        found = maker.floats(RULES[name][1] if name else ANY)
        if found:
            x = found[-1] if maker.chance(0.7) else maker.pick(found)
            maker.draw(name or maker.pick([n for n, (_, ranks) in RULES.items() if x.tensor.ndim in ranks]), x)
    _finish(maker, len(kinds))
    inputs = tuple(v.tensor for v in maker.values[: len(kinds)])
    return maker.program.double().eval(), inputs, maker.drawn


def _widened(maker: Maker, x: Val) -> None:
    """A first layer, so that there is something to prune from the start."""
    maker.draw({IMAGE: "conv2d", SEQUENCE: "linear", VECTOR: "linear"}[x.tensor.ndim], x)


def _finish(maker: Maker, inputs: int) -> None:
    """Outputs: the last value through a head, and now and then others, as they are."""
    ends = [v for v in maker.values[inputs:] if v.tensor.is_floating_point()] or maker.values[:1]
    chosen = [ends[-1], *(maker.pick(ends) for _ in range(maker.pick((0, 0, 1, 2))))]
    results = [chosen[0] if maker.chance(0.05) else _end(maker, chosen[0])]
    for v in chosen[1:]:
        results.append(v if maker.chance(0.3) else _end(maker, v))
    maker.program.results = list(dict.fromkeys(v.number for v in results))
    maker.program.named = maker.chance(0.2)


def _end(maker: Maker, x: Val) -> Val:
    """Three numbers of a value, by a linear layer on its features; the value itself where that does not fit."""
    if x.tensor.ndim < VECTOR:
        return x
    name, d = maker.layer(nn.Linear(x.width, 3)), x.feature
    try:
        return maker.step(lambda net, t: net[name](t.movedim(d, -1)), x)
    except Unfit:
        return x
