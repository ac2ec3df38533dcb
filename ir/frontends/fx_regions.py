"""Regions of an exported program that were traced under another mode, put back in line.

``with torch.no_grad()`` and a disabled ``autocast`` become calls of a subgraph; neither changes what is computed.
Start at :func:`flat`.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

_NO_GRAD, _AUTOCAST = "wrap_with_set_grad_enabled", "wrap_with_autocast"


def flat(module: torch.nn.Module) -> fx.Graph:
    """The graph of ``module`` without such calls: its own where there are none, else a copy."""
    assert isinstance(module, fx.GraphModule)
    if not any(_region(n) for n in module.graph.nodes):
        return module.graph
    copy = fx.Graph()
    copy.output(_copied(copy, module, "", None))
    return copy


def _region(node: fx.Node) -> bool:
    name = getattr(node.target, "__name__", "")
    if node.op != "call_function" or name not in (_NO_GRAD, _AUTOCAST):
        return False
    return name == _NO_GRAD or not node.args[2]  # (device, dtype, enabled, …)


def _copied(copy: fx.Graph, module: fx.GraphModule, path: str, operands: list[Any] | None) -> Any:
    """The nodes of ``module`` appended to ``copy``, its placeholders standing for ``operands``; what it returns."""
    env: dict[fx.Node, Any] = {}
    given = iter(operands or ())
    for node in module.graph.nodes:
        if node.op == "output":
            return fx.node.map_arg(node.args[0], env.__getitem__)
        if node.op == "placeholder" and operands is not None:
            env[node] = next(given)
        elif _region(node):
            name = next(a.target for a in node.args if isinstance(a, fx.Node) and a.op == "get_attr")
            first = [a is not None and getattr(a, "target", None) == name for a in node.args].index(True) + 1
            inner = [fx.node.map_arg(a, env.__getitem__) for a in node.args[first:]]
            part = getattr(module, str(name))
            env[node] = _copied(copy, part, f"{path}{name}.", inner)
        elif node.target is operator.getitem and not isinstance(env[node.args[0]], fx.Node):
            env[node] = env[node.args[0]][node.args[1]]
        else:
            env[node] = copy.node_copy(node, env.__getitem__)
            if node.op == "get_attr":
                env[node].target = f"{path}{node.target}"
    raise AssertionError("a graph without an output")
