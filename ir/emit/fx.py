"""The torch emitter: a graph becomes a trainable ``GraphModule`` with the source's state-dict keys.

Parameters stand where the source had them; nodes whose behaviour depends on the mode (batch norm, dropout) are calls of
stateless leaf modules, so that ``train()`` and ``eval()`` reach them.  Start at :func:`emit`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import fx
from torch.fx.graph import _PyTreeCodeGen, _PyTreeInfo
from torch.utils import _pytree as pytree

from .. import arrays
from ..errors import ModelError
from ..frontends.fx_modes import modes_kept
from ..frontends.fx_recurrent import LAYERS
from ..graph import Constant, Graph, Node, Value, map_values, reads, values_in
from ..inputs import in_order

Args = dict[str, Any]
DOUBLE = True
"""Graphs of this dialect run in float64 too."""


class BatchNorm(torch.nn.Module):
    """Batch normalisation whose state is passed in: (B, c, *) -> (B, c, *)."""

    def __init__(self, momentum: float, eps: float) -> None:
        super().__init__()
        self.momentum, self.eps = momentum, eps

    def forward(
        self,
        x: torch.Tensor,
        weight: torch.Tensor | None,
        bias: torch.Tensor | None,
        mean: torch.Tensor,
        var: torch.Tensor,
        batches: torch.Tensor | None,
    ) -> torch.Tensor:
        if self.training and batches is not None:
            batches.add_(1)
        return F.batch_norm(x, mean, var, weight, bias, self.training, self.momentum, self.eps)


class Dropout(torch.nn.Module):
    """Dropout of elements, or of whole channels, in training; the identity otherwise."""

    def __init__(self, p: float, channels: bool) -> None:
        super().__init__()
        self.p, self.channels = p, channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        drop = torch.feature_dropout if self.channels else torch.dropout
        return drop(x, self.p, self.training)


class Recurrent(torch.nn.Module):
    """Recurrent layers whose weights are passed in; cuDNN and dropout want to know the mode.

    Torch tells a projection by its size, so that a layer with as many cells as projections gets an idle cell more.
    """

    def __init__(self, kind: str, **options: Any) -> None:
        super().__init__()
        self.kind, self.options = kind, options

    def forward(self, x: torch.Tensor, states: Any, weights: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        idle = self._projects_to_its_own_size(states, weights)
        if idle:
            states, weights = (states[0], F.pad(states[1], (0, 1))), [_with_idle_cell(w, states[1]) for w in weights]
        layers: tuple[torch.Tensor, ...] = resolve(self.kind)(x, states, weights, train=self.training, **self.options)
        return (*layers[:2], layers[2][..., :-1]) if idle else layers

    def _projects_to_its_own_size(self, states: Any, weights: list[torch.Tensor]) -> bool:
        each = 4 if self.options["has_biases"] else 2
        sides = self.options["num_layers"] * (1 + bool(self.options["bidirectional"]))
        return len(weights) > each * sides and bool(states[0].shape[-1] == states[1].shape[-1])


def _with_idle_cell(weight: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
    """A row of zeros more for each of four gates, (4 h, *) -> (4 (h + 1), *); a column more for a projection (p, h)."""
    h = cells.shape[-1]
    if weight.shape[0] == h:
        return F.pad(weight, (0, 1))
    gates = weight.reshape(4, h, -1)
    return F.pad(gates, (0, 0, 0, 1)).reshape(4 * (h + 1), *weight.shape[1:])


def emit(graph: Graph) -> fx.GraphModule:
    """A module that computes ``graph``; its parameters are copies of the graph's constants."""
    return _Writer(graph).write()


class _Writer:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.root = torch.nn.Module()
        self.out = fx.Graph()
        self.env: dict[Value, fx.Node] = {}
        self.modes = 0
        self.names = {name: v for v, c in graph.constants.items() for name in c.names}

    def write(self) -> fx.GraphModule:
        for constant in self.graph.constants.values():
            _assign(self.root, constant)
        for value in self.graph.inputs:
            self.env[value] = self.out.placeholder(value.name)
        for node in self.graph.nodes:
            self._node(node)
        self._hold_idle_state()
        self._output()
        source = self.graph.source
        self.out.set_codegen(
            _PyTreeCodeGen(_PyTreeInfo(list(source["forward"]), source["in_spec"], source["out_spec"]))
        )
        self.out.lint()
        module = fx.GraphModule(self.root, self.out, "Compact")
        module.eval()
        return module

    def _node(self, node: Node) -> None:
        leaf = _MODES.get(node.kind)
        if leaf is not None and (made := leaf(node.call)) is not None:
            module, inputs = made
            name = f"_mode_{self.modes}"
            self.modes += 1
            self.root.add_module(name, module)
            result = self.out.call_module(name, map_values((*inputs, *self._batches(node)), self._read))
        else:
            target = resolve(node.kind)
            args, kwargs = arguments(target, map_values(node.call, self._read))
            result = self.out.call_function(target, args, kwargs)
        self._bind(node, result)

    def _bind(self, node: Node, result: fx.Node) -> None:
        if len(node.outputs) == 1 and not node.output.name.endswith(".0"):
            self.env[node.output] = result
            return
        for k, value in enumerate(node.outputs):
            self.env[value] = self.out.call_function(operator.getitem, (result, k))

    def _batches(self, node: Node) -> tuple[Value | None, ...]:
        """The counter of batches beside a running mean, as ``nn.BatchNorm2d`` keeps it."""
        if "batch_norm" not in node.kind:
            return ()
        mean = self.graph.constants.get(node.inputs[3]) if node.inputs[3] is not None else None
        counter = mean.name.removesuffix("running_mean") + "num_batches_tracked" if mean else ""
        return (self.names.get(counter),)

    def _read(self, item: Any) -> Any:
        if not isinstance(item, Value):
            return item
        if item not in self.env:
            self.env[item] = self.out.get_attr(self.graph.constants[item].name)
        return self.env[item]

    def _hold_idle_state(self) -> None:
        """Names that no node reads (second names of a tie, unused parameters): a GraphModule keeps what is read."""
        for value, constant in self.graph.constants.items():
            for name in constant.names[1:] if value in self.env else constant.names:
                self.out.get_attr(name)

    def _output(self) -> None:
        self.out.output(tuple(map_values(self.graph.source["outputs"], self._read)))


