"""Boxes stand apart, and no line runs behind one."""

from __future__ import annotations

from itertools import combinations

import networkx as nx
import numpy as np
import pytest

from prunec.draw.layout import Layout, Size, arrange

Edges = list[tuple[int, int]]


def random_net(seed: int, boxes: int) -> tuple[dict[int, Size], Edges]:
    rng = np.random.default_rng(seed)
    edges = [(k - 1, k) for k in range(1, boxes)]
    edges += [(a, b) for a, b in combinations(range(boxes), 2) if rng.random() < 3 / boxes]
    drop = rng.random(len(edges)) < 0.2
    return {k: (float(rng.integers(40, 250)), float(rng.integers(20, 60))) for k in range(boxes)}, [
        e for e, gone in zip(edges, drop) if not gone
    ]


def overlaps(found: Layout, sizes: dict[int, Size]) -> Edges:
    def apart(a: int, b: int) -> bool:
        return any(
            found.corners[p][d] + sizes[p][d] <= found.corners[q][d] + 0.2 for p, q in ((a, b), (b, a)) for d in (0, 1)
        )

    return [(a, b) for a, b in combinations(sizes, 2) if not apart(a, b)]


@pytest.mark.parametrize("seed", range(8))
def test_no_two_boxes_overlap_and_lines_run_down(seed: int) -> None:
    sizes, edges = random_net(seed, 25)
    found = arrange(sizes, edges)
    assert overlaps(found, sizes) == []
    for (source, target), points in found.lines.items():
        heights = [y for _, y in points]
        assert heights == sorted(heights)
        assert points[0][1] == pytest.approx(found.corners[source][1] + sizes[source][1], abs=0.2)
        assert points[-1][1] == pytest.approx(found.corners[target][1], abs=0.2)
    assert set(found.lines) == set(edges)


@pytest.mark.parametrize("seed", range(8))
def test_lines_pass_rows_beside_the_boxes(seed: int) -> None:
    sizes, edges = random_net(seed, 25)
    found = arrange(sizes, edges)
    for points in found.lines.values():
        for (x, top), (_, bottom) in zip(points[1:-1:2], points[2::2]):
            for k, (left, y) in found.corners.items():
                beside = x <= left + 0.2 or x >= left + sizes[k][0] - 0.2
                assert beside or bottom <= y + 0.2 or top >= y + sizes[k][1] - 0.2


def test_a_chain_is_straight() -> None:
    found = arrange(dict.fromkeys(range(5), (100.0, 20.0)), [(k, k + 1) for k in range(4)])
    assert {x for x, _ in found.corners.values()} == {0.0}
    assert found.size == (100.0, 5 * 20 + 4 * 30.0)


def test_all_stands_within_the_size() -> None:
    sizes, edges = random_net(0, 25)
    found = arrange(sizes, edges)
    assert min(x for x, _ in found.corners.values()) >= 0
    assert all(x + sizes[k][0] <= found.size[0] + 0.2 for k, (x, _) in found.corners.items())
    assert all(y + sizes[k][1] <= found.size[1] + 0.2 for k, (_, y) in found.corners.items())


def test_nothing_at_all_and_one_box() -> None:
    assert arrange({}, []).size == (0.0, 0.0)
    assert arrange({0: (10.0, 5.0)}, []).size == (10.0, 5.0)


def test_what_nothing_comes_before_stands_close_to_its_reader() -> None:
    found = arrange(dict.fromkeys(range(5), (10.0, 10.0)), [(0, 1), (1, 2), (2, 3), (4, 3)])
    assert found.corners[4][1] == found.corners[2][1]
    assert nx.is_directed_acyclic_graph(nx.DiGraph(list(found.lines)))
