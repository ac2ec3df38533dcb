"""Where boxes and lines stand: rows from top to bottom, each box below all that it reads (Sugiyama's scheme).

A line that passes rows gets a place of its own in each, so that no line runs behind a box.  The order within rows
follows the barycentres of neighbours; positions are the least squares to them that keep boxes apart (an isotonic
regression).  Start at :func:`arrange`.

References
----------
Sugiyama, Tagawa, Toda, Methods for Visual Understanding of Hierarchical System Structures, IEEE SMC 1981.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import networkx as nx
import numpy as np
from scipy.optimize import isotonic_regression

Point = tuple[float, float]
Size = tuple[float, float]
Edge = tuple[int, int]
Spot = tuple[int, ...]
"""A box ``(k,)``, or the place of a line in a row: ``(source, target, row)``."""

_GAP_X, _GAP_Y, _LINE = 18.0, 30.0, 8.0
_ORDER_SWEEPS, _PLACE_SWEEPS = 12, 24
_STRAIGHT, _FREE = 8.0, 1e-3
"""How much a line wants to be straight, where a box between its neighbours wants 1, and a box without any."""


@dataclass(frozen=True)
class Layout:
    """Upper left corners of boxes, points of lines from box to box, and the size of it all.

    The points of a line come in pairs: from the first to the second of a pair it runs between two rows, and from there
    straight down through a row to the next pair.
    """

    corners: dict[int, Point]
    lines: dict[Edge, list[Point]]
    size: Size


def arrange(sizes: Mapping[int, Size], edges: Iterable[Edge]) -> Layout:
    """Places for boxes of the given sizes (width, height) so that every edge runs down; edges close no circle."""
    edges = sorted(set(edges))
    spots, rows = _rows(sizes, edges)
    rows = _ordered(rows, spots)
    widths = {s: sizes[s[0]][0] if len(s) == 1 else _LINE for row in rows for s in row}
    centres = _placed(rows, spots, widths)
    return _drawn(sizes, edges, rows, centres, widths)


def _rows(sizes: Mapping[int, Size], edges: Sequence[Edge]) -> tuple[nx.DiGraph[Spot], list[list[Spot]]]:
    """The spots and how they follow each other, and the spots of each row."""
    graph: nx.DiGraph[int] = nx.DiGraph()
    graph.add_nodes_from(sorted(sizes))
    graph.add_edges_from(edges)
    row = {k: level for level, keys in enumerate(nx.topological_generations(graph)) for k in keys}
    for k in sorted(graph, key=lambda k: -row[k]):  # what nothing comes before stands close to who reads it
        if not graph.in_degree(k) and graph.out_degree(k):
            row[k] = min(row[t] for t in graph.successors(k)) - 1
    spots: nx.DiGraph[Spot] = nx.DiGraph()
    rows: list[list[Spot]] = [[] for _ in range(max(row.values(), default=-1) + 1)]
    for k in sorted(sizes):
        spots.add_node((k,))
        rows[row[k]].append((k,))
    for source, target in edges:
        between = [(source, target, level) for level in range(row[source] + 1, row[target])]
        for spot in between:
            rows[spot[2]].append(spot)
        spots.add_edges_from(pairwise([(source,), *between, (target,)]))
    return spots, rows


def _ordered(rows: list[list[Spot]], spots: nx.DiGraph[Spot]) -> list[list[Spot]]:
    """Rows in the order that crosses least among those that barycentre sweeps find."""
    best, fewest = rows, _crossings(rows, spots)
    for sweep in range(_ORDER_SWEEPS):
        down = sweep % 2 == 0
        near = spots.predecessors if down else spots.successors
        rows = [list(row) for row in rows]
        for k in range(1, len(rows)) if down else range(len(rows) - 2, -1, -1):
            beside = {s: j for j, s in enumerate(rows[k - 1 if down else k + 1])}
            here = {s: j for j, s in enumerate(rows[k])}
            rows[k].sort(key=lambda s: _mean([beside[n] for n in near(s)], here[s]))
        crossings = _crossings(rows, spots)
        if crossings < fewest:
            best, fewest = rows, crossings
    return best


def _mean(found: Sequence[float], otherwise: float) -> float:
    return sum(found) / len(found) if found else otherwise


def _crossings(rows: list[list[Spot]], spots: nx.DiGraph[Spot]) -> int:
    """How often lines cross between rows."""
    total = 0
    for upper, lower in pairwise(rows):
        at = {s: j for j, s in enumerate(lower)}
        ends = np.array([j for s in upper for j in sorted(at[n] for n in spots.successors(s))])
        total += sum(int((ends[:k] > ends[k]).sum()) for k in range(1, len(ends)))
    return total


def _placed(rows: list[list[Spot]], spots: nx.DiGraph[Spot], widths: Mapping[Spot, float]) -> dict[Spot, float]:
    """The x of each spot's centre."""
    apart = {row[0]: _distances(row, widths) for row in rows if row}
    centres: dict[Spot, float] = {}
    for row in rows:
        offsets = apart[row[0]]
        centres |= {s: float(x) for s, x in zip(row, offsets - offsets[-1] / 2)}
    near = _neighbours(spots)
    for sweep in range(_PLACE_SWEEPS):
        for row in rows if sweep % 2 == 0 else reversed(rows):
            pull = np.array([sum(w for _, w in near[s]) or _FREE for s in row])
            wish = [_mean_of(near[s], centres) if near[s] else centres[s] for s in row]
            offsets = apart[row[0]]
            fitted = isotonic_regression(np.array(wish) - offsets, weights=pull).x + offsets
            centres |= {s: float(x) for s, x in zip(row, fitted)}
    return centres


