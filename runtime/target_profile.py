"""A target's constants as this machine has them: what a multiply-accumulate, a moved byte, a node, an idle block cost.

Pairs of small networks that differ in one thing run in turns in the target's runtime, on one thread; the differences of
their times give the constants.  Start reading at :func:`profile_target`.

The block of channels is not timed: ONNX Runtime shows it, for it pads the weights of a convolution to whole blocks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ..passes.target import ELEMENT_BYTES, Target
from .session import Session

_STEM = 16
"""Channels of the input, and of the output."""

_WIDTH = 64
"""Channels of the layer that reads."""

_ROUNDS = 100
_SIZES = ((14, 256), (28, 128), (56, 64), (7, 512), (28, 256), (14, 512))
"""Height and width, and channels, of the networks that are compared."""


def profile_target(target: Target) -> Target:
    """``target`` with constants measured on this machine, which takes some seconds.

    The block is measured too where the target is whatever machine this is; :mod:`prunec.profiles` says which one.
    """
    make = _onnx if target.runtime == "onnxruntime" else _torch
    pairs = [_Pair.of(size, channels, make) for size, channels in _SIZES]
    mac = float(np.median([pair.ns_per_mac for pair in pairs]))
    byte, node = _fitted(pairs, mac, target.ns_per_node, in_blocks=target.runtime == "onnxruntime")
    block = (_channel_block() if target.here else None) or target.channel_block
    idle = _idle_share(block * target.blocks_at_once, block, make) if target.blocks_at_once > 1 else 0.0
    return replace(target, channel_block=block, ns_per_mac=mac, ns_per_byte=byte, ns_per_node=node, idle_share=idle)


@dataclass(frozen=True)
class _Pair:
    """What three networks took: from ``channels`` channels all, half of them picked, and half of them made."""

    size: int
    channels: int
    all_ns: float
    picked_ns: float
    half_ns: float

    @classmethod
    def of(cls, size: int, channels: int, make: Maker) -> _Pair:
        half = channels // 2
        index = np.sort(np.random.default_rng(0).permutation(channels)[:half])
        networks = [_Network(size, channels), _Network(size, channels, index), _Network(size, half)]
        return cls(size, channels, *_times_ns([make(network) for network in networks]))

    @property
    def area(self) -> int:
        return self.size * self.size

    @property
    def ns_per_mac(self) -> float:
        """Half of the channels are neither made nor read."""
        return (self.all_ns - self.half_ns) / (self.channels // 2 * (_STEM + _WIDTH) * self.area)

    def moved_bytes(self, *, in_blocks: bool) -> int:
        """Half are picked; where layers compute in blocks all come out of them, and half go into them again."""
        half = self.channels // 2
        return 2 * ELEMENT_BYTES * self.area * (self.channels + 2 * half if in_blocks else half)

    def copy_ns(self, ns_per_mac: float) -> float:
        """What picking took, without making the channels that are not picked."""
        return self.picked_ns - self.half_ns - self.channels // 2 * _STEM * self.area * ns_per_mac


def _fitted(pairs: Sequence[_Pair], ns_per_mac: float, declared: float, *, in_blocks: bool) -> tuple[float, float]:
    """Nanoseconds for a moved byte and for a node: what best explains the copies' times.

    A pick is a node; where layers compute ``in_blocks`` it is three, with those that change the layout.
    """
    nodes = 3 if in_blocks else 1
    rows = np.array([[pair.moved_bytes(in_blocks=in_blocks), nodes] for pair in pairs], np.float64)
    copies = np.array([max(0.0, pair.copy_ns(ns_per_mac)) for pair in pairs])
    weights = 1 / np.maximum(copies, copies.max() / 100)  # relative errors, that the largest is not all that counts
    byte, node = np.linalg.lstsq(rows * weights[:, None], copies * weights, rcond=None)[0]
    if min(byte, node) <= 0:  # noise: a node takes what it is declared to take
        node = declared
        byte = max(0.0, float(np.median((copies - node * nodes) / rows[:, 0])))
    return float(byte), float(node)


@dataclass(frozen=True, eq=False)
class _Network:
    """1x1 convolutions: one makes ``channels``, one ``made`` of them, or of those at ``index``, and a last one."""

    size: int
    channels: int
    index: NDArray[np.int64] | None = None
    made: int = _WIDTH

    def weights(self) -> list[NDArray[np.float32]]:
        """One for each convolution."""
        read = self.channels if self.index is None else self.index.size
        shapes = ((self.channels, _STEM), (self.made, read), (_STEM, self.made))
        rng = np.random.default_rng(0)
        return [(rng.standard_normal((*s, 1, 1)) / s[1]).astype(np.float32) for s in shapes]

    def input(self) -> NDArray[np.float32]:
        """(1, channels, height, width)."""
        return np.random.default_rng(1).standard_normal((1, _STEM, self.size, self.size)).astype(np.float32)


Maker = Callable[[_Network], Callable[[], object]]
"""What makes a network into something that runs."""


def _model(network: _Network) -> onnx.ModelProto:
    nodes = [helper.make_node("Conv", ["x", "w0"], ["a"]), helper.make_node("Conv", ["b", "w1"], ["c"])]
    if network.index is None:
        nodes[1].input[0] = "a"
    else:
        nodes.insert(1, helper.make_node("Gather", ["a", "index"], ["b"], axis=1))
    nodes.append(helper.make_node("Conv", ["c", "w2"], ["y"]))
    constants: dict[str, NDArray[Any]] = {f"w{k}": weight for k, weight in enumerate(network.weights())}
    if network.index is not None:
        constants["index"] = network.index
    shape = list(network.input().shape)
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n in "xy")
    tensors = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "pick", [x], [y], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def _onnx(network: _Network) -> Callable[[], object]:
    session, feeds = Session(_model(network), threads=1), {"x": network.input()}
    return partial(session.run, feeds, endless=True)


def _torch(network: _Network) -> Callable[[], object]:
    import torch
    from torch.nn.functional import conv2d

    made, read, last = map(torch.from_numpy, network.weights())
    x = torch.from_numpy(network.input())
    index = None if network.index is None else torch.from_numpy(network.index)

    def run() -> object:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with torch.inference_mode():
                y = conv2d(x, made)
                return conv2d(conv2d(y if index is None else y.index_select(1, index), read), last)
        finally:
            torch.set_num_threads(threads)

    return run


def _times_ns(networks: Sequence[Callable[[], object]]) -> list[float]:
    """The least time of each, in turns: what disturbs a run only adds to it."""
    times = np.full((_ROUNDS, len(networks)), np.inf)
    for k in range(_ROUNDS):
        for j, run in enumerate(networks):
            start = time.perf_counter_ns()
            run()
            times[k, j] = time.perf_counter_ns() - start
    found: list[float] = times.min(0).tolist()
    return found


def _idle_share(whole: int, block: int, make: Maker) -> float:
    """What a block that is missing in a set of ``whole`` channels costs, as a share of one that is there."""
    shares = []
    for size, channels in _SIZES:
        networks = [_Network(size, channels, made=made) for made in (2 * whole, 2 * whole + block, 3 * whole)]
        two, more, three = _times_ns([make(network) for network in networks])
        of_block = (three - two) * block / whole
        if of_block > 0:
            shares.append(((more - two) / of_block - 1) * block / (whole - block))
    return float(np.clip(np.median(shares), 0, 1)) if shares else 0.0


def _channel_block() -> int | None:
    """How many channels the runtime pads the weights of a convolution to; None where it does not."""
    with TemporaryDirectory(prefix="prunec-") as folder:
        options = ort.SessionOptions()
        options.optimized_model_filepath = str(Path(folder, "optimised.onnx"))
        options.log_severity_level = 3  # that the file fits this machine alone is what is wanted
        model = _model(_Network(8, _WIDTH + 4))
        ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        optimised = onnx.load(options.optimized_model_filepath)
    widest = max(tensor.dims[0] for tensor in optimised.graph.initializer if len(tensor.dims) == 4)
    return widest - _WIDTH if widest > _WIDTH + 4 else None
