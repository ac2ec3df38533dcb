"""The torch frontend: modules and exported programs become graphs.

``torch.export`` is the front door; its ATen graph is read node by node.  The batch axis is traced as dynamic where the
model allows it.  In-place overloads become their functional twins, subgraphs that depend on no input and no parameter
are computed once, and assertions are dropped.  Start at :func:`export` and :func:`from_exported`.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import operator
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import fx
from torch.export.graph_signature import InputKind, OutputKind
from torch.utils import _pytree as pytree

from ..errors import Declined, ModelError, first_line
from ..graph import Constant, Graph, Node, Value, values_in
from ..opset import OPAQUE
from .fx_modes import modes_kept
from .fx_names import NAMES, RESULT
from .fx_regions import flat
from .spelling import Spelling

Exported = torch.export.ExportedProgram
_DROPPED = ("aten._assert", "aten.sym_constrain", "aten._guards", "aten.sym_assert")
_SHAPE_ONLY = ("aten.new_zeros", "aten.new_ones", "aten.new_full", "aten.new_empty")
_SPLIT_BATCH_NORM = "aten._native_batch_norm_legit_no_training.default"
_STRIDED = frozenset({"aten.view.default", "aten._unsafe_view.default"})
"""Views that want strides; those of a fused op may be others once shapes change, and a reshape takes any."""
_PASSED_ON = frozenset("_unsafe_view dropout feature_dropout alpha_dropout type_as broadcast_tensors meshgrid".split())
"""Ops that may return the memory they were given although their schema does not say so."""


def export(model: torch.nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Exported:
    """Export ``model`` in evaluation mode, with a dynamic batch axis where that works.

    Raises
    ------
    ModelError
        When ``torch.export`` cannot trace the model.
    """
    try:
        with modes_kept(model), _quiet():
            model.eval()
            return _export_dynamic(model, args, dict(kwargs)) or _export(model, args, dict(kwargs), None)
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"torch.export cannot trace {type(model).__name__}: {first_line(error)}",
            hint="check that the example inputs fit; data-dependent control flow must be rewritten",
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Tracing warns, and logs the tracebacks of what it tries in vain."""
    known = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(known)


def _export(model: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], shapes: Any) -> Exported:
    return torch.export.export(model, args, kwargs, dynamic_shapes=shapes, strict=False)


def _export_dynamic(model: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Exported | None:
    """The model exported with a batch of at least two and axis 0 of every input dynamic; None where that fails.

    Copies are exported: the trace marks its inputs, and an attempt that fails would leave them marked.
    """
    tensors = [t for t in pytree.tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor) and t.ndim]
    if not tensors or len({t.shape[0] for t in tensors}) != 1:
        return None
    batch = tensors[0].shape[0]
    grow = (lambda t: torch.cat([t, t]) if _batched(t) else t) if batch == 1 else _copy
    args, kwargs = pytree.tree_map(grow, (args, kwargs))
    auto = torch.export.Dim.DYNAMIC
    shapes = pytree.tree_map(lambda t: {0: auto} if _batched(t) else None, (args, kwargs))
    try:
        return _export(model, args, kwargs, _by_name(model, *shapes))
    except Exception:
        return None


def _copy(item: Any) -> Any:
    return item.detach().clone() if isinstance(item, torch.Tensor) else item


def _batched(item: Any) -> bool:
    return isinstance(item, torch.Tensor) and item.ndim > 0


