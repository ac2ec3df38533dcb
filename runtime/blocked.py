"""Weights of convolutions that are stored once, as ONNX Runtime wants them on this machine, and read as ONNX has them.

A prepared model holds the weight of a convolution (o, i, h, w) in blocks of channels: (o/b, i/b, h, w, b, b), or (o/b,
i, h, w, b) where inputs come one by one.  The same numbers once more for the portable model would double a portfolio.
So that model reads the blocks, through a transposition that every ONNX Runtime folds when it loads the file.  Which
weights are there in blocks is not guessed: their bytes are looked up, and what is not found is stored as it is.  Start
at :func:`through_blocks`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from ..ir.emit.onnx_external import SMALL_BYTES
from .session import Array

SIZES = (8, 16)
"""Channels of a block: without and with AVX-512."""

_BLOCKS = "/blocks"
_OLDEST_IR, _OLDEST_OPSET = 4, 10
"""Of models that read blocks: initialisers are no inputs, and Slice takes its bounds as inputs."""


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


def through_blocks(
    model: onnx.ModelProto, is_stored: Callable[[bytes], bool]
) -> tuple[onnx.ModelProto, dict[str, Blocks]]:
    """``model``, in which weights of convolutions whose blocks are stored are read from these; and which those are."""
    if not _can_read_blocks(model):
        return model, {}
    taken = {v.name for v in (*model.graph.input, *model.graph.output, *model.graph.value_info)}
    taken |= {name for node in model.graph.node for name in (*node.input, *node.output, node.name)}
    taken |= {t.name for t in model.graph.initializer}
    shown = {v.name for v in (*model.graph.input, *model.graph.output)}
    convolved = {n.input[1] for n in model.graph.node if n.op_type == "Conv" and len(n.input) > 1} - shown
    found, made = dict[str, Blocks](), dict[str, Array]()
    for tensor in model.graph.initializer:
        fits = len(tensor.dims) == 4 and len(tensor.raw_data) >= SMALL_BYTES
        if tensor.name in convolved and fits and not _names(tensor.name) & taken:
            weight = numpy_helper.to_array(tensor)
            for blocks in _possible(weight):
                held = blocks.made(weight)
                if is_stored(held.tobytes()):
                    found[tensor.name], made[tensor.name] = blocks, held
                    break
    return (_rewritten(model, found, made) if found else model), found


def without_blocks(model: onnx.ModelProto, found: Mapping[str, Blocks]) -> onnx.ModelProto:
    """What :func:`through_blocks` began with, its tensors loaded; ``found`` is what it gave beside the model."""
    if not found:
        return model
    plain = onnx.ModelProto()
    plain.CopyFrom(model)
    gone = {name for weight in found for name in _names(weight)}
    del plain.graph.initializer[:], plain.graph.node[:]
    for tensor in model.graph.initializer:
        weight = tensor.name.removesuffix(_BLOCKS)
        if tensor.name not in gone:
            plain.graph.initializer.append(tensor)
        elif tensor.name.endswith(_BLOCKS):
            undone = found[weight].undone(numpy_helper.to_array(tensor))
            plain.graph.initializer.append(numpy_helper.from_array(undone, weight))
    plain.graph.node.extend(n for n in model.graph.node if n.name not in gone)
    return plain


def _can_read_blocks(model: onnx.ModelProto) -> bool:
    """Whether its opset has what blocks are read by, and initialisers need not be inputs."""
    opsets = [o.version for o in model.opset_import if o.domain in ("", "ai.onnx")]
    return model.ir_version >= _OLDEST_IR and bool(opsets) and opsets[0] >= _OLDEST_OPSET


def _names(weight: str) -> set[str]:
    """Names that reading a weight from blocks takes, of nodes and values."""
    return {f"{weight}/{part}" for part in "blocks turned padded turn join cut shape first end axis".split()}


def _possible(weight: Array) -> Iterator[Blocks]:
    o, i, h, w = weight.shape
    for size in SIZES:
        if i % size == 0:
            yield Blocks((o, i, h, w), size, True)
        yield Blocks((o, i, h, w), size, False)


def _rewritten(model: onnx.ModelProto, found: Mapping[str, Blocks], made: Mapping[str, Array]) -> onnx.ModelProto:
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    tensors = [t for t in changed.graph.initializer if t.name not in found]
    nodes: list[NodeProto] = []
    for name, blocks in found.items():
        more, constants = _reading(name, blocks, made[name])
        nodes += more
        tensors += constants
    nodes += changed.graph.node
    del changed.graph.initializer[:], changed.graph.node[:]
    changed.graph.initializer.extend(tensors)
    changed.graph.node.extend(nodes)
    return changed


def _reading(name: str, blocks: Blocks, made: Array) -> tuple[list[NodeProto], list[TensorProto]]:
    """Nodes that give the weight ``name`` from its blocks, and their constants."""
    inner = [f"{name}{_BLOCKS}", f"{name}/turned", f"{name}/padded"]
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
    return nodes, [held, *(numpy_helper.from_array(np.array(v, np.int64), f"{name}/{k}") for k, v in constants.items())]
