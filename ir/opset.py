"""The one registry of op declarations, shared by every frontend.

An op is declared once: :func:`declare` with a signature, or :func:`moves` with a short function for ops that move
positions.  A declaration says what happens to the axes; how attributes follow when positions go (``refit``); what it
costs (``macs``); and over which axes it normalises.  To add an op, put one declaration into a file of ``ops/`` and its
names into the frontends.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .axes import Atoms, Axes, Axis, Reason, pinned
from .errors import Declined, UsageError
from .graph import Node, Value
from .signature import Binding, Signature, apply

Alive = NDArray[np.bool_]


@dataclass
class Site:
    """A node being analysed: its operands' axes, its attributes, and the atoms to state facts about."""

    node: Node
    atoms: Atoms
    axes: list[Axes | None]
    binding: Binding = field(default_factory=Binding)
    left_alone: bool = False

    @property
    def attrs(self) -> Mapping[str, Any]:
        return self.node.attrs

    @property
    def x(self) -> Axes:
        """Axes of the first operand."""
        first = self.axes[0] if self.axes else None
        if first is None:
            raise Declined("the first operand is absent or of unknown rank")
        return first

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        return [_shape(v) for v in self.node.outputs]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.shapes[0]

    @property
    def reason(self) -> Reason:
        return Reason(self.node.kind or self.node.op, self.node.name)

    def pin(self, axis: Axis, detail: str = "") -> None:
        self.atoms.pin(axis, Reason(self.node.kind or self.node.op, self.node.name, detail))

    def pin_all(self, detail: str) -> list[Axes]:
        """Pin every operand and return pinned results: what is not understood is left alone."""
        self.left_alone = True
        for axes in self.axes:
            for axis in axes or ():
                self.pin(axis, detail)
        return [[pinned(d) for d in shape] for shape in self.shapes]


def _shape(value: Value) -> tuple[int, ...]:
    if value.shape is None:
        raise Declined(f"the shape of {value} is not known")
    return value.shape


@dataclass
class Analysed:
    """A node after analysis: the axes of its operands and results, and what its letters stand for."""

    node: Node
    operands: list[Axes | None]
    results: list[Axes]
    binding: Binding = field(default_factory=Binding)

    def count(self, alive: Alive, letter: str) -> int:
        """How many positions of ``letter`` are alive."""
        axis = self.binding.letters.get(letter)
        return int(alive[axis].sum()) if axis is not None else self.binding.sizes.get(letter, 1)


@dataclass(frozen=True)
class Fitting:
    """What ``refit`` sees: an analysed node and which atoms are alive."""

    site: Analysed
    alive: Alive

    @property
    def attrs(self) -> Mapping[str, Any]:
        return self.site.node.attrs

    def count(self, axis: Axis) -> int:
        return int(self.alive[axis].sum())

    def before(self, axis: Axis, position: int) -> int:
        """How many alive positions lie before ``position``: its new index."""
        return int(self.alive[axis[:position]].sum())

    @property
    def x(self) -> Axes:
        assert self.site.operands[0] is not None
        return self.site.operands[0]


Rule = Callable[[Site], "list[Axes] | Axes"]
Refit = Callable[[Fitting], dict[str, Any]]
Macs = Callable[["Cost"], float]
Normalised = Callable[[Node], Mapping[int, tuple[int, ...]]]
Letters = Callable[[Node], Iterable[str]]
Contracts = Callable[[Node], Mapping[str, Sequence[int]]]
ZeroPoint = Callable[[Node], Value | None]
Carried = Callable[[Node], Sequence[Value | None]]


class AtDead(Protocol):
    """What is known of the masked network's values at dead positions, by the node that reads them."""

    def __call__(self, value: Value | None) -> bool:
        """Whether ``value`` is surely zero wherever a position is dead, or stands for zero as the node reads it."""

    def holds(self, value: Value | None, number: float) -> bool:
        """Whether ``value`` stands for zero wherever a position is dead, and is ``number`` there."""

    def computed(self, node: Node) -> bool:
        """Whether computing ``node`` on numbers, zeros where operands are zero, gives zero."""

    def free(self, value: Value) -> frozenset[int]:
        """The axes of ``value`` that may lose positions."""

    def spans(self, operand: Value, value: Value) -> bool:
        """Whether ``operand`` has every axis of ``value`` that may lose positions, and is not broadcast along it."""


Codes = Callable[[Node], Mapping[int, "Coded"]]
Zero = Callable[[Node, AtDead], bool]
"""Whether a node's results are zero at dead positions, from what is known of its operands."""


def nothing_summed(node: Node) -> Mapping[str, Sequence[int]]:
    """An op that sums over no letter."""
    return {}


def nothing_carried(node: Node) -> Sequence[Value | None]:
    """Results are computed."""
    return ()


def nothing_coded(node: Node) -> Mapping[int, Coded]:
    """Operands of integers are integers."""
    return {}


