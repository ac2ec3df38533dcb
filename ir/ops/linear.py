"""Linear layers, matrix products and embeddings."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ..axes import Axes
from ..errors import Declined
from ..graph import Node
from ..opset import Cost, Site, declare, moves, zero_after_first, zero_after_operands, zero_after_weights
from ..signature import Signature, apply


def _linear_macs(cost: Cost) -> float:
    return cost.result() * cost("i")


def _matmul_macs(cost: Cost) -> float:
    return cost.result() * cost("k")


declare(
    "linear", "... i, o i, o -> ... o", "Linear layer, weight (out, in).", macs=_linear_macs, zero=zero_after_weights
)
declare(
    "linear_t",
    "... i, i o, ... o -> ... o",
    "Linear layer, weight (in, out).",
    macs=_linear_macs,
    zero=zero_after_weights,
)
declare(
    "matmul",
    "... m k, ... k n -> ... m n",
    "Batched matrix product.",
    macs=_matmul_macs,
    contracts="k",
    zero=zero_after_operands,
)
declare(
    "matvec", "... m k, k -> ... m", "Matrix times vector.", macs=_matmul_macs, contracts="k", zero=zero_after_operands
)
declare(
    "baddbmm",
    "... m k, ... k n, ... m n -> ... m n",
    "Batched matrix product plus a matrix.",
    macs=_matmul_macs,
    contracts="k",
    zero=zero_after_operands,
)
declare("embedding", "V d, ... -> ... d", "Rows of a table, looked up.", zero=zero_after_first)


def einsum_signature(equation: str) -> Signature:
    """The signature of an einsum equation; every label is a prunable letter, capital ones too."""
    left, _, right = equation.replace(" ", "").partition("->")
    return Signature.parse(f"{', '.join(_spell(t) for t in left.split(','))} -> {_spell(right)}")


def _spell(term: str) -> str:
    pieces = term.replace("...", ".")
    return " ".join("..." if c == "." else (c if c.islower() else f"{c.lower()}_upper") for c in pieces)


def _summed(node: Node) -> list[str]:
    """Letters that an einsum sums over."""
    left, _, right = str(node.attrs["equation"]).replace(" ", "").partition("->")
    return [c if c.islower() else f"{c.lower()}_upper" for c in sorted({c for c in left if c.isalpha()} - set(right))]


def _einsum_macs(cost: Cost) -> float:
    return cost.result() * math.prod(cost(letter) for letter in _summed(cost.site.node))


@moves("einsum", macs=_einsum_macs, contracts=_summed, zero=zero_after_operands)
def einsum(site: Site) -> list[Axes]:
    """Einstein summation: the equation is the signature."""
    equation = str(site.attrs["equation"])
    terms = equation.replace(" ", "").replace("...", "").partition("->")[0].split(",")
    if "->" not in equation or any(len(set(t)) != len(t) for t in terms):
        raise Declined(f"equation {equation!r} is implicit or repeats a label")
    sizes: Mapping[str, int] = {}
    results, binding = apply(einsum_signature(equation), site.atoms, site.axes, site.shapes, sizes, site.reason)
    site.binding = binding
    return results
