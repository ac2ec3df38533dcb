"""Axes, products and the common grid of two shapes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunec.ir.axes import PINNED, Atoms, Reason, common_factors, pinned


def test_fresh_positions_are_independent_and_a_size_of_one_is_pinned() -> None:
    atoms = Atoms()
    first, second = atoms.fresh(3), atoms.fresh(2)
    assert first.tolist() == [1, 2, 3]
    assert second.tolist() == [4, 5]
    assert atoms.count == 6
    assert atoms.fresh(1).tolist() == [PINNED]
    assert atoms.fresh(0).size == 0
    assert atoms.count == 6


def test_unify_states_only_what_differs() -> None:
    atoms = Atoms()
    a, b = atoms.fresh(3), atoms.fresh(3)
    atoms.unify(a, a)
    atoms.unify(a, np.array([a[0], b[1], a[2]]))
    assert [e.tolist() for e in atoms.equalities] == [[[2], [5]]]


def test_pin_leaves_out_what_is_pinned_already() -> None:
    atoms = Atoms()
    atoms.pin(pinned(4), Reason("output"))
    assert atoms.pins == []
    atoms.pin(np.array([0, 7, 7, 5]), Reason("output"))
    assert atoms.pins[0][0].tolist() == [5, 7]


def test_split_of_independent_positions_makes_a_product() -> None:
    atoms = Atoms()
    axis = atoms.fresh(6)
    heads, dims = atoms.split(axis, (2, 3))
    assert (len(heads), len(dims)) == (2, 3)
    (product,) = atoms.products
    assert product.atoms is axis
    assert product.grid == (2, 3)
    assert product.factors.tolist() == [[h, d] for h in heads for d in dims]


def test_split_is_remembered() -> None:
    atoms = Atoms()
    axis = atoms.fresh(6)
    first, again = atoms.split(axis, (2, 3)), atoms.split(axis.copy(), (2, 3))
    assert all(a is b for a, b in zip(first, again, strict=True))
    assert atoms.split(axis, (6,)) == [axis]


@pytest.mark.parametrize(
    ("positions", "grid", "expected"),
    [
        ([5, 5, 6, 6], (2, 2), [[5, 6], [0, 0]]),  # varies along the first factor alone
        ([5, 6, 5, 6], (2, 2), [[0, 0], [5, 6]]),  # along the second alone
        ([5, 5, 5, 5], (2, 2), [[5, 5], [0, 0]]),  # one atom everywhere rides on the first factor
        ([5, 5, 5], (1, 3), [[0], [5, 5, 5]]),  # … that can carry it
        ([0, 0, 0, 0], (2, 2), [[0, 0], [0, 0]]),
    ],
)
def test_split_along_which_atoms_do_not_vary(
    positions: list[int], grid: tuple[int, int], expected: list[list[int]]
) -> None:
    atoms = Atoms()
    atoms.fresh(8)
    assert [f.tolist() for f in atoms.split(np.array(positions), grid)] == expected
    assert atoms.products == []


def test_merge_gives_back_what_split_took_apart() -> None:
    atoms = Atoms()
    factors = [atoms.fresh(2), atoms.fresh(3)]
    merged = atoms.merge(factors)
    assert atoms.merge(list(factors)) is merged
    assert atoms.products[0].factors.tolist() == [[a, b] for a in factors[0] for b in factors[1]]


def test_merge_with_pinned_factors_is_no_product() -> None:
    atoms = Atoms()
    axis = atoms.fresh(3)
    assert atoms.merge([axis]) is axis
    assert atoms.merge([pinned(2), axis]).tolist() == [*axis.tolist()] * 2
    assert atoms.merge([axis, pinned(2)]).tolist() == np.repeat(axis, 2).tolist()
    assert atoms.merge([pinned(2), pinned(3)]).tolist() == [0] * 6
    assert atoms.products == []


def test_a_product_of_three() -> None:
    atoms = Atoms()
    atoms.merge([atoms.fresh(2), atoms.fresh(3), atoms.fresh(2)])
    assert atoms.products[0].factors.shape == (12, 3)
    assert atoms.products[0].grid == (2, 3, 2)


@pytest.mark.parametrize(
    ("a", "b", "factors"),
    [
        ((6, 4), (2, 12), [4, 3, 2]),
        ((24,), (2, 3, 4), [4, 3, 2]),
        ((2, 3), (6,), [3, 2]),
        ((2, 1, 3), (2, 3), [3, 2]),
        ((4,), (4,), [4]),
        ((1,), (1, 1), []),
        ((4, 6), (6, 4), None),  # 6 and 4 do not divide one another
        ((4,), (5,), None),
    ],
)
def test_common_factors(a: tuple[int, ...], b: tuple[int, ...], factors: list[int] | None) -> None:
    assert common_factors(a, b) == factors


@given(st.lists(st.integers(1, 5), min_size=1, max_size=5), st.lists(st.booleans(), min_size=5, max_size=5))
def test_groupings_of_one_grid_have_a_common_grid(grid: list[int], cuts: list[bool]) -> None:
    groups: list[list[int]] = [[]]
    for size, cut in zip(grid, cuts, strict=False):
        groups[-1].append(size)
        if cut:
            groups.append([])
    grouped = tuple(math.prod(g) for g in groups)
    found = common_factors(grid, grouped)
    assert found is not None
    assert math.prod(found) == math.prod(grid)
    assert all(f > 1 for f in found)
