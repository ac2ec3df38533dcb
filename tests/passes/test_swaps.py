"""Orders of channels in which a pattern keeps more: against all orders of a few, and never less than before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from prunec.ir.packing import Pattern
from prunec.passes.order.blocks import Neighbours, Rows, Side, highest
from prunec.passes.order.swaps import raised

ALL = 1e9


def kept(sides: Sequence[Side], order: NDArray[np.int64]) -> float:
    """What all blocks keep in an order, by the definition of the pattern."""
    return sum(_kept(side, order) for side in sides)


def _kept(side: Any, order: NDArray[np.int64]) -> float:
    assert side.labels.size == order.size
    scores, now = side.scores.astype(np.float64), np.arange(len(side.scores))
    now[side.places] = side.places[order]
    if isinstance(side, Neighbours):
        pattern, tensor = Pattern(side.n, side.m), scores[now].T
    else:
        pattern, tensor = Pattern(side.n, scores.shape[1], side.v), np.moveaxis(scores[now], 1, 2)
        tensor = tensor.reshape(len(now), -1)
    return float(tensor[pattern.best(tensor)].sum())


def neighbours(rng: np.random.Generator, size: int, rows: int, n: int, m: int, at: Any = None) -> Neighbours:
    scores = (rng.standard_normal((size, rows)) ** 2).astype(np.float32)
    return Neighbours(scores, np.arange(size) if at is None else np.asarray(at), n, m)


def rows(rng: np.random.Generator, size: int, blocks: int, n: int, m: int, v: int, at: Any = None) -> Rows:
    scores = (rng.standard_normal((size, m, blocks)) ** 2).astype(np.float32)
    return Rows(scores, np.arange(size) if at is None else np.asarray(at), n, v)


def halves(size: int, m: int) -> Iterator[NDArray[np.int64]]:
    """All orders of ``size`` channels in blocks of ``m`` that differ in who shares a block."""

    def blocks(left: tuple[int, ...]) -> Iterator[list[int]]:
        if not left:
            yield []
        for others in combinations(left[1:], m - 1):
            block = [left[0], *others]
            yield from (block + more for more in blocks(tuple(c for c in left if c not in block)))

    return (np.array(order) for order in blocks(tuple(range(size))))


@pytest.mark.parametrize(("size", "n", "m"), [(8, 2, 4), (8, 1, 4), (8, 1, 2), (6, 2, 3), (9, 1, 3), (10, 3, 5)])
def test_the_best_of_a_few_is_found(size: int, n: int, m: int) -> None:
    for seed in range(4):
        side = neighbours(np.random.default_rng(seed), size, 6, n, m)
        best = max(kept([side], order) for order in halves(size, m))
        assert best > kept([side], np.arange(size))
        order, _ = raised([side], ALL, np.random.default_rng(0))
        assert kept([side], order) == pytest.approx(best, rel=1e-9)


def test_the_best_of_a_few_rows_is_found() -> None:
    for seed in range(4):
        side = rows(np.random.default_rng(seed), 8, 3, 1, 4, 4)
        best = max(kept([side], order) for order in halves(8, 4))
        order, _ = raised([side], ALL, np.random.default_rng(0))
        assert kept([side], order) == pytest.approx(best, rel=1e-9)


def test_one_order_for_several_weights() -> None:
    """The best for all together is none of those that are best for one alone."""
    rng = np.random.default_rng(3)
    sides: list[Side] = [neighbours(rng, 8, 4, 2, 4), neighbours(rng, 8, 4, 2, 4), rows(rng, 8, 4, 2, 4, 2)]
    best = max((kept(sides, order) for order in _all(8)), default=0.0)
    order, _ = raised(sides, ALL, np.random.default_rng(0))
    assert kept(sides, order) == pytest.approx(best, rel=1e-9)


def _all(size: int) -> Iterator[NDArray[np.int64]]:
    """Orders in blocks of four, and each in blocks of two."""
    for order in halves(size, 4):
        for first in halves(4, 2):
            for second in halves(4, 2):
                yield order[np.concatenate([first, second + 4])]


sides_of_all_kinds = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**32 - 1),
        "channels": st.integers(2, 24),
        "nm": st.sampled_from([(1, 2), (2, 4), (1, 4), (3, 4), (5, 12)]),
        "v": st.sampled_from([2, 4]),
        "work": st.sampled_from([1.0, 1e4, 1e7]),
        "negative": st.booleans(),
    }
)


@given(sides_of_all_kinds)
@settings(max_examples=40, deadline=None)
def test_never_less_than_before(case: Any) -> None:
    """Channels among others that stay, of blocks that they share with these, in weights of all kinds."""
    rng, (n, m), channels = np.random.default_rng(case["seed"]), case["nm"], case["channels"]
    wide = -(-channels // m) * m + 2 * m
    at = np.sort(rng.choice(wide, channels, replace=False))
    tall = -(-channels // case["v"]) * case["v"] + case["v"]
    on = np.sort(rng.choice(tall, channels, replace=False))
    sides: list[Any] = [neighbours(rng, wide, 5, n, m, at), rows(rng, tall, 3, n, m, case["v"], on)]
    if case["negative"]:
        for side in sides:
            side.scores[...] -= 1
    order, worked = raised(sides, case["work"], np.random.default_rng(0))
    assert sorted(order) == list(range(channels)) and worked > 0
    assert kept(sides, order) >= kept(sides, np.arange(channels)) - 1e-9


def test_what_a_block_keeps_with_another_channel() -> None:
    rng = np.random.default_rng(0)
    sides: list[Side] = [neighbours(rng, 12, 7, 2, 4, range(1, 11)), rows(rng, 12, 5, 2, 4, 3, range(1, 11))]
    for side in sides:
        order = rng.permutation(10)
        found = side.instead(order, np.arange(10), np.arange(10))
        for a, b in combinations(range(10), 2):
            swapped = order.copy()
            swapped[[a, b]] = order[[b, a]]
            gain = found[a, b] + found[b, a] - found[a, a] - found[b, b] if side.labels[a] != side.labels[b] else 0
            assert kept([side], swapped) - kept([side], order) == pytest.approx(gain, abs=1e-9)
        part = side.instead(order, np.array([2, 7]), np.array([0, 5, 9]))
        np.testing.assert_allclose(part, found[np.ix_([2, 7], [0, 5, 9])])


def test_it_ends_where_it_was_told_and_the_same_each_time() -> None:
    side = neighbours(np.random.default_rng(0), 64, 50, 2, 4)
    now = kept([side], np.arange(64))
    gains, found = [], []
    for work in (1e4, 1e5, 1e6, 1e8, 1e8):
        order, worked = raised([side], work, np.random.default_rng(7))
        assert worked < work + 64 * 64 * side.work
        gains.append(kept([side], order) - now)
        found.append(order)
    assert gains[0] < gains[2] < gains[3]
    np.testing.assert_array_equal(found[3], found[4])


def test_escaping_gains() -> None:
    side = neighbours(np.random.default_rng(0), 32, 20, 2, 4)
    tries = [kept([side], raised([side], work, np.random.default_rng(1))[0]) for work in (2.5e5, 1e8)]
    assert tries[0] < tries[1]


@pytest.mark.parametrize("size", [3, 8, 9, 30])
def test_the_highest(size: int) -> None:
    numbers = np.random.default_rng(0).standard_normal((size, 5, 4))
    for n in range(1, size):
        np.testing.assert_array_equal(highest(numbers, n), np.sort(numbers, 0)[::-1][:n])
