"""A target's constants as this machine has them: what a multiply-accumulate, a moved byte and a node cost.

Pairs of small networks that differ in one thing run in turns in ONNX Runtime, on one thread; the differences of their
times give the constants.  Start reading at :func:`profile_target`.

The block of channels is not timed: the runtime shows it, for it pads the weights of a convolution to whole blocks.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ..passes.target import Target
from .session import Session

_STEM = 16
"""Channels of the input, and of the output."""

_WIDTH = 64
"""Channels of the layer that reads."""

_NODES = 3
"""A pick is three nodes: out of blocks, the pick, into blocks again."""

_ROUNDS = 30
_SIZES = ((14, 256), (28, 128), (56, 64), (7, 512), (28, 256), (14, 512))
"""Height and width, and channels, of the networks that are compared."""


def profile_target(target: Target) -> Target:
    """``target`` with constants measured on this machine, which takes some seconds."""
    pairs = [_Pair.of(size, channels) for size, channels in _SIZES]
    mac = float(np.median([pair.ns_per_mac for pair in pairs]))
    byte, node = _fitted(pairs, mac)
    block = _channel_block() or target.channel_block
    return replace(target, channel_block=block, ns_per_mac=mac, ns_per_byte=byte, ns_per_node=node)


@dataclass(frozen=True)
class _Pair:
    """What three networks took: from ``channels`` channels all, half of them picked, and half of them made."""

    size: int
    channels: int
    all_ns: float
    picked_ns: float
    half_ns: float

    @classmethod
    def of(cls, size: int, channels: int) -> _Pair:
        half = channels // 2
        index = np.sort(np.random.default_rng(0).permutation(channels)[:half])
        networks = [_network(size, channels), _network(size, channels, index), _network(size, half)]
        return cls(size, channels, *_times_ns(networks, size))

    @property
    def area(self) -> int:
        return self.size * self.size

    @property
    def ns_per_mac(self) -> float:
        """Half of the channels are neither made nor read."""
        return (self.all_ns - self.half_ns) / (self.channels // 2 * (_STEM + _WIDTH) * self.area)

    @property
    def moved_bytes(self) -> int:
        """All come out of blocks; half are picked, and go into blocks: each read and written."""
        return 2 * 4 * self.area * (self.channels + 2 * (self.channels // 2))

    def copy_ns(self, ns_per_mac: float) -> float:
        """What picking took, without making the channels that are not picked."""
        return self.picked_ns - self.half_ns - self.channels // 2 * _STEM * self.area * ns_per_mac


def _fitted(pairs: Sequence[_Pair], ns_per_mac: float) -> tuple[float, float]:
    """Nanoseconds for a moved byte and for a node: what best explains the copies' times; never below nothing."""
    rows = np.array([[pair.moved_bytes, _NODES] for pair in pairs], np.float64)
    copies = np.array([max(0.0, pair.copy_ns(ns_per_mac)) for pair in pairs])
    weights = 1 / np.maximum(copies, copies.max() / 100)  # relative errors, that the largest is not all that counts
    byte, node = np.linalg.lstsq(rows * weights[:, None], copies * weights, rcond=None)[0]
    if min(byte, node) < 0:
        byte, node = float(np.median(copies / rows[:, 0])), 0.0
    return float(byte), float(node)


def _network(size: int, channels: int, index: NDArray[np.int64] | None = None) -> onnx.ModelProto:
    """A 1x1 convolution that makes ``channels``, one that reads them, or those at ``index``, and a last one."""
    read = channels if index is None else index.size
    nodes = [helper.make_node("Conv", ["x", "w0"], ["a"]), helper.make_node("Conv", ["b", "w1"], ["c"])]
    if index is None:
        nodes[1].input[0] = "a"
    else:
        nodes.insert(1, helper.make_node("Gather", ["a", "index"], ["b"], axis=1))
    nodes.append(helper.make_node("Conv", ["c", "w2"], ["y"]))
    shapes = {"w0": (channels, _STEM), "w1": (_WIDTH, read), "w2": (_STEM, _WIDTH)}
    rng = np.random.default_rng(0)
    constants: dict[str, NDArray[Any]] = {
        n: rng.standard_normal((*s, 1, 1)).astype(np.float32) / s[1] for n, s in shapes.items()
    }
    if index is not None:
        constants["index"] = index
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, _STEM, size, size]) for n in "xy")
    tensors = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "pick", [x], [y], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def _times_ns(networks: Sequence[onnx.ModelProto], size: int) -> list[float]:
    """The least time of each, in turns: what disturbs a run only adds to it."""
    sessions = [Session(model, threads=1) for model in networks]
    feeds = {"x": np.random.default_rng(1).standard_normal((1, _STEM, size, size)).astype(np.float32)}
    times = np.full((_ROUNDS, len(sessions)), np.inf)
    for k in range(_ROUNDS):
        for j, session in enumerate(sessions):
            start = time.perf_counter_ns()
            session.run(feeds, endless=True)
            times[k, j] = time.perf_counter_ns() - start
    found: list[float] = times.min(0).tolist()
    return found


def _channel_block() -> int | None:
    """How many channels the runtime pads the weights of a convolution to; None where it does not."""
    with TemporaryDirectory(prefix="prunec-") as folder:
        options = ort.SessionOptions()
        options.optimized_model_filepath = str(Path(folder, "optimised.onnx"))
        options.log_severity_level = 3  # that the file fits this machine alone is what is wanted
        model = _network(8, _WIDTH + 4)
        ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        optimised = onnx.load(options.optimized_model_filepath)
    widest = max(tensor.dims[0] for tensor in optimised.graph.initializer if len(tensor.dims) == 4)
    return widest - _WIDTH if widest > _WIDTH + 4 else None
