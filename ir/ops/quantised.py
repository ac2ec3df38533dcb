"""Integers that stand for numbers: ``(q - zero) * scale``.  Scale and zero point are one, or one for each position.

Both ways between integers and numbers keep the axes.  Layers on integers are the layers of numbers with scales and
zero points after their operands: ``x, weight, bias``, then scale and zero point of ``x``, the weight, the result.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from ..axes import Axes, pinned
from ..errors import Declined
from ..graph import Node, Value
from ..opset import (
    AtDead,
    Coded,
    Contracts,
    Fitting,
    Site,
    ZeroPoint,
    always_zero,
    declare,
    moves,
    not_zero,
    zero_after_first,
    zero_after_weights,
)
from ..signature import Signature, apply
from .conv import layer_macs, pool
from .elementwise import scan
from .join import joined
from .linear import matmul_macs, product_zero

_PER_TENSOR = "*"


def _everything(node: Node) -> Mapping[int, tuple[int, ...]]:
    return {0: tuple(range(len(node.inputs[0].shape or ()))) if node.inputs[0] is not None else ()}


def _measured(node: Node) -> Value | None:
    """The zero point that comes with the range: the third result."""
    return node.outputs[2] if len(node.outputs) > 2 else None


@moves("quantise_dynamic", normalises=_everything, zero=always_zero, zero_point=_measured)
def quantise_dynamic(site: Site) -> list[Axes]:
    """Numbers to integers by their own range, which is that of the survivors; then the scale and the zero point."""
    return [list(site.x), *([pinned(d) for d in shape] for shape in site.shapes[1:])]


def _dim(node: Node) -> int:
    return int(node.attrs["dim"])


def _of_codes(node: Node) -> Value | None:
    """Integers have the zero point, numbers none."""
    return None if node.attrs["function"] == "number" else node.inputs[2]


def _operand(k: int) -> ZeroPoint:
    """The zero point of the result is operand ``k``."""
    return lambda node: node.inputs[k] if k < len(node.inputs) else None


@moves("quantise", zero=zero_after_first, coded={0: Coded(1, 2, _dim)}, zero_point=_of_codes)
def quantise(site: Site) -> list[Axes]:
    """Numbers to integers (``function`` is ``code``), or back (``number``): ``x, scale, zero point``.

    The last two are single, or have one for each position of axis ``dim``.
    """
    for axes in site.axes[1:]:
        if axes is None or math.prod(map(len, axes)) == 1:
            continue
        if len(axes) != 1 or len(axes[0]) != len(site.x[_dim(site.node)]):
            raise Declined("a scale for each block")
        site.atoms.unify(site.x[_dim(site.node)], axes[0])
    return [list(site.x)]


def _applied(site: Site, layer: str, along: str) -> list[Axes]:
    """The signature of a layer; what lies beside its weight is single, or has the letters ``along``."""
    operands, _, result = layer.partition(" -> ")
    terms = [
        *operands.split(", "),
        *(_beside(axes, along if k in (2, 3) else "") for k, axes in enumerate(site.axes[3:])),
    ]
    signature = Signature.parse(f"{', '.join(terms)} -> {result}")
    sizes = {"g": int(site.attrs.get("groups", 1))}
    found, site.binding = apply(signature, site.atoms, site.axes, site.shapes, sizes, site.reason)
    return found


def _beside(axes: Axes | None, along: str) -> str:
    if axes is None or math.prod(map(len, axes)) == 1:
        return _PER_TENSOR
    if not along or len(axes) != 1:
        raise Declined("a scale for each row, or each block")
    return along


def _first_axis(node: Node) -> int:
    return 0


def _coded(axis: int) -> dict[int, Coded]:
    return {0: Coded(3, 4, _first_axis), 1: Coded(5, 6, lambda node: axis), 2: Coded(None, None, _first_axis)}


def _groups(fitting: Fitting) -> dict[str, object]:
    return {"groups": fitting.site.count(fitting.alive, "g")}


def _elementwise_zero(node: Node, at_dead: AtDead) -> bool:
    """A product is zero where one factor is, a sum where both terms are and none is broadcast."""
    zeros = (v is not None and at_dead(v) and at_dead.spans(v, node.output) for v in (node.inputs[0], node.inputs[3]))
    return any(zeros) if node.attrs["function"] == "product" else all(zeros)


declare(
    "elementwise_quantised",
    "..., *, *, ..., *, *, *, * -> ...",
    "A sum or product of integers, each operand with its scale and zero point after it.",
    zero=_elementwise_zero,
    coded={0: Coded(1, 2, _first_axis), 3: Coded(4, 5, _first_axis)},
    zero_point=_operand(7),
)


def _pin_beside(site: Site, parts: Iterable[int]) -> None:
    """Scales and zero points, the operands that are not ``parts``, are single."""
    for k, axes in enumerate(site.axes):
        for axis in () if k in parts or axes is None else axes:
            site.pin(axis, "a scale or a zero point")


def _activated(node: Node, at_dead: AtDead) -> bool:
    return node.attrs["function"] == "leaky_relu" and at_dead(node.inputs[0])


_ONE: Mapping[int, Coded] = {0: Coded(1, 2, _first_axis)}
"""``x``, its scale and zero point, then those of the result."""


@moves("activation_quantised", zero=_activated, coded=_ONE, zero_point=_operand(4))
def activation_quantised(site: Site) -> list[Axes]:
    """A ``function`` of integers: ``x``, its scale and zero point, those of the result."""
    _pin_beside(site, (0,))
    return [list(site.x)]


@moves("pool_quantised", zero=zero_after_first, coded=_ONE, zero_point=_operand(4))
def pool_quantised(site: Site) -> list[Axes] | Axes:
    """A pool of integers: ``x``, its scale and zero point, those of the result."""
    _pin_beside(site, (0,))
    return pool(site)


@moves("softmax_quantised", zero=not_zero, coded=_ONE, zero_point=_operand(4))
def softmax_quantised(site: Site) -> list[Axes] | Axes:
    """Softmax of integers over ``dims``, which are kept: a removed position is a code that only the reader knows."""
    _pin_beside(site, (0,))
    return scan(site)


def _parts(node: Node) -> range:
    return range(2, len(node.inputs), 3)


def _parts_zero(node: Node, at_dead: AtDead) -> bool:
    return all(at_dead(node.inputs[k]) for k in _parts(node))


@moves(
    "cat_quantised",
    zero=_parts_zero,
    coded=lambda node: {k: Coded(k + 1, k + 2, _first_axis) for k in _parts(node)},
    zero_point=_operand(1),
)
def cat_quantised(site: Site) -> list[Axes]:
    """Concatenation along ``dim``: scale and zero point of the result, then each part with its own."""
    parts = _parts(site.node)
    _pin_beside(site, parts)
    return joined(site, [site.axes[k] for k in parts])


def _summed_over(letter: str) -> Contracts:
    """Sums of products of the first two operands over ``letter``."""
    return lambda node: {letter: (0, 1)}


_result = _operand(8)


@moves(
    "conv_quantised",
    refit=_groups,
    macs=layer_macs,
    contracts=_summed_over("i"),
    zero=zero_after_weights(1),
    coded=_coded(0),
    zero_point=_result,
)
def conv_quantised(site: Site) -> list[Axes]:
    """Convolution on integers."""
    return _applied(site, "B (g i) *, (g o) i *, (g o) -> B (g o) *", "(g o)")


@moves(
    "linear_quantised",
    macs=layer_macs,
    contracts=_summed_over("i"),
    zero=zero_after_weights(-1),
    coded=_coded(0),
    zero_point=_result,
)
def linear_quantised(site: Site) -> list[Axes]:
    """Linear layer on integers, weight (out, in)."""
    return _applied(site, "... i, o i, o -> ... o", "o")


@moves(
    "matmul_quantised",
    macs=matmul_macs,
    contracts=_summed_over("k"),
    zero=product_zero,
    coded=_coded(-1),
    zero_point=_result,
)
def matmul_quantised(site: Site) -> list[Axes]:
    """Matrix product on integers, weight (…, in, out)."""
    return _applied(site, "... m k, ... k n, n -> ... m n", "n")