def _by_name(model: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Dynamic shapes as ``torch.export`` wants them: by the names of ``forward``, ``*args`` and ``**kwargs`` whole."""
    return dict(inspect.signature(model.forward).bind_partial(*args, **kwargs).arguments)


_TAKEN = frozenset(dir(torch.nn.Module()))


def _literal(name: str) -> str:
    """A name for a literal that a module can hold: no attribute of every module, such as ``to``."""
    return f"_literal.{name}_" if name in _TAKEN else f"_literal.{name}"


def from_exported(program: Exported) -> Graph:
    """The graph of an exported program.

    Raises
    ------
    ModelError
        When the program mutates its state, or holds objects that are no tensors.
    """
    _refuse_own_names(program)
    try:
        return _Reader(program).read()
    except _NeedsFunctional:
        return _Reader(program.run_decompositions({})).read()


_OWN = frozenset({*dir(fx.GraphModule), "_graph", "_code", "meta", "shape_env"}) - _TAKEN


def _refuse_own_names(program: Exported) -> None:
    """The compact module keeps the source's names, and is a ``GraphModule``, which has attributes of its own."""
    own = sorted({name.partition(".")[0] for name in program.state_dict} & _OWN)
    if own:
        raise ModelError(
            f"reading the exported program: {own[0]!r} is an attribute of the model and of every torch.fx.GraphModule",
            hint="rename it in the model: a GraphModule, which the compact one is, can hold no parameter of that name",
        )


class _NeedsFunctional(Exception):
    """An in-place op on a view: the program has to be functionalised first."""


class _Reader:
    def __init__(self, program: Exported) -> None:
        self.program = program
        self.graph = flat(program.graph_module)
        self.env: dict[fx.Node, Any] = {}
        self.folded: dict[fx.Node, Any] = {}
        self.nodes: list[Node] = []
        self.inputs: list[Value] = []
        self.constants: dict[Value, Constant] = {}
        self.alias: dict[fx.Node, fx.Node] = {}
        self.storage: dict[Any, fx.Node] = {}
        self.position = {n: k for k, n in enumerate(self.graph.nodes)}
        self.state = {**program.state_dict, **program.constants}

    def read(self) -> Graph:
        specs = {s.arg.name: s for s in self.program.graph_signature.input_specs}
        for node in self.graph.nodes:
            if node.op == "placeholder":
                self._placeholder(node, specs[node.name])
            elif node.op == "get_attr":
                self._attribute(node)
            elif node.op == "call_function":
                self._call(node)
            elif node.op == "output":
                outputs = self._outputs(node)
        self._keep_unused_state()
        source = {
            "in_spec": self.program.call_spec.in_spec,
            "out_spec": self.program.call_spec.out_spec,
            "outputs": outputs,
            "example": self.program.example_inputs,
            "forward": self._parameter_names(),
        }
        values = list(dict.fromkeys(v for v in values_in(outputs) if v.is_tensor))
        return Graph("fx", self.inputs, values, self.nodes, self.constants, source).prune_unused()

    # ------------------------------------------------------------------ what is not computed

    def _placeholder(self, node: fx.Node, spec: Any) -> None:
        if spec.kind == InputKind.USER_INPUT:
            self.env[node] = value = _value(node.name, node.meta.get("val"))
            self.inputs.append(value)
        elif spec.kind in (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR):
            self._constant(node, spec.target, spec.kind, bool(spec.persistent if spec.persistent is not None else True))
        else:
            raise ModelError(
                f"input {node.name!r} of the exported program is a {spec.kind.name}", hint="only tensors are supported"
            )

    def _constant(self, node: fx.Node, target: str, kind: InputKind, persistent: bool) -> None:
        data = self.state[target]
        known = self.storage.setdefault(_storage(data), node)
        if known is not node:
            value = self.env[node] = self.env[known]
            self.constants[value].names = (*self.constants[value].names, target)
            return
        roles = {InputKind.PARAMETER: "parameter", InputKind.BUFFER: "buffer"}
        value = _value(node.name, data)
        self.constants[value] = Constant((target,), data, roles.get(kind, "literal"), persistent)
        self.env[node] = value
        if kind == InputKind.CONSTANT_TENSOR:
            self.folded[node] = data.clone()

    def _keep_unused_state(self) -> None:
        """State that the graph never reads (``num_batches_tracked``) still belongs to the state dict."""
        known = {name for c in self.constants.values() for name in c.names}
        buffers = set(self.program.graph_signature.buffers)
        for name, data in self.program.state_dict.items():
            if name in known:
                continue
            role = "buffer" if name in buffers or not isinstance(data, torch.nn.Parameter) else "parameter"
            self.constants[_value(name.replace(".", "_"), data)] = Constant((name,), data, role)

    def _attribute(self, node: fx.Node) -> None:
        found = self.program.graph_module
        for part in str(node.target).split("."):
            found = getattr(found, part)
        if not isinstance(found, torch.Tensor):
            self.env[node] = found
            return
        value = _value(node.name, found)
        self.constants[value] = Constant((str(node.target),), found, "literal")
        self.env[node], self.folded[node] = value, found.clone()

    # ------------------------------------------------------------------ what is computed

    def _call(self, node: fx.Node) -> None:
        if node.target is operator.getitem:
            whole, k = node.args
            assert isinstance(whole, fx.Node) and isinstance(k, int)
            self.alias[node] = self._root(whole)
            if whole in self.folded:
                self.folded[node] = self.folded[whole][k]
            else:
                self.env[node] = self.env[whole][k]
            return
        kind = _kind(node.target)
        if kind.startswith(_DROPPED) or (not node.users and not _mutates(node.target)):
            return
        if self._fold(node, kind) or self._copied(node, kind):
            return
        target, kind = self._functional(node, kind)
        arguments = _by_argument(target, node, self._operand)
        result = node.meta.get("val")
        if kind == _SPLIT_BATCH_NORM:
            kind, arguments, result = _whole_batch_norm(arguments, result)
        if kind in _STRIDED:
            kind, arguments = "aten.reshape.default", {"self": arguments["self"], "shape": arguments["size"]}
        outputs = _results(node.name, result)
        op, inputs, attrs = self._spell(kind, target, arguments, outputs)
        self.nodes.append(Node(node.name, op, inputs, tuple(outputs), attrs, kind, arguments))
        self.env[node] = outputs if isinstance(node.meta.get("val"), (tuple, list)) else outputs[0]
        if _is_view(node.target) and node.all_input_nodes:
            self._share(node)

    def _share(self, view: fx.Node) -> None:
        """Enter ``view`` as memory of its first operand; results of a list may be memory of any."""
        first, *others = view.all_input_nodes
        self.alias[view] = self._root(first)
        for other in others if isinstance(view.meta.get("val"), (tuple, list)) else ():
            if self._root(other) is not self._root(first):
                self.alias[self._root(other)] = self._root(first)

    def _operand(self, node: fx.Node) -> Any:
        if node in self.folded and node not in self.env:
            data = self.folded[node]
            if not isinstance(data, torch.Tensor):
                return data
            value = _value(node.name, data)
            self.constants[value] = Constant((_literal(node.name),), data.clone(), "literal")
            self.env[node] = value
        return self.env[node]

    def _fold(self, node: fx.Node, kind: str) -> bool:
        """Compute a node now when it depends on no input and no parameter.  In-place ops act on what was computed."""
        inputs = node.all_input_nodes
        if kind.startswith(_SHAPE_ONLY):
            if any(isinstance(s, fx.Node) for s in node.args[1]):  # type: ignore[union-attr]
                return False
            like = node.meta["val"]
            size, extra = node.args[1], node.args[2:]
            template = torch.empty((), dtype=like.dtype, device=like.device)
            self.folded[node] = node.target(template, size, *extra)  # type: ignore[operator]
            return True
        if not all(n in self.folded for n in inputs) or not isinstance(node.target, torch._ops.OpOverload):
            return False
        if torch.Tag.nondeterministic_seeded in node.target.tags:
            return False
        args, kwargs = pytree.tree_map_only(fx.Node, lambda n: self.folded[n], (node.args, dict(node.kwargs)))
        self.folded[node] = node.target(*args, **kwargs)
        return True

    def _copied(self, node: fx.Node, kind: str) -> bool:
        """``copy(x, source)`` of one shape and dtype is ``source``; as an op it has no derivative."""
        if kind != "aten.copy.default":
            return False
        x, source = (n.meta["val"] for n in node.args[:2])  # type: ignore[union-attr]
        if x.shape != source.shape or x.dtype != source.dtype:
            return False
        self.env[node] = self._operand(node.args[1])  # type: ignore[arg-type]
        return True

    def _root(self, node: fx.Node) -> fx.Node:
        while node in self.alias:
            node = self.alias[node]
        return node

    def _functional(self, node: fx.Node, kind: str) -> tuple[Any, str]:
        """The functional twin of an in-place op, after which the mutated value is the result."""
        if not _mutates(node.target):
            return node.target, kind
        name, overload = node.target._opname, node.target._overloadname  # type: ignore[union-attr]
        mutated = node.args[0] if node.args else None
        packet = getattr(torch.ops.aten, name.removesuffix("_"), None)
        if (
            not name.endswith("_")
            or packet is None
            or not hasattr(packet, overload)
            or not isinstance(mutated, fx.Node)
        ):
            raise _NeedsFunctional
        root, here = self._root(mutated), self.position[node]
        family = [n for n in self.position if self._root(n) is root and n is not mutated]
        later = [n for n in family if any(self.position[u] > here for u in n.users)]
        if later or self._is_state(root):
            raise _NeedsFunctional
        twin = getattr(packet, overload)
        for user in list(mutated.users):
            if self.position[user] > here:
                user.replace_input_with(mutated, node)
        return twin, _kind(twin)

    def _is_state(self, node: fx.Node) -> bool:
        held = self.env.get(node)
        return isinstance(held, Value) and held in self.constants

    def _spell(
        self, kind: str, target: Any, arguments: dict[str, Any], outputs: Sequence[Value]
    ) -> tuple[str, tuple[Value | None, ...], dict[str, Any]]:
        """Op, operands and attributes of a node; opaque with every tensor as operand where no spelling fits."""
        spelling = NAMES.get(kind) or pointwise(target)
        everything = tuple(dict.fromkeys(v for v in values_in(arguments) if v.is_tensor))
        if spelling is None:
            return OPAQUE, everything, {}
        try:
            seen = {**arguments, RESULT: list(outputs) if len(outputs) > 1 or spelling.op == "split" else outputs[0]}
            attrs = spelling.read(seen) if spelling.read else {}
        except Declined as declined:
            return OPAQUE, everything, {"why": str(declined)}
        if spelling.op == "batch_norm" and arguments.get("training"):
            return "batch_statistics", operands(arguments, spelling)[:3], attrs
        if spelling.op == "attention" and arguments.get("enable_gqa"):
            return self._grouped(arguments, everything, attrs)
        return spelling.op, operands(arguments, spelling), attrs

    def _grouped(
        self, a: dict[str, Any], everything: tuple[Value, ...], attrs: dict[str, Any]
    ) -> tuple[str, tuple[Value | None, ...], dict[str, Any]]:
        q, k, v = a["query"], a["key"], a["value"]
        if a.get("attn_mask") is not None or len(q.shape) != 4:
            return OPAQUE, everything, {"why": "grouped queries with a mask, or not of rank 4"}
        return "attention_grouped", (q, k, v), {**attrs, "kv_heads": k.shape[1]}

    # ------------------------------------------------------------------ results

    def _outputs(self, node: fx.Node) -> list[Any]:
        specs = self.program.graph_signature.output_specs
        if any(s.kind != OutputKind.USER_OUTPUT for s in specs):
            raise ModelError(
                "the model changes its own buffers while it runs",
                hint="export it in evaluation mode, without such state",
            )
        return [self._operand(x) if isinstance(x, fx.Node) else x for x in node.args[0]]  # type: ignore[union-attr]

    def _parameter_names(self) -> list[str]:
        """What ``forward`` calls its arguments: one that holds several tensors has one name."""
        specs = self.program.graph_signature.input_specs
        leaves = [s.arg.name for s in specs if s.kind == InputKind.USER_INPUT]
        arguments, keywords = self.program.call_spec.in_spec.children()
        declared = getattr(self.program.module_call_graph[0].signature, "forward_arg_names", None) or []
        names = []
        for k, spec in enumerate(arguments.children()):
            inside = [leaves.pop(0) for _ in range(spec.num_leaves)]
            names.append(inside[0] if spec.is_leaf() else declared[k] if k < len(declared) else f"argument_{k}")
        return [*names, *keywords.context]


def operands(arguments: Mapping[str, Any], spelling: Spelling) -> tuple[Value | None, ...]:
    """The values of a node in the order that its op declares."""
    if spelling.operands is None:
        return tuple(v for v in values_in(dict(arguments)) if v.is_tensor)
    found: list[Value | None] = []
    for name in spelling.operands:
        given = arguments.get(name)
        if isinstance(given, (list, tuple)):
            found += [v for v in values_in(given) if v.is_tensor]
        else:
            found.append(given if isinstance(given, Value) else None)
    return tuple(found)


def pointwise(target: Any) -> Spelling | None:
    """How an overload is spelled that no table names: ATen says itself which act on elements alone; None for others."""
    tags = getattr(target, "tags", ())
    return Spelling("elementwise") if torch.Tag.pointwise in tags else None


def _by_argument(target: Any, node: fx.Node, operand: Any) -> dict[str, Any]:
    """The node's arguments by the names of the schema, nodes replaced by values; defaults filled in."""
    args, kwargs = fx.node.map_arg((node.args, dict(node.kwargs)), operand)
    schema = getattr(target, "_schema", None)
    if schema is None:
        return {**{f"_{k}": a for k, a in enumerate(args)}, **kwargs}
    found = {}
    for k, argument in enumerate(schema.arguments):
        if k < len(args):
            found[argument.name] = _plain(args[k])
        elif argument.name in kwargs:
            found[argument.name] = _plain(kwargs[argument.name])
        elif argument.has_default_value():
            found[argument.name] = argument.default_value
    return found


def _whole_batch_norm(a: dict[str, Any], results: Any) -> tuple[str, dict[str, Any], Any]:
    """What functionalisation makes of a batch norm in evaluation, as the op that switches to training."""
    return "aten.batch_norm.default", {**a, "training": False, "cudnn_enabled": False}, results[0]


def _plain(item: Any) -> Any:
    return [_plain(x) for x in item] if isinstance(item, (list, tuple)) else item


def _kind(target: Any) -> str:
    if isinstance(target, torch._ops.OpOverload):
        return str(target)
    return f"python.{getattr(target, '__name__', str(target))}"


def _is_view(target: Any) -> bool:
    """Whether the result may share the memory of the first operand."""
    if not isinstance(target, torch._ops.OpOverload):
        return False
    shared = (r.alias_info for r in target._schema.returns)
    return target._opname in _PASSED_ON or any(a is not None and not a.is_write for a in shared)


def _mutates(target: Any) -> bool:
    return isinstance(target, torch._ops.OpOverload) and target._schema.is_mutable


def _results(name: str, result: Any) -> list[Value]:
    if isinstance(result, (tuple, list)):
        return [_value(f"{name}.{k}", r) for k, r in enumerate(result)]
    return [_value(name, result)]


def _value(name: str, example: Any) -> Value:
    if isinstance(example, torch.Tensor):
        dynamic = frozenset(d for d, s in enumerate(example.shape) if not isinstance(s, int))
        shape = tuple(s if isinstance(s, int) else int(s.node.hint) for s in example.shape)
        return Value(name, shape, str(example.dtype).removeprefix("torch."), dynamic)
    return Value(name, None, "symint" if isinstance(example, (torch.SymInt, int)) else "object")


def _storage(data: Any) -> Any:
    """A key that tied weights share: the same elements of the same memory."""
    if not isinstance(data, torch.Tensor) or data.numel() == 0 or data.device.type == "meta":
        return id(data)
    return data.data_ptr(), data.dtype, tuple(data.shape), tuple(data.stride())
