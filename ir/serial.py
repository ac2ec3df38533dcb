"""A torch graph on disk: ``graph.json``, ``weights.safetensors`` (``serial_weights.py``) and ``example.safetensors``,
the example inputs.  Data only: nothing is pickled or evaluated.

Values are written by name, operators by their kind, torch's own enums (dtypes, layouts) by theirs.  Reading checks
every name before it is used, because a file may come from anywhere.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch.utils import _pytree as pytree

from . import arrays
from .emit.fx import resolve
from .errors import ModelError
from .graph import Constant, Graph, Node, Value
from .packing.packing import PACKING, Packing
from .serial_weights import Written, read, written

VERSION = 2
_ENUMS: dict[str, type] = {
    "dtype": torch.dtype,
    "layout": torch.layout,
    "memory_format": torch.memory_format,
}


def weights_file(graph: Graph, packing: Packing | None = None) -> Written:
    """The file of the graph's constants, packed where there is a ``packing``; raises :class:`ModelError` on meta."""
    return written({name: c.data for c in graph.constants.values() for name in c.names}, packing)


def save_graph(graph: Graph, folder: Path, packing: Packing | None = None) -> None:
    """Write ``graph`` into ``folder``, its constants packed where there is a ``packing``.

    Raises
    ------
    ModelError
        The graph holds something that has no form as data (a subgraph, an output class unknown to torch).
    """
    examples: dict[str, torch.Tensor] = {}
    constants = []
    for value, constant in graph.constants.items():
        held = {"value": value.name, "names": constant.names, "role": constant.role}
        last = arrays.is_channels_last(constant.data)
        constants.append({**held, "persistent": constant.persistent, "channels_last": last})
    source = graph.source
    try:
        specs = {k: pytree.treespec_dumps(source[k]) for k in ("in_spec", "out_spec")}
    except NotImplementedError as error:
        raise ModelError(
            f"saving: the model returns a class that cannot be written: {error}", hint="return tuples or dicts"
        ) from None
    text = {
        "version": VERSION,
        "values": {v.name: _value(v) for v in graph.values()},
        "inputs": [v.name for v in graph.inputs],
        "outputs": [v.name for v in graph.outputs],
        "constants": constants,
        "nodes": [_node(n) for n in graph.nodes],
        **specs,
        "returned": _encode(source["outputs"]),
        "forward": list(source["forward"]),
        "example": _encode_example(source["example"], examples),
    }
    (folder / "weights.safetensors").write_bytes(weights_file(graph, packing).data)
    (folder / "example.safetensors").write_bytes(save(examples))
    (folder / "graph.json").write_text(json.dumps(text) + "\n")


def _value(value: Value) -> dict[str, Any]:
    return {"shape": value.shape, "dtype": value.dtype, "dynamic": sorted(value.dynamic)}


def _node(node: Node) -> dict[str, Any]:
    return {
        "name": node.name,
        "op": node.op,
        "kind": node.kind,
        "inputs": [None if v is None else v.name for v in node.inputs],
        "outputs": [v.name for v in node.outputs],
        "attrs": _encode(node.attrs),
        "call": _encode(node.call),
    }


def _encode(item: Any) -> Any:
    if isinstance(item, Value):
        return {"$value": item.name}
    if isinstance(item, dict):
        return {"$dict": [[k, _encode(v)] for k, v in item.items()]}
    if isinstance(item, (list, tuple)):
        return {"$tuple" if isinstance(item, tuple) else "$list": [_encode(x) for x in item]}
    if isinstance(item, float) and not math.isfinite(item):
        return {"$float": str(item)}
    for name, kind in _ENUMS.items():
        if isinstance(item, kind):
            return {f"${name}": str(item).removeprefix("torch.")}
    if isinstance(item, torch.device):
        return {"$device": str(item)}
    if item is None or isinstance(item, (bool, int, float, str)):
        return item
    raise ModelError(
        f"saving: an argument of type {type(item).__name__} has no form as data", hint="use result.onnx instead"
    )


def _encode_example(example: Any, tensors: dict[str, torch.Tensor]) -> list[Any]:
    leaves: list[Any] = []
    for k, leaf in enumerate(pytree.tree_leaves(example)):
        if isinstance(leaf, torch.Tensor):
            tensors[str(k)] = leaf.detach().contiguous().clone()
            leaves.append({"$example": k})
        else:
            leaves.append(_encode(leaf))
    return leaves


