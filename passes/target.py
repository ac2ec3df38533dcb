"""Targets: the runtime and processor that an artifact is for, as data.

A target says what a planner needs to know: the block of channels that the runtime computes at a time, so that a plan
does not waste the gain on odd counts.  A new target is one entry in :data:`TARGETS`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..ir import arrays
from ..ir.errors import UsageError
from ..ir.graph import Graph
from ..ir.words import did_you_mean

ELEMENT_BYTES = 4
"""Bytes of an element: costs are those of float32."""

_SCATTERED = 10.0
"""How much longer ``index_select`` takes along channels that are last in memory (``python -m bench.torch_views``)."""

N = TypeVar("N", int, NDArray[np.int64])


@dataclass(frozen=True)
class Target:
    """``channel_block``: channels computed together; counts that are no multiple of it waste time.

    Convolutions make ``blocks_at_once`` blocks of output channels at a time: one that is missing in the last set costs
    ``idle_share`` of one that is there.  ``ns_per_mac``, ``ns_per_byte`` (moved) and ``ns_per_node`` are nanoseconds of
    one core, for weighing one form against another.  These constants are rough, unless ``measured_on`` names the
    machine that ``prunec profile`` ran on, which settles the block too where the target is ``here``, on any machine.

    ONNX Runtime computes in blocks of channels, so that what is picked is brought into plain order and back, and copies
    slices as well (``slices_copy``).  It leaves a convolution in plain order whose input channels are no multiple of
    ``blocked_from``.  Torch reads a slice of one example in place, but for channels that are last in
    memory: there a slice is a copy, and picking scattered ones takes ``scattered`` times as long; see :meth:`reading`.
    """

    name: str
    channel_block: int
    help: str
    blocks_at_once: int = 1
    idle_share: float = 0.0
    blocked_from: int = 1
    ns_per_mac: float = 0.022
    ns_per_byte: float = 0.05
    ns_per_node: float = 3000.0
    measured_on: str = ""
    here: bool = False
    runtime: Literal["onnxruntime", "torch"] = "onnxruntime"
    slices_copy: bool = True
    scattered: float = 1.0

    def reading(self, batch: int, *, channels_last: bool) -> Target:
        """This target for a network that reads ``batch`` examples at a time, and whose memory is as it says."""
        if self.runtime == "onnxruntime":
            return self
        scattered = _SCATTERED if channels_last else 1.0
        return replace(self, slices_copy=channels_last or batch > 1, scattered=scattered)

    def in_blocks(self, count: N) -> N:
        """``count`` channels as the runtime computes them: in whole blocks."""
        return -(-count // self.channel_block) * self.channel_block

    def in_sets(self, count: N) -> N:
        """As many channels as making ``count`` of them in a convolution takes the time of."""
        blocks = -(-count // self.channel_block)
        return self.in_blocks(count) + -blocks % self.blocks_at_once * round(self.idle_share * self.channel_block)

    def written_ns(self, elements: float) -> float:
        """Nanoseconds that writing ``elements`` takes."""
        return ELEMENT_BYTES * elements * self.ns_per_byte

    def copy_ns(self, elements: float) -> float:
        """Nanoseconds of a node that copies ``elements``: each is read and written."""
        return 2 * self.written_ns(elements) + self.ns_per_node

    def plain_ns(self, elements: float) -> float:
        """Nanoseconds of bringing what is picked from into plain order, once for all that pick."""
        return self.copy_ns(elements) if self.runtime == "onnxruntime" else 0.0

    def pick_ns(self, elements: float) -> float:
        """Nanoseconds of picking ``elements`` of scattered channels, and of bringing them into blocks."""
        return self.scattered * self.copy_ns(elements) + self.plain_ns(elements)

    def slice_ns(self, elements: float) -> float:
        """Nanoseconds of reading ``elements`` of channels side by side."""
        return self.copy_ns(elements) + self.plain_ns(elements) if self.slices_copy else self.ns_per_node


_mlas = partial(Target, blocks_at_once=4, idle_share=0.4, blocked_from=4)
"""ONNX Runtime's convolutions: https://github.com/microsoft/onnxruntime, ``onnxruntime/core/mlas``."""

TARGETS = {
    t.name: t
    for t in (
        _mlas(
            "ort-cpu", 16, "ONNX Runtime on a CPU (blocks of 16 channels with AVX-512; right for AVX2 too)", here=True
        ),
        _mlas("ort-cpu-avx2", 8, "ONNX Runtime on a CPU without AVX-512 (blocks of 8 channels)"),
        Target("torch-cpu", 16, "torch on a CPU: for result.module", ns_per_node=5000.0, runtime="torch"),
        Target("generic", 1, "no assumption about the runtime: counts are not aligned"),
    )
}


def find_target(name: str) -> Target:
    """The target called ``name``; raises :class:`UsageError` that lists the known ones."""
    if name not in TARGETS:
        known = f"known targets: {', '.join(TARGETS)}"
        raise UsageError(f"unknown target {name!r}", hint=did_you_mean(name, TARGETS, known), target=name)
    return TARGETS[name]


def suited(target: Target, graph: Graph) -> Target:
    """``target`` for the memory and the batch of ``graph``: one example, where it takes any number."""
    last = any(arrays.is_torch(c.data) and arrays.is_channels_last(c.data) for c in graph.constants.values())
    fixed = [v.shape[0] for v in graph.inputs if v.shape and 0 not in v.dynamic]
    return target.reading(max(fixed, default=1), channels_last=last)
