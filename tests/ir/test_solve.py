"""The closure rules, each on a tiny example, and all of them against brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunec.ir.axes import Atoms, Axis, Reason
from prunec.ir.solve import Solution, solve

PIN = Reason("test")


def units_of(solution: Solution, axis: Axis) -> list[list[int]]:
    """For each position the units that it needs."""
    position, unit = solution.needs(axis)
    return [sorted(unit[position == k].tolist()) for k in range(len(axis))]


def test_positions_that_are_equal_are_one_unit() -> None:
    atoms = Atoms()
    a, b, c = atoms.fresh(2), atoms.fresh(2), atoms.fresh(2)
    atoms.unify(a, b)
    atoms.unify(b, c[::-1])
    solution = solve(atoms)
    assert solution.units == 2
    assert units_of(solution, a) == units_of(solution, b) == [[0], [1]]
    assert units_of(solution, c) == [[1], [0]]


def test_pinned_positions_are_no_unit() -> None:
    atoms = Atoms()
    a = atoms.fresh(3)
    atoms.pin(a[:1], PIN)
    solution = solve(atoms)
    assert solution.units == 2
    assert units_of(solution, a) == [[], [0], [1]]
    assert solve(atoms, ignore=lambda reason: reason is PIN).units == 3


def test_a_product_is_alive_iff_its_factors_are() -> None:
    atoms = Atoms()
    h, d = atoms.fresh(2), atoms.fresh(3)
    axis = atoms.merge([h, d])
    solution = solve(atoms)
    assert solution.units == 5
    assert units_of(solution, axis) == [[i, 2 + j] for i in range(2) for j in range(3)]
    alive = solution.alive([1])
    assert alive[axis].tolist() == [True] * 3 + [False] * 3
    assert alive[d].all()


def test_identity_a_product_with_one_live_factor_equals_it() -> None:
    atoms = Atoms()
    h, d = atoms.fresh(2), atoms.fresh(3)
    axis = atoms.merge([h, d])
    atoms.pin(h, PIN)
    solution = solve(atoms)
    assert solution.units == 3
    assert units_of(solution, axis) == [[0], [1], [2]] * 2


def test_identity_a_product_with_no_live_factor_is_pinned() -> None:
    atoms = Atoms()
    h, d = atoms.fresh(2), atoms.fresh(3)
    axis = atoms.merge([h, d])
    atoms.pin(h, PIN)
    atoms.pin(d, PIN)
    solution = solve(atoms)
    assert solution.units == 0
    assert not solution.component[axis].any()


def test_pinned_the_factors_of_a_pinned_product_are_pinned() -> None:
    atoms = Atoms()
    h, d = atoms.fresh(2), atoms.fresh(3)
    axis = atoms.merge([h, d])
    atoms.pin(axis[:2], PIN)  # (0, 0) and (0, 1)
    solution = solve(atoms)
    assert units_of(solution, h) == [[], [0]]
    assert units_of(solution, d) == [[], [], [1]]


def test_congruence_products_of_equal_factors_are_equal() -> None:
    atoms = Atoms()
    h, d, e = atoms.fresh(2), atoms.fresh(3), atoms.fresh(3)
    first, second = atoms.merge([h, d]), atoms.merge([h, e])
    atoms.unify(d, e)
    solution = solve(atoms)
    assert (solution.component[first] == solution.component[second]).all()


def test_congruence_is_commutative_and_idempotent() -> None:
    atoms = Atoms()
    a, b = atoms.fresh(2), atoms.fresh(2)
    first, second, square = atoms.merge([a, b]), atoms.merge([b, a]), atoms.merge([a, a])
    solution = solve(atoms)
    assert solution.component[first[1]] == solution.component[second[2]]  # a0·b1 = b1·a0
    assert solution.component[square[0]] == solution.component[a[0]]


def test_injectivity_equal_products_on_one_grid_have_equal_factors() -> None:
    atoms = Atoms()
    first, second = [atoms.fresh(2), atoms.fresh(3)], [atoms.fresh(2), atoms.fresh(3)]
    atoms.unify(atoms.merge(first), atoms.merge(second))
    solution = solve(atoms)
    assert solution.units == 5
    for a, b in zip(first, second, strict=True):
        assert (solution.component[a] == solution.component[b]).all()


def test_a_finer_factorisation_of_the_same_axis_agrees() -> None:
    """(h, d) and (h, r, k) with d = (r, k): a rotary half inside a head."""
    atoms = Atoms()
    axis = atoms.fresh(8)
    h, d = atoms.split(axis, (2, 4))
    r, k = atoms.split(d, (2, 2))
    solution = solve(atoms)
    assert solution.conflicts == 0
    assert solution.units == 6
    assert units_of(solution, axis)[5] == sorted([*units_of(solution, h[1:])[0], *units_of(solution, d[1:2])[0]])
    assert units_of(solution, d[1:2])[0] == sorted([*units_of(solution, r[:1])[0], *units_of(solution, k[1:])[0]])


def test_incompatible_factorisations_are_pinned_and_counted() -> None:
    """12 positions as 4 groups of 3 and as 2 groups of 6."""
    atoms = Atoms()
    axis = atoms.fresh(12)
    atoms.split(axis, (4, 3))
    atoms.split(axis, (2, 6))
    solution = solve(atoms)
    assert solution.conflicts == 12
    assert solution.units == 0


def test_a_product_among_its_own_factors_is_pinned() -> None:
    atoms = Atoms()
    a, b = atoms.fresh(2), atoms.fresh(2)
    axis = atoms.merge([a, b])
    atoms.unify(axis[:2], a)
    solution = solve(atoms)
    assert solution.conflicts > 0
    assert units_of(solution, a)[0] == []


def test_units_are_numbered_by_their_first_atom() -> None:
    atoms = Atoms()
    a, b = atoms.fresh(3), atoms.fresh(3)
    atoms.unify(a[2:], b[:1])
    solution = solve(atoms)
    assert units_of(solution, a) == [[0], [1], [2]]
    assert units_of(solution, b) == [[2], [3], [4]]


def test_nothing_at_all() -> None:
    solution = solve(Atoms())
    assert (solution.units, solution.conflicts) == (0, 0)
    assert solution.alive([]).tolist() == [True]


# ---------------------------------------------------------------------- against brute force


@st.composite
def facts(draw: st.DrawFn) -> tuple[Atoms, list[Axis]]:
    """Axes of six positions: fresh, split, merged, permuted, tied and pinned at random."""
    atoms = Atoms()
    axes = [atoms.fresh(6), atoms.fresh(6)]
    for _ in range(draw(st.integers(1, 7))):
        a = axes[draw(st.integers(0, len(axes) - 1))]
        b = axes[draw(st.integers(0, len(axes) - 1))]
        action = draw(st.sampled_from(["unify", "split", "merge", "pin", "permute", "fresh"]))
        if action == "unify":
            atoms.unify(a, b)
        elif action == "split":
            h, d = atoms.split(a, draw(st.sampled_from([(2, 3), (3, 2)])))
            axes.append(atoms.merge([d, h]))
        elif action == "merge":
            axes.append(atoms.merge([atoms.fresh(2), atoms.fresh(3)]))
        elif action == "pin":
            atoms.pin(a[draw(st.integers(0, 5)) :], PIN)
        elif action == "permute":
            axes.append(a[draw(st.permutations(range(6)))])
        else:
            axes.append(atoms.fresh(6))
    return atoms, axes


@given(facts())
@settings(max_examples=150, deadline=None, derandomize=True)
def test_every_drop_set_satisfies_every_fact(drawn: tuple[Atoms, list[Axis]]) -> None:
    """Alive-ness is what the facts say, for every set of dropped units: equal, pinned, product = AND of its factors."""
    atoms, _ = drawn
    solution = solve(atoms)
    units = range(min(solution.units, 6))
    for size in range(len(units) + 1):
        for gone in itertools.combinations(units, size):
            alive = solution.alive(gone)
            assert alive[0]
            assert all((alive[e[0]] == alive[e[1]]).all() for e in atoms.equalities)
            assert all(alive[axis].all() for axis, _ in atoms.pins)
            for product in atoms.products:
                assert (alive[product.atoms] == alive[product.factors].all(1)).all()


@given(facts())
@settings(max_examples=100, deadline=None, derandomize=True)
def test_every_unit_matters_and_the_solution_is_closed(drawn: tuple[Atoms, list[Axis]]) -> None:
    """Dropping a unit kills some atom, and no unit kills what another one alone stands for."""
    atoms, _ = drawn
    solution = solve(atoms)
    dead = [frozenset(np.flatnonzero(~solution.alive([u])).tolist()) for u in range(solution.units)]
    assert all(dead)
    assert len(set(dead)) == len(dead)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_the_order_of_facts_does_not_matter(order: tuple[int, ...]) -> None:
    atoms = Atoms()
    a, b, c = atoms.fresh(4), atoms.fresh(4), atoms.fresh(4)
    for k in order:
        if k == 1:
            atoms.split(b, (2, 2))
        else:
            atoms.unify(*((a, b), (), (c, a))[k])
    assert solve(atoms).units == 4