def first_carried(node: Node) -> Sequence[Value | None]:
    """Results are made of elements of the first operand."""
    return node.inputs[:1]


def all_carried(node: Node) -> Sequence[Value | None]:
    """Results are made of elements of the operands."""
    return node.inputs


def no_zero_point(node: Node) -> Value | None:
    """Zero is 0, as in floats."""
    return None


def no_letters(node: Node) -> Iterable[str]:
    """None of an op's letters."""
    return ()


def not_zero(node: Node, at_dead: AtDead) -> bool:
    """Nothing is known of the results at dead positions."""
    return False


def always_zero(node: Node, at_dead: AtDead) -> bool:
    """Zeros by themselves: an initial state, or what the masked network puts beside the survivors of a norm."""
    return True


def zero_after_operands(node: Node, at_dead: AtDead) -> bool:
    """Zero where all operands are: products, and what moves or joins positions."""
    return all(at_dead(v) for v in node.inputs if v is not None)


def zero_after_first(node: Node, at_dead: AtDead) -> bool:
    """Zero where the first operand is; the others say where to look."""
    return at_dead(node.inputs[0])


def zero_if_computed(node: Node, at_dead: AtDead) -> bool:
    """A function of elements: it is asked."""
    return at_dead.computed(node)


def zero_after_weights(own: int) -> Zero:
    """A layer: zero along its ``own`` axis where its weight and its bias are; along others, a bias is not."""

    def zero(node: Node, at_dead: AtDead) -> bool:
        others = at_dead.free(node.output) - {own % len(node.output.shape or (0,))}
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        if others and (bias is not None or not at_dead(node.inputs[0])):
            return False
        return at_dead(node.inputs[1]) and (bias is None or (at_dead(bias) and _has_axis(bias, node.output, own)))

    return zero


def _has_axis(bias: Value, result: Value, own: int) -> bool:
    """Whether a bias has a number for each position of axis ``own``."""
    return (bias.shape or (1,))[-1] == (result.shape or (0,))[own]


def zero_within(last: int, zero: Zero) -> Zero:
    """``zero`` where only the ``last`` axes of the result can lose positions; elsewhere nothing is known."""

    def within(node: Node, at_dead: AtDead) -> bool:
        rank = len(node.output.shape or ())
        return all(d >= rank - last for d in at_dead.free(node.output)) and zero(node, at_dead)

    return within


@dataclass(frozen=True)
class Cost:
    """What a MAC formula sees: alive counts of letters and alive sizes of operands and results."""

    site: Analysed
    count: Callable[[Axis], int]

    def __call__(self, letter: str) -> int:
        axis = self.site.binding.letters.get(letter)
        return self.count(axis) if axis is not None else self.site.binding.sizes.get(letter, 1)

    def result(self, k: int = 0) -> float:
        """Elements of result ``k``."""
        return self._numel(self.site.results[k])

    def operand(self, k: int) -> float:
        """Elements of operand ``k``."""
        axes = self.site.operands[k]
        return self._numel(axes) if axes is not None else 0.0

    def sizes(self, k: int) -> list[int]:
        axes = self.site.operands[k]
        return [self.count(a) for a in axes] if axes is not None else []

    def _numel(self, axes: Axes) -> float:
        return float(math.prod(self.count(a) for a in axes))


@dataclass(frozen=True)
class Coded:
    """How an operand of integers stands for numbers: the operands of its scale and its zero point, if there are any.

    Where these have one element for each position, they lie along ``axis``.
    """

    scale: int | None
    zero: int | None
    axis: Callable[[Node], int]


