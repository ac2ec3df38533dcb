"""Blocks of one module as one, where there are too many blocks to read.

A block without parameters belongs to the module of the blocks before it, if these agree.  Modules are joined as deep
as leaves few enough blocks; where joining would close a circle, all blocks on it become one.  Start at
:func:`by_module`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import takewhile

import networkx as nx

from .blocks import Block, Chip, Link, Picture, group_lines

MANY = 160
"""Blocks that a person still reads one by one."""
_CHIPS = 12

Path = tuple[str, ...]


def by_module(drawn: Picture, names: Sequence[str], many: int = MANY) -> Picture:
    """``drawn`` with at most ``many`` blocks where its modules allow that; ``names`` are those of the groups."""
    if len(drawn.blocks) <= many:
        return drawn
    paths = _paths(drawn)
    deepest = max(map(len, paths.values()), default=1)
    levels = (_joined(drawn, paths, depth) for depth in range(deepest, 0, -1))
    members = next((found for found in levels if len(found) <= many), None) or _joined(drawn, paths, 1)
    return _picture(drawn, members, names)


def _paths(drawn: Picture) -> dict[int, Path]:
    """The module of each block, as the parts of its name; none for inputs, outputs and what lies between modules."""
    before: dict[int, list[int]] = {}
    for link in drawn.links:
        before.setdefault(link.target, []).append(link.source)
    paths: dict[int, Path] = {}
    for block in drawn.blocks:
        if block.modules:
            paths[block.number] = tuple(block.modules[0].split("."))
        else:
            known = [paths[k] for k in before.get(block.number, ()) if paths.get(k)]
            paths[block.number] = _shared(known) if known and block.nodes else ()
    return paths


def _shared(paths: Sequence[Path]) -> Path:
    """The beginning that all of the paths have."""
    return tuple(found[0] for found in takewhile(lambda parts: len(set(parts)) == 1, zip(*paths)))


def _joined(drawn: Picture, paths: dict[int, Path], depth: int) -> list[list[int]]:
    """Numbers of blocks, those of one module of that depth together, each list after those that it reads."""
    graph: nx.DiGraph[int] = nx.DiGraph()
    graph.add_nodes_from(block.number for block in drawn.blocks)
    graph.add_edges_from((link.source, link.target) for link in drawn.links)
    same = [(a, b) for a, b in graph.edges if paths[a][:depth] == paths[b][:depth] and paths[a] and paths[b]]
    graph.add_edges_from([(b, a) for a, b in same])  # a circle is joined
    parts = nx.condensation(graph)
    order = nx.lexicographical_topological_sort(parts, key=lambda k: min(parts.nodes[k]["members"]))
    return [sorted(parts.nodes[k]["members"]) for k in order]


def _picture(drawn: Picture, members: list[list[int]], names: Sequence[str]) -> Picture:
    place = {number: k for k, numbers in enumerate(members) for number in numbers}
    blocks = [_block(k, [drawn.blocks[n] for n in numbers], names) for k, numbers in enumerate(members)]
    links: dict[tuple[int, int], list[Link]] = {}
    for link in drawn.links:
        ends = place[link.source], place[link.target]
        if ends[0] != ends[1]:
            links.setdefault(ends, []).append(link)
    return Picture(blocks, [_link(*ends, found) for ends, found in links.items()])


def _block(number: int, parts: list[Block], names: Sequence[str]) -> Block:
    if len(parts) == 1:
        only = parts[0]
        only.number = number
        return only
    layers = [m for part in parts for m in part.modules]
    groups = [k for k, _ in Counter(k for part in parts for k in part.groups).most_common()]
    chips = [Chip(str(k + 1), (k,), f"group {k + 1} {names[k]}") for k in sorted(groups)[:_CHIPS]]
    title = ".".join(_shared([tuple(m.split(".")) for m in layers])) or parts[0].title
    kinds = Counter(part.detail.partition(" · ")[2].split(" ")[0] for part in parts if part.modules)
    detail = " ".join(f"{kind}×{many}" if many > 1 else kind for kind, many in kinds.most_common(3))
    about = [title, *(part.title for part in parts if part.modules), *group_lines(groups, names)]
    found = dict.fromkeys([*parts[-1].groups, *groups])
    return Block(number, title, modules=tuple(layers), detail=detail, about="\n".join(about), chips=chips,
                 groups=tuple(found), main=parts[-1].main)  # fmt: skip


def _link(source: int, target: int, links: Iterable[Link]) -> Link:
    links = list(links)
    groups = tuple(dict.fromkeys(k for link in links for k in link.groups))
    return Link(source, target, groups, "\n".join(dict.fromkeys(link.about for link in links)))