def _batch_norm(a: Args) -> tuple[torch.nn.Module, tuple[Any, ...]] | None:
    if a["running_mean"] is None:
        return None
    return BatchNorm(a["momentum"], a["eps"]), (a["input"], a["weight"], a["bias"], a["running_mean"], a["running_var"])


def _dropout(channels: bool) -> Callable[[Args], tuple[torch.nn.Module, tuple[Any, ...]]]:
    return lambda a: (Dropout(a["p"], channels), (a["input"],))


def _recurrent(kind: str) -> Callable[[Args], tuple[torch.nn.Module, tuple[Any, ...]]]:
    def leaf(a: Args) -> tuple[torch.nn.Module, tuple[Any, ...]]:
        options = {k: v for k, v in a.items() if k not in ("input", "hx", "params", "train")}
        return Recurrent(kind, **options), (a["input"], a["hx"], a["params"])

    return leaf


_MODES: dict[str, Callable[[Args], tuple[torch.nn.Module, tuple[Any, ...]] | None]] = {
    "aten.batch_norm.default": _batch_norm,
    "aten.dropout.default": _dropout(False),
    "aten.feature_dropout.default": _dropout(True),
    **{kind: _recurrent(kind) for kind in LAYERS},
}


def resolve(kind: str) -> Any:
    """The callable behind a kind; only ATen overloads and Python's own operators are looked up.

    Raises
    ------
    ModelError
        For a name outside those two.
    """
    namespace, _, rest = kind.partition(".")
    if namespace == "python":
        found = getattr(operator, rest, None) or getattr(torch, rest, None) if rest in _PYTHON else None
    else:
        name, _, overload = rest.rpartition(".")
        packet = getattr(getattr(torch.ops, namespace, None), name, None) if namespace.isidentifier() else None
        found = getattr(packet, overload, None)
    if found is None:
        raise ModelError(f"no operator {kind!r} in this version of torch", hint="install the package that registers it")
    return found


_PYTHON = frozenset(
    "add sub mul floordiv truediv mod neg pow lt le gt ge eq ne and_ or_ not_ getitem sym_int sym_max sym_min sym_not "
    "sym_float sym_ite sym_sqrt sym_sum".split()
)


