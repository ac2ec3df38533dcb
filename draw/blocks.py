"""What is drawn: the nodes of a graph taken together into blocks, and which groups they carry.

A block is a layer with what follows it on its own (a convolution, its batch norm, its activation), a join (a sum, a
concatenation, the products of an attention), an input or an output.  Where there are too many to read, ``modules.py``
makes one of those that belong to one module.  Start at :func:`picture`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..ir.graph import Constant, Graph, Node, Value, reads
from ..ir.opset import OPS
from ..passes.groups import Groups
from ..wording import layer_of
from .carried import Carried, Numbers


@dataclass(frozen=True)
class Chip:
    """An axis of a parameter, or a group of a module: its label, the groups that it carries, and words on it."""

    label: str
    groups: Numbers
    about: str


@dataclass(eq=False)
class Block:
    """Nodes that are drawn as one box.

    ``groups`` are those on its result, then those on its parameters; ``main`` is the first on its result, if any.
    ``modules`` are the layers whose parameters it reads, ``about`` is what a reader sees who asks for more.
    """

    number: int
    title: str = ""
    nodes: list[Node] = field(default_factory=list)
    parameters: dict[Value, Constant] = field(default_factory=dict)
    modules: tuple[str, ...] = ()
    detail: str = ""
    about: str = ""
    chips: list[Chip] = field(default_factory=list)
    groups: Numbers = ()
    main: int | None = None


@dataclass(frozen=True)
class Link:
    """What goes from one block to another, by their numbers, with the groups on it."""

    source: int
    target: int
    groups: Numbers
    about: str


@dataclass(frozen=True)
class Picture:
    """Blocks, each after those that it reads, and the links between them."""

    blocks: list[Block]
    links: list[Link]


def picture(groups: Groups, found: Mapping[str, Any]) -> Picture:
    """The blocks and links of an analysed graph; ``found`` are its findings."""
    graph, carried = groups.analysis.graph, Carried(groups, found)
    gathering = _Gathering(graph)
    gathering.run()
    for block in gathering.blocks:
        _describe(block, graph, carried)
    return Picture(gathering.blocks, [_link(*ends, values, carried) for ends, values in gathering.links.items()])


class _Gathering:
    """One walk over the graph that puts each node into a block.

    A node joins a block only where no other block would come between: links go from lower to higher numbers.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.blocks: list[Block] = []
        self.links: dict[tuple[int, int], list[Value]] = {}
        self.home: dict[Value, Block] = {}
        self.loose: dict[Value, list[Node]] = {}
        self.readers = Counter(v for n in graph.nodes for v in set(reads(n)))

    def run(self) -> None:
        for value in self.graph.inputs:
            if value.is_tensor:
                self.home[value] = self._new(f"input {value.name}")
        for node in self.graph.nodes:
            if any(v.is_tensor for v in node.outputs):
                self._place(node)
        for value in self.graph.outputs:
            if value in self.home:
                self._connect(value, self._new(f"output {value.name}"))

    def _new(self, title: str = "") -> Block:
        self.blocks.append(Block(len(self.blocks), title))
        return self.blocks[-1]

    def _connect(self, value: Value, target: Block) -> None:
        source = self.home[value]
        if source is not target:
            values = self.links.setdefault((source.number, target.number), [])
            values += [value] if value not in values else []

    def _place(self, node: Node) -> None:
        """Into a block before it or one of its own; where it reads nothing computed, to whoever reads it."""
        read = list(dict.fromkeys(reads(node)))
        nodes = [*(n for v in read for n in self.loose.get(v, ())), node]
        computed = [v for v in read if v in self.home]
        if not computed:
            self.loose |= dict.fromkeys(node.outputs, nodes)
            return
        block = self._before(nodes, computed) or self._new()
        block.nodes += [n for n in nodes if n not in block.nodes]
        block.parameters |= {v: c for n in nodes for v, c in self._parameters(n).items()}
        for value in computed:
            self._connect(value, block)
        self.home |= dict.fromkeys(node.outputs, block)

    def _parameters(self, node: Node) -> dict[Value, Constant]:
        constants = self.graph.constants
        found = {v: c for v in reads(node) if (c := constants.get(v)) is not None and c.role == "parameter"}
        return {v: c for v, c in found.items() if math.prod(v.shape or ()) > 1}

    def _before(self, nodes: list[Node], computed: list[Value]) -> Block | None:
        """The block that ``nodes`` continue; None where they begin one."""
        last = max((self.home[v] for v in computed), key=lambda block: block.number)
        alone = all(self.readers[v] == 1 for v in computed if self.home[v] is last)
        layer = any(self._parameters(n) for n in nodes)
        if _multiplies(nodes[-1]):
            product = bool(last.nodes) and _multiplies(last.nodes[0]) and not self._parameters(last.nodes[0])
            return last if product and alone and not layer else None
        if any(self.home[v] is not last for v in computed) or (layer and (last.title or not alone)):
            return None
        return last


