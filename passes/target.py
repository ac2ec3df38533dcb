"""Targets: the runtime and processor that an artifact is for, as data.

A target says what a planner needs to know: the block of channels that the runtime computes at a time, so that a plan
does not waste the gain on odd counts.  A new target is one entry in :data:`TARGETS`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ..ir.errors import UsageError
from ..ir.words import did_you_mean

ELEMENT_BYTES = 4
"""Bytes of an element: costs are those of float32."""

N = TypeVar("N", int, NDArray[np.int64])


@dataclass(frozen=True)
class Target:
    """``channel_block``: channels computed together; counts that are no multiple of it waste time.

    ``ns_per_mac``, ``ns_per_byte`` (moved) and ``ns_per_node`` are nanoseconds of one core, for weighing one form
    against another.  They are rough, unless ``measured_on`` names the machine that ``prunec profile`` ran on.
    """

    name: str
    channel_block: int
    help: str
    ns_per_mac: float = 0.022
    ns_per_byte: float = 0.05
    ns_per_node: float = 3000.0
    measured_on: str = ""

    def in_blocks(self, count: N) -> N:
        """``count`` channels as the runtime computes them: in whole blocks."""
        return -(-count // self.channel_block) * self.channel_block

    def written_ns(self, elements: float) -> float:
        """Nanoseconds that writing ``elements`` takes."""
        return ELEMENT_BYTES * elements * self.ns_per_byte

    def copy_ns(self, elements: float) -> float:
        """Nanoseconds of a node that copies ``elements``: each is read and written."""
        return 2 * self.written_ns(elements) + self.ns_per_node


TARGETS = {
    t.name: t
    for t in (
        Target("ort-cpu", 16, "ONNX Runtime on a CPU (blocks of 16 channels with AVX-512; right for AVX2 too)"),
        Target("ort-cpu-avx2", 8, "ONNX Runtime on a CPU without AVX-512 (blocks of 8 channels)"),
        Target("generic", 1, "no assumption about the runtime: counts are not aligned"),
    )
}


def find_target(name: str) -> Target:
    """The target called ``name``; raises :class:`UsageError` that lists the known ones."""
    if name not in TARGETS:
        known = f"known targets: {', '.join(TARGETS)}"
        raise UsageError(f"unknown target {name!r}", hint=did_you_mean(name, TARGETS, known), target=name)
    return TARGETS[name]
