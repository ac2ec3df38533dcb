"""Orders of channels: what can be one range, the best that can, and the published order; against brute force."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from prunec.ir.errors import UsageError
from prunec.passes.order import Order, ordered, ordering, range_of, upscale, upscale_path
from prunec.passes.order.order import Reads
from prunec.passes.order.pq_tree import Tree

SETTINGS = settings(max_examples=200, deadline=None, derandomize=True)
RING: list[set[int]] = [{0, 1}, {1, 2}, {0, 2}]
MISLEADING: list[set[int]] = [{0, 2, 3, 4}, {1, 2}, {2, 3, 4, 6}, {1, 3, 4, 5}, {0, 2, 6}]
"""Heaviest first, 8 of the 11 channels come into ranges which do in the published order."""
HARD: list[set[int]] = [{1, 3}, {2, 3}, {0, 1}, {1, 2, 3}, {0, 1, 2}]
"""Greedily, and in the published order, 8 of the 10 channels come into ranges which do in the best order."""


def reads_of(sets: Iterable[Iterable[int]], n: int) -> Reads:
    """(readers, channels) of readers that read these channels."""
    rows = [set(each) for each in sets]
    return np.array([[c in row for c in range(n)] for row in rows], bool).reshape(len(rows), n)


@st.composite
def problems(draw: st.DrawFn, channels: int = 6, readers: int = 4) -> Reads:
    n, k = draw(st.integers(1, channels)), draw(st.integers(1, readers))
    drawn = draw(st.lists(st.integers(0, 2**n - 1), min_size=k, max_size=k))
    return reads_of([{c for c in range(n) if read >> c & 1} for read in drawn], n)


def is_range(order: Sequence[int], read: Reads) -> bool:
    """By the definition, and by no code of the package: between its first and its last channel all are read."""
    at = [k for k, channel in enumerate(order) if read[channel]]
    return at == [*range(at[0], at[-1] + 1)] if at else True


def best_by_brute_force(reads: Reads, weights: Sequence[float]) -> float:
    orders = itertools.permutations(range(reads.shape[1]))
    return max(sum(w for read, w in zip(reads, weights) if is_range(order, read)) for order in orders)


def worth(order: Order, weights: Sequence[float]) -> float:
    return sum(w for is_one, w in zip(order.contiguous, weights) if is_one)


def check(order: Order, reads: Reads) -> None:
    """A permutation that says the truth about its readers."""
    channels = order.channels.tolist()
    assert sorted(channels) == list(range(reads.shape[1]))
    assert order.contiguous == tuple(is_range(channels, read) for read in reads)


# examples


@pytest.mark.parametrize(
    ("sets", "channels"),
    [
        pytest.param([{1, 3}, {2, 3}], [1, 3, 2, 0], id="two that share a channel"),
        pytest.param([{0, 1, 2}, {2, 3, 4}, {4, 5}], [0, 1, 2, 3, 4, 5], id="a chain in order already"),
        pytest.param([{4, 1}, {1, 0}, {0, 3}], [3, 0, 1, 4, 2], id="a chain out of order"),
        pytest.param([{0, 1, 2, 3}, {3, 1}, {3}], [3, 1, 0, 2], id="nested"),
        pytest.param([{0, 1, 2}, {0, 1, 2}], [0, 1, 2], id="two that read the same"),
        pytest.param([{2}, {0}], [0, 2, 1], id="nothing to decide"),
        pytest.param([set(), {1}], [1, 0], id="a reader of nothing"),
    ],
)
def test_all_can_read_a_range(sets: list[set[int]], channels: list[int]) -> None:
    reads = reads_of(sets, max(itertools.chain(*sets)) + 1)
    order = ordered(reads)
    check(order, reads)
    assert order.channels.tolist()[: len(channels)] == channels
    assert all(order.contiguous)


def test_of_three_in_a_ring_one_gathers() -> None:
    reads = reads_of(RING, 3)
    assert ordered(reads).contiguous == (True, True, False)
    assert ordered(reads, [1, 1, 5]).contiguous == (True, False, True)


def test_readers_that_do_not_overlap_are_decided_apart() -> None:
    """Sixteen readers are too many for one exact search, but they come in families of five."""
    sets = [{c + 4 * k for c in each} for k in range(3) for each in HARD]
    reads = reads_of([*sets, set(range(12))], 12)
    order = ordered(reads)
    check(order, reads)
    assert worth(order, reads.sum(1).tolist()) == 3 * 10 + 12


def test_no_readers() -> None:
    assert ordered([]).channels.tolist() == []
    assert ordered(np.zeros((0, 3), bool)).contiguous == ()
    assert ordered(np.zeros((1, 3), bool)).channels.tolist() == [0, 1, 2]


def test_reads_may_be_a_list() -> None:
    reads = reads_of([{1, 3}, {2, 3}], 4)
    assert ordered(list(reads)).channels.tolist() == ordered(reads).channels.tolist()


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0], []])
def test_weights_that_make_no_sense(weights: list[float]) -> None:
    with pytest.raises(UsageError, match=f"{len(weights)} weights for 2 readers"):
        ordered(reads_of([{0}, {1}], 2), weights)


def test_range_of() -> None:
    order = Order.of([2, 0, 3], reads_of([{0, 2}], 4))
    assert order.channels.tolist() == [2, 0, 3, 1]
    found = [range_of(order, read) for read in reads_of([{0, 2}, {0, 3}, {2, 3}, {1}, set()], 4)]
    assert found == [(0, 2), (1, 3), None, (3, 4), (0, 0)]


# PQ-trees


def frontiers(tree: Tree) -> Iterator[tuple[int, ...]]:
    """Every order of the leaves that the tree allows."""
    if not tree.children:
        yield (tree.leaves.bit_length() - 1,)
        return
    children = [[*frontiers(child)] for child in tree.children]
    arranged = [children, children[::-1]] if tree.is_q else itertools.permutations(children)
    for some in arranged:
        yield from (sum(parts, ()) for parts in itertools.product(*some))


@SETTINGS
@example(reads_of(RING, 3))
@given(problems())
def test_a_tree_allows_just_the_orders_that_suit(reads: Reads) -> None:
    tree: Tree | None = Tree.of(range(reads.shape[1]))
    for read in reads:
        tree = tree and tree.restricted(sum(1 << int(c) for c in np.flatnonzero(read)))
    orders = itertools.permutations(range(reads.shape[1]))
    suit = {order for order in orders if all(is_range(order, read) for read in reads)}
    assert (set(frontiers(tree)) if tree else set()) == suit
    assert tree is None or tuple(tree.frontier()) in suit


def test_a_tree_is_no_other_after_it_was_asked() -> None:
    tree = Tree.of(range(3)).restricted(0b011)
    assert tree is not None
    before = set(frontiers(tree))
    assert tree.restricted(0b110) is not None
    assert set(frontiers(tree)) == before


# the best order


@SETTINGS
@given(problems(), st.lists(st.integers(0, 5), min_size=4, max_size=4))
def test_the_order_is_the_best_of_all(reads: Reads, weights: list[int]) -> None:
    some = weights[: len(reads)]
    order = ordered(reads, some)
    check(order, reads)
    assert worth(order, some) == best_by_brute_force(reads, some)


@SETTINGS
@example(reads_of(HARD, 4))
@given(problems())
def test_weights_are_channels_unless_they_are_given(reads: Reads) -> None:
    sizes = reads.sum(1).tolist()
    assert worth(ordered(reads), sizes) == best_by_brute_force(reads, sizes)


@SETTINGS
@given(problems(12, 9))
def test_greedy_is_no_better_than_exact_and_no_worse_than_published(reads: Reads) -> None:
    sizes = reads.sum(1).tolist()
    published = Order.of(upscale_path(reads), reads)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ordering, "EXACT", 0)
        greedy = ordered(reads)
    check(greedy, reads)
    check(published, reads)
    assert worth(published, sizes) <= worth(greedy, sizes) <= worth(ordered(reads), sizes)


def test_greedy_takes_the_published_order_where_that_is_better(monkeypatch: pytest.MonkeyPatch) -> None:
    reads = reads_of(MISLEADING, 7)
    sizes = reads.sum(1).tolist()
    assert worth(Order.of(upscale_path(reads), reads), sizes) == 11
    monkeypatch.setattr(ordering, "EXACT", 0)
    assert worth(ordered(reads), sizes) == 11
    monkeypatch.setattr(ordering, "_published", lambda rows, sets: set())
    assert worth(ordered(reads), sizes) == 8


@SETTINGS
@given(st.permutations(range(9)), st.lists(st.integers(0, 9), min_size=1, max_size=5))
def test_nested_readers_begin_at_the_first_channel(channels: list[int], sizes: list[int]) -> None:
    reads = reads_of([channels[:size] for size in sizes], 9)
    order = ordered(reads)
    assert [range_of(order, read) for read in reads] == [(0, size) for size in sizes]


def test_a_stream_keeps_its_prefix_order_beside_readers_that_overlap() -> None:
    stream = [{*range(k, 8)} for k in range(5)]
    reads = reads_of([*stream, {0, 8, 9}], 10)
    order = ordered(reads)
    assert all(order.contiguous)
    assert [range_of(order, read) for read in reads[:5]] == [(0, 8 - k) for k in range(5)]


@pytest.mark.parametrize("other", [[{5, 6}, {6}], [{5, 6, 7, 8}, {6, 7, 8}, {8, 9}, {7, 8, 9}]])
def test_the_longest_chain_begins_at_the_first_channel(other: list[set[int]]) -> None:
    reads = reads_of([*other, {*range(5)}, {*range(1, 5)}, {*range(2, 5)}], 12)
    order = ordered(reads)
    assert all(order.contiguous)
    assert [range_of(order, read) for read in reads[-3:]] == [(0, 5), (0, 4), (0, 3)]


@pytest.mark.parametrize("share", [0.02, 0.5])
def test_many_readers(share: float) -> None:
    """Seconds of the processor, which other processes do not lengthen much."""
    reads = np.random.default_rng(0).random((60, 400)) < share
    begin = time.process_time()
    order = ordered(reads)
    assert time.process_time() - begin < 2
    check(order, reads)


def test_a_hundred_nested_readers() -> None:
    at = np.random.default_rng(0).permutation(100)
    reads = np.tril(np.ones((100, 100), bool))[:, at]
    assert [range_of(ordered(reads), read) for read in reads[:3]] == [(0, 1), (0, 2), (0, 3)]


def test_every_reader_can_have_its_range_however_many_there_are() -> None:
    throw = np.random.default_rng(0)
    begins, sizes = throw.integers(0, 250, 40), throw.integers(1, 50, 40)
    reads = reads_of([range(b, b + s) for b, s in zip(begins, sizes)], 300)[:, throw.permutation(300)]
    assert all(ordered(reads).contiguous)


# the published order


PUBLISHED = [
    ([{1, 3}, {2, 3}], [1, 3, 2]),
    ([{0, 1, 2}, {2, 3, 4}, {4, 5}], [0, 1, 2, 3, 4, 5]),
    ([{0, 1}, {1, 2}, {0, 2}], [0, 1, 2]),
    ([{5, 6, 7}, {3, 4, 5}, {1, 2, 3}, {0, 8}], [6, 7, 5, 4, 3, 1, 2, 0, 8]),
    ([{0, 1, 2, 3, 4, 5, 6}, {1, 4}, {4, 6}, {6, 7}], [1, 4, 0, 2, 3, 5, 6, 7]),
    ([{4, 5}, {4, 5}, {0, 4}, {5, 9}], [0, 4, 5, 9]),
    ([{0, 1, 2}, {2, 3}, {2, 4, 5}, {2, 6}], [0, 1, 2, 4, 5, 3, 6]),
    ([{0, 3}, {3, 6}, {0, 6}, {6, 7, 8}, {8, 9}], [0, 3, 6, 7, 8, 9]),
    ([{0, 1, 2, 3, 4, 5, 6, 7}, {2, 5, 6}, {5}, {1, 6}, {7, 8, 9}, {9}], [5, 2, 6, 1, 0, 3, 4, 7, 9, 8]),
]
"""Readers, and the order that ml-upscale 0.1.1 gives for them."""


@pytest.mark.parametrize(("sets", "channels"), PUBLISHED)
def test_the_published_order(sets: list[set[int]], channels: list[int]) -> None:
    rest = sorted(set(range(10)) - set(channels))
    assert upscale_path(reads_of(sets, 10)).tolist() == [*channels, *rest]


def test_a_search_that_gives_up_places_all_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    """After no step at all each path is one reader, the largest first."""
    monkeypatch.setattr(upscale, "_STEPS", 0)
    reads = reads_of([{0, 8}, {5, 6, 7}, {3, 4, 5}, {1, 2, 3}], 10)
    assert upscale_path(reads).tolist() == [5, 6, 7, 3, 4, 1, 2, 0, 8, 9]
