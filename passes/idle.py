"""Idle units: those that a network can do without, and compute what it did.

A unit is idle where all that reads its channels either gives them no weight, or can take what they hold in: a constant
goes into a bias, or, where a convolution pads, into the weights of another constant channel, its stand-in.  Where a
channel flows on (through an activation, a pool, a depthwise convolution), what reads it there decides.  All else keeps
it: norms and sums over channels, recurrent layers, outputs, what is not understood.  A unit of which every element is
zero is nothing to any op but a norm.  Start at :func:`idle`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..ir import arrays
from ..ir.axes import pinned
from ..ir.graph import Node, Value
from ..ir.opset import OPS, Analysed
from .groups import Groups, Units
from .levels import IMAGES, INPUT_FIRST, Known, usable, weight
from .verify import norm_tied

_CARRIES = frozenset(
    "batch_norm cat convert depth_to_space elementwise expand gather permute pixel_shuffle pixel_unshuffle pool prelu "
    "reduce repeat_each reshape select slice space_to_depth split stack take tile unbind unfold attention "
    "attention_grouped matmul matmul_t matvec baddbmm layer_norm normalise embedding".split()
)
"""Ops of which each result is made of the same positions of the operands; what they sum over is none of these."""

_LAYERS = ("conv", "linear", "linear_t", "conv_transpose", "matmul")
_NO_BIAS = ("linear_t", "matmul")
"""Layers that have no place for a bias where they have none."""

_FAINT = 0.1
"""A stand-in holds more than this share of the largest constant: what it rounds to is multiplied."""


@dataclass(frozen=True, eq=False)
class Reader:
    """A layer that sums over channels: ``needed`` says which it gives any weight, ``level`` what is known of them.

    ``takes`` says of each whether its constant could go into the bias; ``merges``, whether that of another could go
    into its weights.
    """

    node: Node
    axis: NDArray[np.int64]
    needed: NDArray[np.bool_]
    level: NDArray[np.float64]
    takes: NDArray[np.bool_]
    merges: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Idle:
    """The units that can go, and the readers that take in what they held, with the position of the stand-in of each."""

    units: Units
    readers: list[Reader] = field(default_factory=list)
    stand_ins: dict[str, int] = field(default_factory=dict)


def idle(groups: Groups, known: dict[Value, Known], among: Units) -> Idle:
    """Which of the units ``among`` can go; of each layer one channel stays."""
    return _Search(groups, known, among).found()


class _Search:
    def __init__(self, groups: Groups, known: dict[Value, Known], among: Units) -> None:
        self.groups, self.known = groups, known
        self.analysis, self.solution = groups.analysis, groups.analysis.solution
        self.among = np.setdiff1d(among, norm_tied(groups))
        self.stays = np.ones(groups.group_of.size, bool)
        self.stays[self.among] = False
        self.uses = groups.analysis.graph.consumers()

    def found(self) -> Idle:
        readers = [reader for node in self.analysis.graph.nodes for reader in self._read(node)]
        for reader in readers:
            wanted = reader.needed & ~reader.takes & ~reader.merges
            self.stays[self._units(reader, wanted)] = True
        self.stays[np.intersect1d(self.among, _empty(self.groups))] = False
        self._keep_one_of_each()
        stand_ins = self._stand_ins(readers)
        return Idle(np.flatnonzero(~self.stays).astype(np.int64), readers, stand_ins)

    def _units(self, reader: Reader, positions: NDArray[np.bool_]) -> Units:
        """The units that stand at ``positions`` of what a reader sums over."""
        return np.asarray(self.solution.needs(reader.axis[positions])[1])

    def _read(self, node: Node) -> Iterator[Reader]:
        """The layer that ``node`` is; all units stay of a node that neither sums nor lets its channels through."""
        site = self.analysis.sites.get(node.name)
        if site is None or node.op not in OPS:
            return  # its operands are pinned, or it reads their sizes alone, which are
        letters = (site.binding.letters.get(letter, pinned(0)) for letter in OPS[node.op].contracts(node))
        summed = np.concatenate([np.zeros(0, np.int64), *(self.solution.needs(axis)[1] for axis in letters)])
        if node.op in _LAYERS and (reader := self._layer(node, site, summed)) is not None:
            yield reader
            return
        self.stays[summed] = True
        flows = self._flowing(site)
        for axes in site.operands:
            for axis in axes or ():
                units = self.solution.needs(axis)[1]
                self.stays[np.setdiff1d(units, flows) if node.op in _CARRIES else units] = True

    def _flowing(self, site: Analysed) -> Units:
        """The units that the results of a node have as well."""
        found = [self.solution.needs(axis)[1] for axes in site.results for axis in axes]
        return np.unique(np.concatenate([np.zeros(0, np.int64), *found]))

    def _layer(self, node: Node, site: Analysed, summed: Units) -> Reader | None:
        """What a layer does with the channels of the units ``summed``, the others going through it; None where its
        weight is not known, or is its input as well."""
        x, held = node.inputs[0], weight(self.analysis.graph, node)
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        if x is None or x.shape is None or held is None or x in node.inputs[1:]:
            return None
        d = 1 if node.op in IMAGES else len(x.shape) - 1
        axis = (site.operands[0] or [])[d]
        fact = self.known.get(x)
        level = fact.level if fact is not None and fact.axis == d else np.full(axis.size, np.nan)
        alone = self._is_own(node.inputs[1])
        has_place = bias is not None or node.op not in _NO_BIAS
        takes = ~np.isnan(usable(node, level)) & (has_place and self._is_own(bias))
        takes |= level == 0
        merges = np.isfinite(level) & (int(node.attrs.get("groups", 1)) == 1) & alone
        position, unit = self.solution.needs(axis)
        read = np.bincount(position, np.isin(unit, summed), axis.size) > 0
        return Reader(node, axis, read & _columns(node, held.data), level, takes, merges)

    def _is_own(self, value: Value | None) -> bool:
        """Whether one layer alone reads a constant, so that it may change."""
        return value is None or (len(self.uses[value]) == 1 and value not in self.analysis.graph.outputs)

    def _keep_one_of_each(self) -> None:
        """A layer that is idle altogether keeps one channel."""
        for width in self.groups.widths():
            gone = np.bincount(width.position, ~self.stays[width.unit], width.size) > 0
            if gone.all():
                self.stays[width.unit[width.position == 0]] = True

    def _stand_ins(self, readers: list[Reader]) -> dict[str, int]:
        """For each layer that pads and reads constants of idle units the position of one that stays."""
        found: dict[str, int] = {}
        for reader in readers:
            gone = self._gone(reader)
            if not (gone & reader.needed & ~reader.takes).any():
                continue
            size = np.where(reader.merges, np.abs(np.nan_to_num(reader.level)), 0.0)
            staying = np.where(gone, 0.0, size)
            place = int((staying if staying.max() > _FAINT * size.max() else size).argmax())
            self.stays[self.solution.needs(reader.axis[[place]])[1]] = True
            found[reader.node.name] = place
        return found

    def _gone(self, reader: Reader) -> NDArray[np.bool_]:
        """Which positions of a reader's input have an idle unit."""
        position, unit = self.solution.needs(reader.axis)
        return np.bincount(position, ~self.stays[unit], reader.axis.size) > 0