@dataclass(frozen=True)
class Op:
    """A declaration.

    ``normalises`` maps an operand to the axes over which the node normalises or reduces; ``contracts`` are the letters
    over which values are multiplied and summed, with the operands that have them; ``keeps`` those whose positions must
    stay.  ``zero`` says whether results are zero where positions are dead.  ``coded`` are the operands that stand for
    numbers where they are integers; ``zero_point`` is the value that stands for zero in the first result, where that
    holds integers (None: 0).  ``carries`` are the operands of whose elements the results are made, unchanged: what
    stands for zero there does so in the results.
    """

    name: str
    signature: Signature | None
    rule: Rule | None
    attributes: Mapping[str, str]
    refit: Refit | None
    macs: Macs | None
    help: str
    normalises: Normalised | None
    contracts: Contracts = nothing_summed
    zero: Zero = not_zero
    keeps: Letters = no_letters
    coded: Codes = nothing_coded
    zero_point: ZeroPoint = no_zero_point
    carries: Carried = nothing_carried

    def analyse(self, site: Site) -> Analysed:
        """State the facts of a node and return its axes; raises :class:`Declined` when the declaration does not fit."""
        if self.signature is not None:
            sizes = {letter: _fixed(site, attr) for letter, attr in self.attributes.items() if attr in site.attrs}
            results, binding = apply(self.signature, site.atoms, site.axes, site.shapes, sizes, site.reason)
            return Analysed(site.node, site.axes, results, binding)
        assert self.rule is not None
        found = self.rule(site)
        results = found if found and isinstance(found[0], list) else [found]  # type: ignore[list-item]
        if not site.left_alone:
            self._require_bound(site)
        return Analysed(site.node, site.axes, results, site.binding)

    def _require_bound(self, site: Site) -> None:
        """Raise :class:`UsageError` for a letter that is summed over and stands for no axis."""
        bound = {**site.binding.sizes, **site.binding.letters}
        letters = ", ".join(map(repr, sorted(bound))) or "no letter"
        for letter in self.contracts(site.node):
            if letter not in bound:
                raise UsageError(
                    f"the declaration of op {self.name!r}, for {site.node.kind or self.name} {site.node.name!r}: "
                    f"it sums over {letter!r}, and its function binds {letters}",
                    hint="let the function apply a signature that has the letter and keep the binding "
                    "(site.binding = …), or correct contracts=",
                    op=self.name,
                    letter=letter,
                    node=site.node.name,
                )

    def refitted(self, fitting: Fitting) -> dict[str, Any]:
        """Attributes that change when the dead positions go."""
        changed: dict[str, Any] = {}
        for letter, attr in self.attributes.items():
            if letter in fitting.site.binding.letters:
                changed[attr] = fitting.site.count(fitting.alive, letter)
        if self.refit is not None:
            changed |= self.refit(fitting)
        return {k: v for k, v in changed.items() if fitting.attrs.get(k) != v}

    def normalised_axes(self, node: Node) -> Mapping[int, tuple[int, ...]]:
        """For each operand the axes with ``!``: those where removing a position is not zeroing it."""
        if self.normalises is not None:
            return self.normalises(node)
        if self.signature is None:
            return {}
        return _marked(self.signature, node)


def _fixed(site: Site, attribute: str) -> int:
    size = site.attrs[attribute]
    if isinstance(size, Value):
        raise Declined(f"its {attribute} depend on the input")
    return int(size)


def _marked(signature: Signature, node: Node) -> dict[int, tuple[int, ...]]:
    found: dict[int, tuple[int, ...]] = {}
    for k, (terms, value) in enumerate(zip(signature.operands, node.inputs, strict=False)):
        if value is None or value.shape is None or not any(t.normalised for t in terms):
            continue
        span = next((j for j, t in enumerate(terms) if t.spans), len(terms))
        shift = len(value.shape) - len(terms)
        found[k] = tuple(j if j < span else j + shift for j, t in enumerate(terms) if t.normalised)
    return found


OPS: dict[str, Op] = {}
OPAQUE = "opaque"


def declare(
    name: str,
    signature: str,
    help: str,
    *,
    macs: Macs | None = None,
    refit: Refit | None = None,
    contracts: str = "",
    keeps: Letters = no_letters,
    zero: Zero = not_zero,
    coded: Mapping[int, Coded] | Codes = nothing_coded,
    zero_point: ZeroPoint = no_zero_point,
    carries: Carried = nothing_carried,
    **attributes: str,
) -> Op:
    """Declare an op by its signature.  ``attributes`` bind letters to attributes, read and written back."""
    parsed = Signature.parse(signature)
    summed = {letter: parsed.carriers(letter) for letter in contracts}
    if strange := [letter for letter, operands in summed.items() if not operands]:
        raise ValueError(f"op {name!r} sums over {strange[0]!r}, which no operand of {signature!r} has")
    rules = (None, lambda node: summed, zero, keeps, _of_nodes(coded), zero_point, carries)
    return _enter(Op(name, parsed, None, attributes, refit, macs, help, *rules))


def moves(
    name: str,
    *,
    refit: Refit | None = None,
    macs: Macs | None = None,
    normalises: Normalised | None = None,
    contracts: Contracts = nothing_summed,
    zero: Zero | None = None,
    coded: Mapping[int, Coded] | Codes = nothing_coded,
    zero_point: ZeroPoint = no_zero_point,
    carries: Carried = nothing_carried,
) -> Callable[[Rule], Rule]:
    """Declare an op that moves positions by a function from a :class:`Site` to the axes of its results.

    Elements move with the positions of the first operand, zeros among them, unless ``zero`` says otherwise.
    """
    if zero is None:
        zero, carries = zero_after_first, first_carried
    known = zero

    def enter(rule: Rule) -> Rule:
        help = (rule.__doc__ or "").strip()
        rules = (normalises, contracts, known, no_letters, _of_nodes(coded), zero_point, carries)
        _enter(Op(name, None, rule, {}, refit, macs, help, *rules))
        return rule

    return enter


def _of_nodes(coded: Mapping[int, Coded] | Codes) -> Codes:
    """The same operands for every node, where they do not depend on it."""
    return coded if callable(coded) else lambda node: coded


def _enter(op: Op) -> Op:
    if op.name in OPS:
        raise ValueError(f"op {op.name!r} is declared twice")
    OPS[op.name] = op
    return op
