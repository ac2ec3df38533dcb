"""The signature language: parsed, applied, and refused."""

from __future__ import annotations

import pytest

from prunec.ir.axes import Atoms, Axes, Reason, pinned
from prunec.ir.errors import Declined
from prunec.ir.signature import Binding, Signature, apply
from prunec.ir.solve import Solution, solve

REASON = Reason("test")


def applied(text: str, shapes: list[tuple[int, ...]], results: list[tuple[int, ...]], **sizes: int) -> Applied:
    """``text`` on fresh operands of ``shapes``."""
    atoms = Atoms()
    operands = [[atoms.fresh(d) for d in shape] for shape in shapes]
    found, binding = apply(Signature.parse(text), atoms, list(operands), results, sizes, REASON)
    return Applied(solve(atoms), operands, found, binding)


class Applied:
    """Axes as the components of their positions, so that they compare."""

    def __init__(self, solution: Solution, operands: list[Axes], results: list[Axes], binding: Binding) -> None:
        self.units, self.binding = solution.units, binding
        self.operands = [[tuple(solution.component[a].tolist()) for a in axes] for axes in operands]
        self.results = [[tuple(solution.component[a].tolist()) for a in axes] for axes in results]


def test_terms() -> None:
    signature = Signature.parse("B (g c!) *, ... i -> (g c) 3")
    (batch, product, rest), (aligned, letter) = signature.operands
    assert (batch.letters, product.letters, product.normalised) == (("B",), ("g", "c"), True)
    assert rest.spans
    assert aligned.spans
    assert not letter.spans
    assert signature.results[0][1].letters == ("3",)
    assert Signature.parse("B (g c!) *, ... i -> (g c) 3") is signature


@pytest.mark.parametrize(
    ("text", "shapes", "result", "units"),
    [
        ("... i, o i, o -> ... o", [(2, 5), (3, 5), (3,)], (2, 3), 2 + 5 + 3),  # a linear layer
        ("B i *, o i *, o -> B o *", [(2, 3, 4, 4), (5, 3, 3, 3), (5,)], (2, 5, 2, 2), 8),
        ("B c *, c, c -> B c *", [(2, 3, 4), (3,), (3,)], (2, 3, 4), 3),
        ("... m k, ... k n -> ... m n", [(2, 3, 4), (2, 4, 5)], (2, 3, 5), 2 + 3 + 4 + 5),
        ("V d, ... -> ... d", [(9, 4), (2, 3)], (2, 3, 4), 2 + 3 + 4),
        ("..., ... -> ...", [(2, 3), (3,)], (2, 3), 2 + 3),
    ],
)
def test_the_same_letter_is_the_same_unit(
    text: str, shapes: list[tuple[int, ...]], result: tuple[int, ...], units: int
) -> None:
    assert applied(text, shapes, [result]).units == units


@pytest.mark.parametrize(
    ("one", "other", "shapes", "results", "sizes"),
    [
        ("... i, o i -> ... o", "... a, b a -> ... b", [(2, 5), (3, 5)], [(2, 3)], {}),
        ("B c *, c -> B c *", "N x *, x -> N x *", [(2, 3, 4), (3,)], [(2, 3, 4)], {}),
        ("B (g i) -> B (g i)", "B (g i) -> B (g  i)", [(2, 6)], [(2, 6)], {"g": 2}),
        ("B (c 4) -> B c", "B (c R) -> B c", [(2, 12)], [(2, 3)], {"R": 4}),
        ("B c -> B c", "B * -> B c", [(1, 1)], [(1, 1)], {}),
        ("... -> ...", "a b -> a b", [(3, 4)], [(3, 4)], {}),
        ("a b -> b a", "c d -> d c", [(3, 4)], [(4, 3)], {}),
    ],
)
def test_signatures_that_say_the_same(
    one: str, other: str, shapes: list[tuple[int, ...]], results: list[tuple[int, ...]], sizes: dict[str, int]
) -> None:
    a, b = applied(one, shapes, results, **sizes), applied(other, shapes, results, **sizes)
    assert (a.operands, a.results, a.units) == (b.operands, b.results, b.units)


def test_kept_axes_are_pinned() -> None:
    found = applied("B c * -> B c *", [(2, 3, 4)], [(2, 3, 4)])
    assert found.operands[0][0] == (0, 0)
    assert found.operands[0][2] == (0, 0, 0, 0)
    assert found.results[0][1] == found.operands[0][1]
    assert found.units == 3


def test_a_product_in_and_out_keeps_its_factors() -> None:
    found = applied("B (g i), (g o) i -> B (g o)", [(2, 6), (4, 3)], [(2, 4)], g=2)
    assert found.units == 2 + 3 + 2
    assert found.results[0][1] == found.operands[1][0]
    assert found.binding.sizes["g"] == 2


def test_an_absent_operand_is_left_out() -> None:
    atoms = Atoms()
    weight = [atoms.fresh(3), atoms.fresh(5)]
    x = [pinned(2), atoms.fresh(5)]
    results, _ = apply(Signature.parse("... i, o i, o -> ... o"), atoms, [x, weight, None], [(2, 3)], {}, REASON)
    assert results[0][1] is weight[0]


def test_an_axis_of_one_broadcasts_against_a_letter() -> None:
    found = applied("B c, c -> B c", [(2, 3), (1,)], [(2, 3)])
    assert found.units == 3


@pytest.mark.parametrize(
    ("text", "shapes", "results", "sizes", "why"),
    [
        ("B c -> B c", [(2, 3, 4)], [(2, 3, 4)], {}, "rank 3 where 2 axes are declared"),
        ("B c * -> B c *", [(2,)], [(2,)], {}, "rank 1 is too small"),
        ("a a -> a", [(3, 4)], [(3,)], {}, "letter 'a' is 3 in one place and 4 in another"),
        ("(g c) -> (g c)", [(6,)], [(6,)], {}, "does not factor as (g c)"),
        ("(g c) -> (g c)", [(6,)], [(6,)], {"g": 4}, "does not factor as (g c)"),
        ("c -> c", [(3,), (3,)], [(3,)], {}, "1 operand(s) more"),
        ("..., ... -> ...", [(2, 3), (4,)], [(2, 3)], {}, "sizes 3 and 4 do not broadcast"),
        ("a b -> a b", [(2, 3)], [(2,)], {}, "result of rank 1 is too small"),
    ],
)
def test_what_does_not_fit_is_declined(
    text: str, shapes: list[tuple[int, ...]], results: list[tuple[int, ...]], sizes: dict[str, int], why: str
) -> None:
    with pytest.raises(Declined) as declined:
        applied(text, shapes, results, **sizes)
    assert why in str(declined.value)


@pytest.mark.parametrize(
    "text", ["B c", "", "B (g c -> B c", "B g c) -> B c", "a ... b ... -> a", "* * -> *", "B c -> B ?", "(a *) -> a"]
)
def test_malformed_signatures(text: str) -> None:
    with pytest.raises(ValueError, match="signature"):
        Signature.parse(text)
