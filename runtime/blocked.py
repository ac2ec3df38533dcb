"""Weights of convolutions that are stored once, as ONNX Runtime wants them on this machine, and read as ONNX has them.

A prepared model holds the weight of a convolution (o, i, h, w) in blocks of channels: (o/b, i/b, h, w, b, b), or (o/b,
i, h, w, b) where inputs come one by one.  The same numbers once more for the portable model would double a portfolio.
So that model reads the blocks, through a transposition that every ONNX Runtime folds when it loads the file.  Which
weights are there in blocks is not guessed: their bytes are looked up, and what is not found is stored as it is.  Start
at :func:`through_blocks`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from ..ir.emit.onnx_external import SMALL_BYTES
from .session import Array

SIZES = (8, 16)
"""Channels of a block: without and with AVX-512."""

_MARK = "prunec.blocked "


@dataclass(frozen=True)
class Blocks:
    """How a weight of ``shape`` (o, i, h, w) lies in blocks of ``size`` outputs and, if ``both``, as many inputs."""

    shape: tuple[int, int, int, int]
    size: int
    both: bool

    @property
    def padded(self) -> int:
        """Outputs, filled up with zeros to whole blocks."""
        return -(-self.shape[0] // self.size) * self.size

    @property
    def dims(self) -> tuple[int, ...]:
        """The shape of the blocks."""
        _, i, h, w = self.shape
        o = self.padded // self.size
        return (o, i // self.size, h, w, self.size, self.size) if self.both else (o, i, h, w, self.size)

    @property
    def back(self) -> tuple[int, ...]:
        """The transposition from blocks to outputs, inputs, h, w."""
        return (0, 5, 1, 4, 2, 3) if self.both else (0, 4, 1, 2, 3)

    def made(self, weight: Array) -> Array:
        """The blocks of a weight."""
        o, i, h, w = self.shape
        full = np.zeros((self.padded, i, h, w), weight.dtype)
        full[:o] = weight
        split = (self.padded // self.size, self.size, *((i // self.size, self.size) if self.both else (i,)), h, w)
        return np.ascontiguousarray(full.reshape(split).transpose(np.argsort(self.back)))

    def undone(self, blocks: Array) -> Array:
        """The weight of blocks."""
        o, i, h, w = self.shape
        return np.ascontiguousarray(blocks.transpose(self.back).reshape(self.padded, i, h, w)[:o])


def through_blocks(model: onnx.ModelProto, is_stored: Callable[[bytes], bool]) -> onnx.ModelProto:
    """``model``, in which weights of convolutions whose blocks are stored are read from these."""
    convolved = {n.input[1] for n in model.graph.node if n.op_type == "Conv"}
    found = {}
    for tensor in model.graph.initializer:
        if tensor.name in convolved and len(tensor.dims) == 4 and len(tensor.raw_data) >= SMALL_BYTES:
            weight = numpy_helper.to_array(tensor)
            for blocks in _possible(weight):
                made = blocks.made(weight)
                if is_stored(made.tobytes()):
                    found[tensor.name] = (blocks, made)
                    break
    return _rewritten(model, found) if found else model


def without_blocks(model: onnx.ModelProto) -> onnx.ModelProto:
    """What :func:`through_blocks` began with, its tensors loaded."""
    marked = {t.name: t for t in model.graph.initializer if t.doc_string.startswith(_MARK)}
    if not marked:
        return model
    plain, gone = onnx.ModelProto(), set[str]()
    plain.CopyFrom(model)
    del plain.graph.initializer[:]
    for tensor in model.graph.initializer:
        if tensor.name in marked:
            said = json.loads(tensor.doc_string.removeprefix(_MARK))
            blocks = Blocks(tuple(said["shape"]), said["size"], said["both"])
            weight = blocks.undone(numpy_helper.to_array(tensor))
            plain.graph.initializer.append(numpy_helper.from_array(weight, said["name"]))
            gone |= {*said["nodes"]}
        elif not tensor.doc_string.startswith(_MARK.strip()):
            plain.graph.initializer.append(tensor)
    nodes = [n for n in model.graph.node if n.name not in gone]
    del plain.graph.node[:]
    plain.graph.node.extend(nodes)
    return plain


def _possible(weight: Array) -> Iterator[Blocks]:
    o, i, h, w = weight.shape
    for size in SIZES:
        if i % size == 0:
            yield Blocks((o, i, h, w), size, True)
        yield Blocks((o, i, h, w), size, False)


def _rewritten(model: onnx.ModelProto, found: dict[str, tuple[Blocks, Array]]) -> onnx.ModelProto:
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    tensors = [t for t in changed.graph.initializer if t.name not in found]
    nodes: list[NodeProto] = []
    for name, (blocks, made) in found.items():
        more, constants = _reading(name, blocks, made)
        nodes += more
        tensors += constants
    nodes += changed.graph.node
    del changed.graph.initializer[:], changed.graph.node[:]
    changed.graph.initializer.extend(tensors)
    changed.graph.node.extend(nodes)
    return changed


def _reading(name: str, blocks: Blocks, made: Array) -> tuple[list[NodeProto], list[TensorProto]]:
    """Nodes that give the weight ``name`` from its blocks, and their constants."""
    inner = [f"{name}/blocks", f"{name}/turned", f"{name}/padded"]
    o, i, h, w = blocks.shape
    cut = blocks.padded != o
    nodes = [
        helper.make_node("Transpose", [inner[0]], [inner[1]], f"{name}/turn", perm=blocks.back),
        helper.make_node("Reshape", [inner[1], f"{name}/shape"], [inner[2] if cut else name], f"{name}/join"),
    ]
    constants = {"shape": [blocks.padded, i, h, w]}
    if cut:
        ends = [f"{name}/first", f"{name}/end", f"{name}/axis"]
        nodes.append(helper.make_node("Slice", [inner[2], *ends], [name], f"{name}/cut"))
        constants |= {"first": [0], "end": [o], "axis": [0]}
    held = numpy_helper.from_array(made.reshape(blocks.dims), inner[0])
    said = {
        "name": name, "shape": blocks.shape, "size": blocks.size, "both": blocks.both, "nodes": [n.name for n in nodes]
    }  # fmt: skip
    held.doc_string = _MARK + json.dumps(said)
    small = [numpy_helper.from_array(np.array(v, np.int64), f"{name}/{k}") for k, v in constants.items()]
    for tensor in small:
        tensor.doc_string = _MARK.strip()
    return nodes, [held, *small]