def load_graph(folder: Path) -> Graph:
    """The graph that :func:`save_graph` wrote; raises :class:`ModelError` for a file that is not one.

    Its ``source`` says how its constants were packed.
    """
    try:
        reader = _Reader(json.loads((folder / "graph.json").read_text()))
        found = read(folder / "weights.safetensors")
        reader.tensors, reader.examples = found.tensors, load((folder / "example.safetensors").read_bytes())
        graph = reader.graph()
        graph.source[PACKING] = found.packing()
        return graph
    except ModelError:
        raise
    except (OSError, KeyError, TypeError, ValueError, AttributeError, IndexError, SafetensorError) as error:
        raise ModelError(
            f"loading {folder}: a file of the torch module is damaged ({error})", hint="save the artifact again"
        ) from error


class _Reader:
    tensors: dict[str, torch.Tensor]
    examples: dict[str, torch.Tensor]

    def __init__(self, data: dict[str, Any]) -> None:
        if data["version"] != VERSION:
            raise ModelError(
                f"loading: graph.json has version {data['version']}, this prunec reads version {VERSION}",
                hint="save the artifact again with this version of prunec",
            )
        self.data = data
        self.values = {
            n: Value(_plain(n), None if v["shape"] is None else tuple(v["shape"]), v["dtype"], frozenset(v["dynamic"]))
            for n, v in data["values"].items()
        }

    def _data(self, constant: dict[str, Any]) -> torch.Tensor:
        name, value = constant["names"][0], self.values[constant["value"]]
        found = self.tensors[name]
        if value.shape is not None and tuple(found.shape) != value.shape:
            raise ModelError(
                f"loading: {name!r} has shape {list(found.shape)} in weights.safetensors and {list(value.shape)} in "
                "graph.json",
                hint="save the artifact again",
            )
        return arrays.channels_last(found) if constant.get("channels_last") else found

    def graph(self) -> Graph:
        d = self.data
        constants = {
            self.values[c["value"]]: Constant(tuple(map(_plain, c["names"])), self._data(c), c["role"], c["persistent"])
            for c in d["constants"]
        }
        in_spec, out_spec = pytree.treespec_loads(d["in_spec"]), pytree.treespec_loads(d["out_spec"])
        source = {
            "in_spec": in_spec,
            "out_spec": out_spec,
            "outputs": self.decode(d["returned"]),
            "forward": [_plain(n) for n in d["forward"]],
            "example": pytree.tree_unflatten([self.decode(x) for x in d["example"]], in_spec),
        }
        inputs, outputs = ([self.values[n] for n in d[k]] for k in ("inputs", "outputs"))
        return Graph("fx", inputs, outputs, [self.node(n) for n in d["nodes"]], constants, source)

    def node(self, n: dict[str, Any]) -> Node:
        resolve(n["kind"])  # only torch's own operators are known by name
        inputs = tuple(None if v is None else self.values[v] for v in n["inputs"])
        outputs = tuple(self.values[v] for v in n["outputs"])
        return Node(
            _plain(n["name"]), n["op"], inputs, outputs, self.decode(n["attrs"]), n["kind"], self.decode(n["call"])
        )

    def decode(self, item: Any) -> Any:
        if not isinstance(item, dict):
            return item
        ((tag, body),) = item.items()
        makers: dict[str, Callable[[Any], Any]] = {
            "$value": lambda b: self.values[b],
            "$dict": lambda b: {k: self.decode(v) for k, v in b},
            "$list": lambda b: [self.decode(x) for x in b],
            "$tuple": lambda b: tuple(self.decode(x) for x in b),
            "$float": float,
            "$device": torch.device,
            "$example": lambda b: self.examples[str(int(b))],
        }
        name = tag.removeprefix("$")
        if name in _ENUMS:
            found = getattr(torch, _plain(body), None)
            if not isinstance(found, _ENUMS[name]):
                raise ModelError(
                    f"loading: graph.json names a {name} {body!r} that torch does not have",
                    hint="load it with the version of torch that saved it",
                )
            return found
        return makers[tag](body)


def _plain(name: str) -> str:
    """A name that generated code may contain: letters, digits, underscores, dots between them."""
    if not all(part.isidentifier() or part.isdigit() for part in name.split(".")):
        raise ModelError(
            f"loading: graph.json holds the name {name!r}, which is no identifier", hint="save the artifact again"
        )
    return name
