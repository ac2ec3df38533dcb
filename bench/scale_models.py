"""Decoders of any size: as a torch module, and as an ONNX file whose tensors are written one by one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper
from torch import Tensor, nn

PAGE = 4096


class Norm(nn.Module):
    """Root mean square norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.weight


class Block(nn.Module):
    """Attention with grouped queries and a gated perceptron, each in a shortcut."""

    def __init__(self, width: int, heads: int, key_heads: int, hidden: int) -> None:
        super().__init__()
        self.size = width // heads
        keys = key_heads * self.size
        self.before_attention, self.before_hidden = Norm(width), Norm(width)
        self.query, self.out = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.key, self.value = nn.Linear(width, keys, bias=False), nn.Linear(width, keys, bias=False)
        self.gate, self.up = nn.Linear(width, hidden, bias=False), nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.before_attention(x)
        q, k, v = (self._heads(layer(y)) for layer in (self.query, self.key, self.value))
        found = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        x = x + self.out(found.transpose(1, 2).flatten(2))
        y = self.before_hidden(x)
        result: Tensor = x + self.down(F.silu(self.gate(y)) * self.up(y))
        return result

    def _heads(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:2], -1, self.size).transpose(1, 2)


class Decoder(nn.Module):
    """A decoder with tied embedding; the defaults make one of 1.24 billion parameters."""

    def __init__(
        self,
        layers: int = 16,
        width: int = 2048,
        heads: int = 32,
        key_heads: int = 8,
        hidden: int = 8192,
        words: int = 128_256,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, width)
        self.blocks = nn.ModuleList(Block(width, heads, key_heads, hidden) for _ in range(layers))
        self.norm = Norm(width)
        self.head = nn.Linear(width, words, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x)
        result: Tensor = self.head(self.norm(x))
        return result


class OnnxDecoder:
    """A decoder written to ``path`` with its tensors beside it; ``layers`` of 50 MB each."""

    def __init__(self, path: Path, layers: int = 10, width: int = 1024, heads: int = 16, hidden: int = 4096) -> None:
        self.path, self.data = path, path.with_name(path.name + ".data")
        self.rng = np.random.default_rng(0)
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[onnx.TensorProto] = []
        with self.data.open("wb") as self.file:
            self._write(layers, width, heads, hidden)

    @property
    def size_bytes(self) -> int:
        return self.path.stat().st_size + self.data.stat().st_size

    def _write(self, layers: int, width: int, heads: int, hidden: int) -> None:
        self._small("split", np.array([0, 0, heads, width // heads]))
        self._small("join", np.array([0, 0, width]))
        self._small("scale", np.float32((width // heads) ** -0.5))
        x = self._node("Gather", [self._tensor("embedding", width, width), "tokens"], "x")
        for k in range(layers):
            x = self._block(f"layer{k}.", x, width, hidden)
        self._node("MatMul", [x, self._tensor("head", width, 256)], "logits")
        tokens = helper.make_tensor_value_info("tokens", TensorProto.INT64, ["batch", 16])
        logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 16, 256])
        graph = helper.make_graph(self.nodes, "decoder", [tokens], [logits], self.tensors)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        self.path.write_bytes(model.SerializeToString())

    def _block(self, name: str, x: str, width: int, hidden: int) -> str:
        y = self._norm(name + "attention", x, width)
        q, k, v = (self._heads(name + c, y, width, c == "k") for c in "qkv")
        scores = self._node("Mul", [self._node("MatMul", [q, k], name + "scores"), "scale"], name + "scaled")
        mixed = self._node("MatMul", [self._node("Softmax", [scores], name + "shares", axis=-1), v], name + "mixed")
        joined = self._node("Transpose", [mixed], name + "turned", perm=[0, 2, 1, 3])
        joined = self._node("Reshape", [joined, "join"], name + "joined")
        x = self._node("Add", [x, self._linear(name + "out", joined, width, width)], name + "x")
        y = self._linear(name + "up", self._norm(name + "hidden", x, width), width, hidden)
        y = self._linear(name + "down", self._node("Relu", [y], name + "relu"), hidden, width)
        return self._node("Add", [x, y], name + "y")

    def _norm(self, name: str, x: str, width: int) -> str:
        ones, zeros = np.ones(width, np.float32), np.zeros(width, np.float32)
        parts = [x, self._small(name + ".weight", ones), self._small(name + ".bias", zeros)]
        return self._node("LayerNormalization", parts, name + "_norm", axis=-1)

    def _heads(self, name: str, x: str, width: int, turned: bool) -> str:
        split = self._node("Reshape", [self._linear(name, x, width, width), "split"], name + "_split")
        return self._node("Transpose", [split], name + "_heads", perm=[0, 2, 3, 1] if turned else [0, 2, 1, 3])

    def _linear(self, name: str, x: str, inputs: int, outputs: int) -> str:
        return self._node("MatMul", [x, self._tensor(name + ".weight", inputs, outputs)], name)

    def _node(self, op: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def _small(self, name: str, array: Any) -> str:
        self.tensors.append(onnx.numpy_helper.from_array(np.asarray(array), name))
        return name

    def _tensor(self, name: str, rows: int, columns: int) -> str:
        array = self.rng.standard_normal((rows, columns), dtype=np.float32) * np.float32(rows**-0.5)
        offset = -(-self.file.tell() // PAGE) * PAGE
        self.file.write(bytes(offset - self.file.tell()))
        self.file.write(array.data)
        tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=array.shape)
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", self.data.name), ("offset", offset), ("length", array.nbytes)):
            tensor.external_data.add(key=key, value=str(value))
        self.tensors.append(tensor)
        return name