def _multiplies(node: Node) -> bool:
    """Whether a node is one of those that a network's cost is made of."""
    return node.op not in OPS or OPS[node.op].macs is not None


def _link(source: int, target: int, values: list[Value], carried: Carried) -> Link:
    groups = tuple(dict.fromkeys(k for v in values for k in carried.on(v)))
    about = [f"{v.name}: {shape_text(v)}" for v in values]
    return Link(source, target, groups, "\n".join([*about, *group_lines(groups, carried.names)]))


# ---------------------------------------------------------------------- words and colours


def _describe(block: Block, graph: Graph, carried: Carried) -> None:
    """Fill in what a block shows."""
    outputs = [v for n in block.nodes for v in n.outputs if v.is_tensor]
    if block.title:  # an input or an output
        outputs += [v for v in (*graph.inputs, *graph.outputs) if block.title.partition(" ")[2] == v.name]
    block.modules = tuple(dict.fromkeys(layer_of(c.name) for c in _by_size(block.parameters.values())))
    ops = list(dict.fromkeys(short_kind(n.kind or n.op) for n in block.nodes))
    telling = list(dict.fromkeys(short_kind(n.kind or n.op) for n in block.nodes if not _is_idle(n))) or ops
    block.title = block.title or (block.modules[0] if block.modules else " ".join(telling))
    shape = shape_text(outputs[-1]) if outputs else ""
    block.detail = " · ".join(filter(None, (shape, " ".join(telling) if block.modules else "")))
    main = next(iter(_by_size(block.parameters)), None)
    block.chips = [] if main is None else _chips(main, block.parameters[main], carried)
    result = carried.on(outputs[-1]) if outputs else ()
    block.main = next(iter(result), None)
    block.groups = tuple(dict.fromkeys([*result, *(k for v in block.parameters for k in carried.on(v))]))
    axes = [
        f"{c.name} ({shape_text(v)}) {carried.about(c.name, v, d)}"
        for v, c in block.parameters.items() for d in range(len(v.shape or ()))
    ]  # fmt: skip
    block.about = "\n".join([block.title, " ".join(ops), shape, *axes])


def _by_size(found: Iterable[Any]) -> list[Any]:
    """Values or constants, the largest first."""
    return sorted(found, key=lambda item: -math.prod(_shape(item)))


def _shape(item: Value | Constant) -> tuple[int, ...]:
    return (item.shape or ()) if isinstance(item, Value) else tuple(item.data.shape)


def _chips(value: Value, constant: Constant, carried: Carried) -> list[Chip]:
    """One for each axis of a parameter."""
    return [
        Chip(
            str(d), tuple(carried.on_axis(value, d)), f"{constant.name} ({shape_text(value)}) "
            f"{carried.about(constant.name, value, d)}",
        )
        for d in range(len(value.shape or ()))
    ]  # fmt: skip


def group_lines(groups: Iterable[int], names: Sequence[str]) -> list[str]:
    return [f"group {k + 1} {names[k]}" for k in groups] or ["no group: nothing here can be removed"]


_IDLE = ("reshape", "reshape_as", "permute", "expand", "slice", "select", "fill")
_COPIES = ("dropout", "contiguous", "clone", "detach", "to", "alias", "Identity", "Dropout", "Cast")


def _is_idle(node: Node) -> bool:
    """Whether a node only moves, or hands on, what it reads."""
    return node.op in _IDLE or short_kind(node.kind) in _COPIES


def short_kind(kind: str) -> str:
    """The name of a kind without namespace, domain and overload.

    >>> short_kind("aten.conv2d.default"), short_kind("Conv"), short_kind("com.microsoft::Gelu")
    ('conv2d', 'Conv', 'Gelu')
    """
    name = kind.rpartition("::")[2]
    parts = name.split(".")
    return (parts[1] if len(parts) > 2 else parts[0]).strip("_")


def shape_text(value: Value) -> str:
    """``B×64×56×56``: the sizes of the example run, ``B`` for one that differs from run to run."""
    if value.shape is None:
        return "?"
    return "×".join("B" if d in value.dynamic else str(n) for d, n in enumerate(value.shape)) or "one number"