def arguments(target: Any, call: Args) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments of ``target`` from arguments by name."""
    schema = getattr(target, "_schema", None)
    if schema is None:
        return tuple(v for k, v in call.items() if k.startswith("_")), {
            k: v for k, v in call.items() if not k.startswith("_")
        }
    args = [call[a.name] for a in schema.arguments if not a.kwarg_only and a.name in call]
    return tuple(args), {a.name: call[a.name] for a in schema.arguments if a.kwarg_only and a.name in call}


def _assign(root: torch.nn.Module, constant: Constant) -> None:
    """Put a constant at each of its names; names of one tie share one parameter."""
    last = arrays.is_channels_last(constant.data)
    data = constant.data.detach().clone(memory_format=torch.preserve_format if last else torch.contiguous_format)
    trained = constant.role == "parameter"
    held = torch.nn.Parameter(data, requires_grad=data.is_floating_point()) if trained else data
    for name in constant.names:
        *path, leaf = name.split(".")
        module = root
        for part in path:
            if part not in module._modules:
                module.add_module(part, torch.nn.Module())
            module = module.get_submodule(part)
        if isinstance(held, torch.nn.Parameter):
            module.register_parameter(leaf, held)
        else:
            module.register_buffer(leaf, held, persistent=constant.role == "buffer" and constant.persistent)


# ---------------------------------------------------------------------- running a graph


def sample_inputs(graph: Graph, seed: int) -> list[Any]:
    """Random inputs like the example's: floats normal, integers the example's own values in another order."""
    generator = torch.Generator().manual_seed(seed)
    return [_sample(leaf, generator) for leaf in pytree.tree_leaves(graph.source["example"])]


def _sample(leaf: Any, generator: torch.Generator) -> Any:
    if not isinstance(leaf, torch.Tensor):
        return leaf
    if leaf.is_floating_point():
        return torch.randn(leaf.shape, generator=generator).to(leaf.dtype)
    return leaf.flatten()[torch.randperm(leaf.numel(), generator=generator)].reshape(leaf.shape)


def batch_axes(graph: Graph) -> list[int | None]:
    """For each input the axis whose size is that of the batch, if it is dynamic."""
    return [0 if v.is_tensor and 0 in v.dynamic else None for v in graph.inputs]


def flat_inputs(graph: Graph, given: Any) -> list[Any]:
    """``given``, in the form of example inputs, as :func:`run` takes it."""
    return pytree.tree_leaves(in_order(given, list(graph.source["forward"])))


def returned(graph: Graph) -> list[Value]:
    """What :func:`run` gives, in order: a value may stand there twice."""
    return list(values_in(graph.source["outputs"]))


def observing(graph: Graph, values: list[Value]) -> Graph:
    """``graph`` with ``values``, as far as it computes them, as further outputs."""
    made = graph.producers()
    extra = [v for v in values if v in made and v not in graph.outputs]
    seen = graph.copy()
    seen.outputs += extra
    leaves = [pytree.treespec_leaf() for _ in extra]
    seen.source["outputs"] = (*graph.source["outputs"], *extra)
    seen.source["out_spec"] = pytree.treespec_tuple([graph.source["out_spec"], *leaves])
    return seen


def run(graph: Graph, inputs: list[Any], double: bool = False) -> list[NDArray[Any]]:
    """The tensors and sizes that ``graph`` returns for flat ``inputs``; in float64 where asked for."""
    module = _passing(graph)
    if double:
        module = _doubled(module)
        inputs = [x.double() if isinstance(x, torch.Tensor) and x.is_floating_point() else x for x in inputs]
    return _called(module, graph, inputs)


def _passing(graph: Graph) -> fx.GraphModule:
    """:func:`emit` for a while: with the last reference its weights go, which a module that its graph knows keeps."""
    module = emit(graph)
    module.graph.owning_module = None
    return module


def run_source(model: Any, graph: Graph, inputs: list[Any]) -> list[NDArray[Any]]:
    """What the module or exported program that ``graph`` was read from returns for flat ``inputs``, in order.

    A module runs in evaluation mode, and what it remembers of the run is taken back.
    """
    module = model if isinstance(model, torch.nn.Module) else model.module()
    held = [(b, b.clone()) for b in module.buffers()]
    try:
        with modes_kept(module):
            for part in module.modules():
                part.training = False
            return _called(module, graph, inputs)
    finally:
        for buffer, before in held:
            buffer.data.copy_(before)


def _called(module: torch.nn.Module, graph: Graph, inputs: list[Any]) -> list[NDArray[Any]]:
    """What ``module`` returns, called as ``graph`` says, in the order of its outputs."""
    args, kwargs = pytree.tree_unflatten(inputs, graph.source["in_spec"])
    with torch.no_grad():
        result = module(*args, **kwargs)
    leaves = zip(graph.source["outputs"], pytree.tree_leaves(result), strict=True)
    return [_array(x) for value, x in leaves if isinstance(value, Value)]


def _array(x: Any) -> NDArray[Any]:
    return arrays.to_numpy(x) if isinstance(x, torch.Tensor) else np.asarray(x)


def _doubled(module: fx.GraphModule) -> fx.GraphModule:
    """``module`` in float64, what it makes and casts included (in place)."""
    for node in module.graph.nodes:
        node.args, node.kwargs = (fx.node.map_aggregate(a, _doubled_dtype) for a in (node.args, node.kwargs))
    module.recompile()
    return module.double()


def _doubled_dtype(item: Any) -> Any:
    return torch.float64 if item is torch.float32 else item


def evaluate(graph: Graph, node: Node, operands: list[NDArray[np.float64]]) -> NDArray[np.float64] | None:
    """A node computed on numbers in place of its operands; None where it reads something else as well."""
    table = {
        v: torch.from_numpy(np.ascontiguousarray(x))
        for v, x in zip(node.inputs, operands, strict=False)
        if v is not None
    }
    if any(v not in table for v in reads(node)):
        return None
    target = resolve(node.kind)
    args, kwargs = arguments(target, map_values(node.call, lambda v: table[v]))
    try:
        result = target(*args, **kwargs)
    except (RuntimeError, TypeError):  # an operand of another dtype than float64
        return None
    return np.asarray(result.double().numpy()) if isinstance(result, torch.Tensor) else None


def differentiable(graph: Graph, *, double: bool, training: bool) -> fx.GraphModule:
    """A module that computes ``graph``, in float64 where ``double``; batch norms see the batch where ``training``.

    Dropout and recurrent layers stay as they are in evaluation.
    """
    module = _passing(graph)
    for part in module.modules():
        if isinstance(part, BatchNorm):
            part.training = training
    return _doubled(module) if double else module
