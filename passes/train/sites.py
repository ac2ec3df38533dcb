"""Where the weights of linear and convolution layers are in a model, and in the graphs of compiled ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn
from torch.fx import GraphModule

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_OPS = ("linear", "conv1d", "conv2d", "conv3d")
"""The same in graphs, as compiled networks are."""

Place = tuple[nn.Module, str]
"""A parameter by the module that has it and its name there."""


@dataclass(frozen=True, eq=False)
class Site:
    """A weight of a layer of ``type``: the module that has it, and its name there."""

    module: nn.Module
    tensor: str
    type: str

    @property
    def weight(self) -> nn.Parameter:
        found: nn.Parameter = getattr(self.module, self.tensor)
        return found


def sites(model: nn.Module) -> Iterator[tuple[str, Site]]:
    """The weights of linear and convolution layers by name, those in graphs too.

    Not those that a graph's module has itself: it makes a copy of itself, without the class that torch gives it where a
    parametrization stands.
    """
    for prefix, part in model.named_modules():
        if isinstance(part, _LAYERS):
            yield f"{prefix}.weight" if prefix else "weight", Site(part, "weight", _type(type(part).__name__))
        elif isinstance(part, GraphModule):
            for node in part.graph.find_nodes(op="get_attr"):
                kinds = [str(u.target).removeprefix("aten.").split(".")[0] for u in node.users if node in u.args[1:2]]
                if kinds and all(kind in _OPS for kind in kinds):
                    path, _, tensor = str(node.target).rpartition(".")
                    name = f"{prefix}.{node.target}" if prefix else str(node.target)
                    if not isinstance(owner := part.get_submodule(path), GraphModule):
                        yield name, Site(owner, tensor, _type(kinds[0]))


def _type(kind: str) -> str:
    return "linear" if kind.lower() == "linear" else "conv"