def _neighbours(spots: nx.DiGraph[Spot]) -> dict[Spot, list[tuple[Spot, float]]]:
    """For each spot those before and after it, and how strongly they pull."""
    near: dict[Spot, list[tuple[Spot, float]]] = {s: [] for s in spots}
    for a, b in spots.edges:
        weight = _STRAIGHT if len(a) > 1 or len(b) > 1 else 1.0
        near[a].append((b, weight))
        near[b].append((a, weight))
    return near


def _mean_of(found: Sequence[tuple[Spot, float]], centres: Mapping[Spot, float]) -> float:
    return sum(w * centres[n] for n, w in found) / sum(w for _, w in found)


def _distances(row: Sequence[Spot], widths: Mapping[Spot, float]) -> np.ndarray:
    """How far each centre of a row is from the first one, at least."""
    steps = [(widths[a] + widths[b]) / 2 + (_GAP_X if len(a) == len(b) == 1 else _LINE) for a, b in pairwise(row)]
    return np.concatenate([[0.0], np.cumsum(steps)])


def _drawn(
    sizes: Mapping[int, Size],
    edges: Sequence[Edge],
    rows: list[list[Spot]],
    centres: Mapping[Spot, float],
    widths: Mapping[Spot, float],
) -> Layout:
    """Corners and lines, moved so that all begins at (0, 0)."""
    left = min((centres[s] - widths[s] / 2 for row in rows for s in row), default=0.0)
    right = max((centres[s] + widths[s] / 2 for row in rows for s in row), default=0.0)
    tops, bottoms, y = {}, {}, 0.0
    corners: dict[int, Point] = {}
    for row in rows:
        height = max((sizes[s[0]][1] for s in row if len(s) == 1), default=0.0)
        for s in row:
            own = sizes[s[0]][1] if len(s) == 1 else height
            tops[s], bottoms[s] = y + (height - own) / 2, y + (height + own) / 2
            if len(s) == 1:
                corners[s[0]] = round(centres[s] - widths[s] / 2 - left, 1), round(tops[s], 1)
        y += height + _GAP_Y
    places = {s: round(x - left, 1) for s, x in centres.items()}
    ports = _Ports(edges, rows, places, widths)
    lines = {}
    for edge in edges:
        points = [(ports.out(edge), bottoms[(edge[0],)])]
        points += [(places[s], at[s]) for s in ports.between[edge] for at in (tops, bottoms)]
        lines[edge] = [(x, round(h, 1)) for x, h in [*points, (ports.into(edge), tops[(edge[1],)])]]
    return Layout(corners, lines, (round(right - left, 1), round(max(y - _GAP_Y, 0.0), 1)))


class _Ports:
    """Where lines leave and reach a box: side by side, in the order of where they go."""

    def __init__(
        self,
        edges: Sequence[Edge],
        rows: list[list[Spot]],
        places: Mapping[Spot, float],
        widths: Mapping[Spot, float],
    ) -> None:
        self.places, self.widths = places, widths
        self.between: dict[Edge, list[Spot]] = {edge: [] for edge in edges}
        for row in rows:
            for s in row:
                if len(s) > 1:
                    self.between[s[0], s[1]].append(s)
        self.leaving: dict[int, list[Edge]] = {}
        self.reaching: dict[int, list[Edge]] = {}
        for edge in edges:
            self.leaving.setdefault(edge[0], []).append(edge)
            self.reaching.setdefault(edge[1], []).append(edge)
        for found in self.leaving.values():
            found.sort(key=lambda e: places[(self.between[e] or [(e[1],)])[0]])
        for found in self.reaching.values():
            found.sort(key=lambda e: places[(self.between[e] or [(e[0],)])[-1]])

    def out(self, edge: Edge) -> float:
        return self._port(edge[0], self.leaving[edge[0]].index(edge), len(self.leaving[edge[0]]))

    def into(self, edge: Edge) -> float:
        return self._port(edge[1], self.reaching[edge[1]].index(edge), len(self.reaching[edge[1]]))

    def _port(self, box: int, k: int, many: int) -> float:
        width = self.widths[(box,)] * 0.5
        return round(self.places[(box,)] + width * ((k + 0.5) / many - 0.5), 1)