def _columns(node: Node, data: object) -> NDArray[np.bool_]:
    """For each channel that a layer reads whether it has any weight other than zero."""
    if node.op in INPUT_FIRST:
        filled = arrays.to_numpy(data) != 0
        return np.asarray(filled.any(tuple(range(1, filled.ndim))))
    groups = int(node.attrs.get("groups", 1))
    rows = np.concatenate([(part != 0).reshape(*part.shape[:2], -1).any(2) for _, part in arrays.blocks(data)])
    return np.asarray(rows.reshape(groups, -1, rows.shape[1]).any(1).ravel())


def _empty(groups: Groups) -> Units:
    """The units of which no element is other than zero, in any constant but the statistics of batch norms with a gain:
    what these do to a channel, a gain of zero undoes."""
    graph, solution = groups.analysis.graph, groups.analysis.solution
    gained = (n for n in graph.nodes if n.op == "batch_norm" and len(n.inputs) > 1 and n.inputs[1] is not None)
    statistics = {v for node in gained for v in node.inputs[3:5]}
    filled = np.zeros(groups.group_of.size, bool)
    for value, constant in graph.constants.items():
        for d, axis in enumerate(groups.analysis.axes[value] or ()):
            if value in statistics or not solution.may_shrink(axis):
                continue
            there = np.ones(axis.size, bool)
            if arrays.is_float(constant.data):
                data = arrays.to_numpy(constant.data) != 0
                there = data.any(tuple(e for e in range(data.ndim) if e != d))
            filled[solution.needs(axis[there])[1]] = True
    return np.flatnonzero(~filled).astype(np.int64)
