"""Linear layers, matrix products and embeddings."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from ..axes import Axes
from ..errors import Declined
from ..graph import Node, Value
from ..opset import (
    AtDead,
    Cost,
    Site,
    declare,
    first_carried,
    moves,
    zero_after_first,
    zero_after_operands,
    zero_after_weights,
    zero_within,
)
from ..signature import Signature, Term, apply


def _linear_macs(cost: Cost) -> float:
    return cost.result() * cost("i")


def matmul_macs(cost: Cost) -> float:
    """For each result one product for each ``k``."""
    return cost.result() * cost("k")


declare(
    "linear",
    "... i, o i, o -> ... o",
    "Linear layer, weight (out, in).",
    macs=_linear_macs,
    contracts="i",
    zero=zero_after_weights(-1),
)
declare(
    "linear_t",
    "... i, i o, ... o -> ... o",
    "Linear layer, weight (in, out).",
    macs=_linear_macs,
    contracts="i",
    zero=zero_after_weights(-1),
)


def product_zero(node: Node, at_dead: AtDead) -> bool:
    """Rows are zero where the first factor is, columns where the second is, transposed or not; matrices where both are.

    What is added, the third operand, is to be zero as well, and not broadcast to where positions may go.
    """
    free, rank = at_dead.free(node.output), len(node.output.shape or ())
    rows, columns, matrices = rank - 2 in free, rank - 1 in free, bool(free - {rank - 2, rank - 1})
    added = [v for v in node.inputs[2:3] if v is not None]
    first, second = (at_dead(v) for v in node.inputs[:2])
    return (
        all(at_dead(v) and at_dead.spans(v, node.output) for v in added)
        and (first or not (rows or matrices))
        and (second or not (columns or matrices))
    )


declare(
    "matmul",
    "... m k, ... k n -> ... m n",
    "Batched matrix product.",
    macs=matmul_macs,
    contracts="k",
    zero=product_zero,
)
declare(
    "matmul_t",
    "... m k, ... n k -> ... m n",
    "Batched matrix product, the second factor transposed.",
    macs=matmul_macs,
    contracts="k",
    zero=product_zero,
)
declare(
    "matvec", "... m k, k -> ... m", "Matrix times vector.", macs=matmul_macs, contracts="k", zero=zero_after_operands
)
declare(
    "baddbmm",
    "... m k, ... k n, ... m n -> ... m n",
    "Batched matrix product plus a matrix.",
    macs=matmul_macs,
    contracts="k",
    zero=product_zero,
)
declare(
    "embedding",
    "V d, ... -> ... d",
    "Rows of a table, looked up.",
    zero=zero_within(1, zero_after_first),
    carries=first_carried,
)


def einsum_signature(equation: str) -> Signature:
    """The signature of an einsum equation; every label is a prunable letter, capital ones too."""
    left, _, right = equation.replace(" ", "").partition("->")
    return Signature.parse(f"{', '.join(_spell(t) for t in left.split(','))} -> {_spell(right)}")


def _spell(term: str) -> str:
    pieces = term.replace("...", ".")
    return " ".join("..." if c == "." else (c if c.islower() else f"{c.lower()}_upper") for c in pieces)


def _summed_labels(node: Node) -> dict[str, tuple[int, ...]]:
    """Letters that an einsum sums over, with the operands that have them and are not broadcast along them."""
    signature = einsum_signature(str(node.attrs["equation"]))
    left, right = map(_letters, (signature.operands, signature.results))
    return {
        x: tuple(k for k in signature.carriers(x) if not _is_broadcast(signature.operands[k], node.inputs[k], x))
        for x in sorted(left - right - {"..."})
    }


def _is_broadcast(terms: tuple[Term, ...], operand: Value | None, letter: str) -> bool:
    place = next(k for k, term in enumerate(terms) if letter in term.letters)
    aligned = any(term.spans for term in terms[:place])
    shape = operand.shape if operand is not None else None
    return shape is not None and shape[place - len(terms) if aligned else place] == 1


def _letters(side: Iterable[Iterable[Term]]) -> set[str]:
    return {x for operand in side for term in operand for x in term.letters}


def _einsum_macs(cost: Cost) -> float:
    return cost.result() * math.prod(cost(letter) for letter in _summed_labels(cost.site.node))


@moves("einsum", macs=_einsum_macs, contracts=_summed_labels, zero=zero_after_operands)
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
