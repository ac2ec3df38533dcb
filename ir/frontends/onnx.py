"""The ONNX frontend: a model file or ModelProto becomes a graph.

The file is read and checked (``onnx_file.py``), and measured at two choices of sizes (``onnx_facts.py``); what is the
same at both is a fact, and facts become constants (1/sqrt(head size), the target of a reshape), because shapes will
change.  onnx-graphsurgeon reads nodes and attributes.  The graph that results is cleaned up in ``onnx_ties.py``.

Start at :func:`from_onnx`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto

from ..arrays import is_finite, is_float, to_numpy
from ..emit.onnx_run import endless
from ..errors import Declined, ModelError, first_line
from ..graph import Constant, Graph, Node, Shape, Value, values_in
from ..opset import OPAQUE
from ..packing.packing import PACKING
from .onnx_facts import Facts, Unfit, measure
from .onnx_file import (
    Tensors,
    check,
    in_order,
    inlined,
    ir_version,
    load_tensor,
    node_reads,
    outer_reads,
    parse,
    readable,
    slimmed,
    subgraphs,
    upgraded,
)
from .onnx_names import (
    KNOWN,
    OPSET,
    RESULT,
    kind_of,
    literal,
    new_call,
    opset_of,
    repeated_axes,
    reshape_target,
    shape_of,
    spell,
)
from .onnx_packed import unpacked
from .onnx_sizes import Axes, check_given, declaration, listed
from .onnx_tensors import AGAIN, element_type
from .onnx_ties import is_tie, sizes_read, unshared, with_roles, without_unused
from .onnx_trial import Endless, trial

Array = NDArray[Any]


def from_onnx(
    model: ModelProto | str | Path, example_inputs: Mapping[str, Array] | None = None, path: Path | None = None
) -> Graph:
    """The graph of an ONNX model.

    Parameters
    ----------
    model
        A path (external data is mapped, not read) or a model in memory, which stays as it is.
    example_inputs
        Arrays by input name, for the sizes that the model leaves open.
    path
        Where a model in memory was read from, for the tensors that lie beside it.

    Raises
    ------
    ModelError
        The model cannot be read, is not valid, or the example inputs do not fit it.
    """
    path = path if isinstance(model, ModelProto) else Path(model)
    proto = model if isinstance(model, ModelProto) else parse(Path(model))
    where = str(path or "the model")
    with readable(where):
        check(proto, where)
        return _Reader(proto, path, dict(example_inputs or {})).read()


class _Reader:
    def __init__(self, model: ModelProto, path: Path | None, given: dict[str, Array]) -> None:
        self.stored: Tensors = {}
        self.path = path
        dense, self.packing = unpacked(model)
        self.model = upgraded(inlined(dense))
        self.slim = slimmed(self.model, self.stored)
        self.opset = opset_of(self.model)
        ordered = in_order(self.slim.graph, self.stored, str(path or "the model"))
        del self.slim.graph.node[:]
        self.slim.graph.node.extend(ordered)
        self.declared = [v for v in self.model.graph.input if v.name not in self.stored]
        inputs = [d for v in self.declared if (d := declaration(v, given.get(v.name))) is not None]
        check_given(inputs, given)
        self.axes = Axes(inputs, given)
        self._fit(model)
        self.env: dict[str, Value] = {}
        self.constants: dict[Value, Constant] = {}
        self.nodes: list[Node] = []
        self.taken: set[str] = set()

    def read(self) -> Graph:
        self._measure()
        inputs = [self._value(v.name) for v in self.declared]
        self.env |= {v.name: v for v in inputs}
        self.graph = Graph("onnx", inputs, [], self.nodes, self.constants, self._source())
        with _quiet():
            imported = _imported(self.slim)
        for node, proto in zip(imported.nodes, self.slim.graph.node, strict=True):
            self._node(node, proto)
        self.graph.outputs = [self._read(v.name) for v in self.model.graph.output]
        for declared, value in zip(self.graph.source["declared_outputs"], self.graph.outputs, strict=True):
            _complete(declared, value)
        return unshared(with_roles(sizes_read(without_unused(self.graph.prune_unused()))), self.stored)

    # ------------------------------------------------------------------ facts

    def _fit(self, model: ModelProto) -> None:
        """Other sizes where the model does not run on the usual ones.

        Raises
        ------
        ModelError
            The model crashes ONNX Runtime at some sizes and runs at none, or its run does not end.
        """
        file = self.path if self.model is model else None
        try:
            with trial(self.slim, self.stored, self.path, file, self.axes.given) as trying:
                for chosen in self.axes.choices():
                    self.axes.use(chosen)
                    if trying.runs(self.axes.sizes()):
                        return
        except Endless:
            raise endless() from None
        self.axes.use(next(self.axes.choices()))
        if trying.crash is not None:
            how, sizes = trying.crash
            raise ModelError(
                f"running the model on {listed(sizes)}: ONNX Runtime crashed ({how})",
                hint="give example inputs that the model accepts",
            )

    def _measure(self) -> None:
        """Facts for the example sizes and, where sizes are open, for others."""
        try:
            self.facts = self._facts(self.axes.example, strict=True)
        except Unfit:
            self.facts = self._facts(self.axes.example, strict=False)
        self.other: Facts | None = None
        self.varied = self.axes.example
        for symbols in self.axes.attempts():
            try:
                self.other, self.varied = self._facts(symbols, strict=True), symbols
                return
            except Unfit:
                continue

    def _facts(self, symbols: Mapping[str, int], strict: bool) -> Facts:
        try:
            return measure(self.slim, self.stored, self.path, self.axes.sizes(symbols), strict)
        except Unfit:
            if strict:
                raise
        return Facts()

    def _fixed(self, name: str) -> Array | None:
        """A value that follows from fixed sizes alone."""
        a = self.facts.values.get(name)
        b = a if self.other is None else self.other.values.get(name)
        same = a is not None and b is not None and a.shape == b.shape and np.array_equal(a, b, equal_nan=is_float(a))
        return a if same else None

    def _known(self, value: Value | None) -> Array | None:
        """Elements of a value, None for those that depend on open sizes; None when it depends on data."""
        if value in self.constants:
            return np.asarray(self.constants[value].data)
        a = None if value is None else self.facts.values.get(value.name)
        b = a if self.other is None or value is None else self.other.values.get(value.name)
        if a is None or b is None or a.shape != b.shape:
            return None
        return np.where(a == b, a.astype(object), np.asarray(None))

    def _value(self, name: str) -> Value:
        shape = self.facts.shapes.get(name)
        other = shape if self.other is None else self.other.shapes.get(name)
        if shape is None or other is None or len(other) != len(shape):
            return Value(name, None, self.facts.dtypes.get(name, "float32"))
        dynamic = frozenset(d for d, (m, n) in enumerate(zip(shape, other, strict=True)) if m != n)
        return Value(name, shape, self.facts.dtypes.get(name, "float32"), dynamic)

    # ------------------------------------------------------------------ values

    def _read(self, name: str) -> Value:
        """The value called ``name``; a constant is made when it is first read."""
        if name not in self.env:
            self.env[name] = self._stored(name) if name in self.stored else self._folded(name)
        return self.env[name]

    def _stored(self, name: str) -> Value:
        data = load_tensor(self.stored[name], self.path)
        return self._constant(name, data, "parameter" if is_float(data) and not _is_mask(data) else "buffer", name)

    def _folded(self, name: str) -> Value:
        data = self._fixed(name)
        if data is None:
            raise AssertionError(f"nothing computes {name!r}")
        return self._constant(name, data, "literal", f"_literal.{name}")

    def _constant(self, name: str, data: Array, role: str, full_name: str) -> Value:
        value = Value(name, tuple(data.shape), str(data.dtype))
        self.constants[value] = Constant((full_name,), data, role)
        return value

    # ------------------------------------------------------------------ nodes

    def _node(self, node: gs.Node, proto: NodeProto) -> None:
        outputs = list(filter(None, proto.output))
        if all(self._fixed(name) is not None for name in outputs):
            return
        if proto.op_type == "Identity" and self._alias(proto):
            return
        call = self._call(node, proto)
        name = self._unique(proto.name or f"{proto.op_type}_{outputs[0]}")
        values = tuple(self._value(proto.output[k]) for k in call["results"])
        made = Node(name, OPAQUE, (), values, {}, kind_of(proto.op_type, proto.domain), call)
        self._canonical(made)
        self._describe(made)
        self.env |= {v.name: v for v in made.outputs}
        self.nodes.append(made)

    def _call(self, node: gs.Node, proto: NodeProto) -> dict[str, Any]:
        carried = [a for a in proto.attribute if a.type in _CARRIED or _is_empty_list(a)]
        held = {a.name for a in carried}
        outer = [n for inner in subgraphs(proto) for n in outer_reads(inner)]
        return {
            "op_type": proto.op_type,
            "domain": proto.domain,
            "attributes": {k: v for k, v in node.attrs.items() if k not in held},
            "inputs": [self._read(n) if n else None for n in proto.input],
            "results": self._results(proto),
            "slots": len(proto.output),
            "protos": carried,
            "outer": {n: self._read(n) for n in dict.fromkeys(outer)},
        }

    def _results(self, proto: NodeProto) -> tuple[int, ...]:
        """Slots of the results: optional ones that nobody reads are left out."""
        optional = _optional_results(proto, self.opset)
        return tuple(k for k, n in enumerate(proto.output) if n and (n in self._names_read or k not in optional))

    @cached_property
    def _names_read(self) -> set[str]:
        """Names that some node reads, and those of the outputs."""
        read = {n for p in self.slim.graph.node for n in node_reads(p)}
        return read | {v.name for v in self.slim.graph.output}

    def _describe(self, node: Node) -> None:
        """Op, operands and attributes; opaque, reading everything, where no declaration fits."""
        everything = tuple(dict.fromkeys(values_in(node.call)))
        if self._is_arithmetic(node):
            node.op, node.inputs = ("size" if node.kind in ("Shape", "Size") else "fill"), ()
            return
        try:
            if any(map(_is_empty_list, node.call.get("protos", ()))):
                raise Declined("an attribute is an empty list")
            seen = {**node.call, RESULT: list(node.outputs), KNOWN: self._known, OPSET: self.opset}
            node.op, node.inputs, node.attrs = spell(node.kind, seen)
        except Declined as declined:
            node.op, node.inputs, node.attrs = OPAQUE, everything, {"why": str(declined)}
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:  # attributes against the op's schema
            node.op, node.inputs, node.attrs = OPAQUE, everything, {"why": f"a form that is not valid: {error}"}

    def _is_arithmetic(self, node: Node) -> bool:
        """Whether a node computes sizes: its result depends on sizes and literals alone."""
        if node.kind in ("Shape", "Size"):
            node.outputs = tuple(Value(v.name, None, "symint") for v in node.outputs)
            return True
        return all(v.name in self.facts.values and not _is_field(v) for v in node.outputs)

    def _alias(self, proto: NodeProto) -> bool:
        """Exporters store equal tensors once and name the others by an Identity: each is a tensor of its own again."""
        source, name = proto.input[0], proto.output[0]
        if source not in self.stored or name in {v.name for v in self.model.graph.output}:
            return False
        self.stored[name] = tensor = TensorProto()
        tensor.CopyFrom(self.stored[source])
        if is_tie(load_tensor(tensor, self.path)):
            del self.stored[name]
            self.env[name] = self._read(source)
        return True

    def _unique(self, name: str) -> str:
        found, k = name, 1
        while found in self.taken:
            k += 1
            found = f"{name}_{k}"
        self.taken.add(found)
        return found

    # ------------------------------------------------------------------ targets that are computed

    def _canonical(self, node: Node) -> None:
        """Write sizes that are computed at run time as constants, as far as they are facts."""
        change = {"Reshape": self._reshape, "Expand": self._expand, "Resize": self._resize, "Gather": self._gather}
        if node.kind == "ConstantOfShape":
            self._fill(node)
        if node.kind == "CastLike":
            self._cast(node)
        inputs = node.call["inputs"]
        if node.kind not in change or len(inputs) < 2 or inputs[0] is None:
            return
        if inputs[0].shape is not None and node.output.shape is not None:
            change[node.kind](node)

    def _fill(self, node: Node) -> None:
        """Zeros of a computed shape are a zero expanded."""
        value = node.call["attributes"].get("value")
        number = np.zeros(1, np.float32) if value is None else np.asarray(getattr(value, "values", value))
        if is_float(number) and not number.any() and _is_field(node.output):
            zero = self._literal(f"{node.name}_zero", number.reshape(()), number.dtype)
            node.kind, node.call = "Expand", new_call("Expand", [zero, *node.call["inputs"]])

    def _cast(self, node: Node) -> None:
        """The type of another value is that type."""
        if node.output.name in self.facts.dtypes:
            kind, options = element_type(node.output.dtype), node.call["attributes"]
            node.kind, node.call = "Cast", new_call("Cast", node.call["inputs"][:1], to=kind, **options)

    def _reshape(self, node: Node) -> None:
        target = node.call["inputs"][1]
        node.call["copied"] = self._copied(node.call["inputs"][0], node.output)
        if target not in self.constants and self._known(target) is not None:
            self._retarget(node)

    def _retarget(self, node: Node) -> None:
        """A constant target, unless more than one size would be left to the runtime."""
        out, copied = node.output, node.call["copied"]
        sizes = [None if d in out.dynamic else s for d, s in enumerate(shape_of(out))]
        if 0 in sizes:
            return
        if sum(s is None and d not in copied for d, s in enumerate(sizes)) > 1:
            self._regroup(node)
            return
        node.call["inputs"][1] = self._literal(f"{node.name}_shape", reshape_target(sizes, copied))
        node.call["attributes"].pop("allowzero", None)

    def _regroup(self, node: Node) -> None:
        """Several sizes that only the runtime knows, then fixed ones: ``(b*t c) -> b t (c) -> b t c``.

        The first reshape takes the dynamic sizes from the target and leaves the rest to the runtime, so that it fits
        however much of the rest is left; the second one names the rest and copies the others.
        """
        x, target = node.call["inputs"]
        out, known, n = node.output, self._known(target), len(node.output.dynamic)
        if known is None or out.dynamic != frozenset(range(n)) or any(s is not None for s in known[:n]):
            return
        shape = (*shape_of(out)[:n], math.prod(shape_of(out)[n:]))
        last = self._literal(f"{node.name}_rest", [-1])
        lead = self._cut(node, target, 0, n)
        wanted = self._insert("Concat", f"{node.name}_lead", [lead, last], (n + 1,), "int64", axis=0)
        if len(shape_of(out)) == n + 1:
            node.call["inputs"][1] = wanted
            node.call["explicit"] = True
        else:
            middle = self._insert("Reshape", f"{node.name}_grouped", [x, wanted], shape, out.dtype, out.dynamic)
            node.call["inputs"][0], node.call["copied"] = middle, tuple(range(n))
            self._retarget(node)
        node.call["attributes"].pop("allowzero", None)

    def _gather(self, node: Node) -> None:
        """All elements of a vector in their order, at indices computed from sizes: what exporters make of a stride."""
        x, index = node.call["inputs"]
        found = [f.values.get(index.name) for f in (self.facts, self.other or self.facts)]
        if len(x.shape) != 1:
            return
        pairs = zip(found, self._both(x)[0], strict=True)
        whole = all(i is not None and np.array_equal(np.ravel(i), np.arange(n)) for i, n in pairs)
        if not whole or len(node.output.dynamic) > 1:
            return
        node.kind, node.call = "Reshape", {**new_call("Reshape", [x, index]), "copied": ()}
        self._retarget(node)

    def _copied(self, x: Value, out: Value) -> tuple[int, ...]:
        """Dynamic axes before which, and at which, a reshape changes nothing."""
        found = []
        pairs = zip(self._both(x), self._both(out), strict=False)
        for d, (before, after) in enumerate(pairs):
            if before != after:
                break
            if d in out.dynamic:
                found.append(d)
        return tuple(found)

    def _both(self, value: Value) -> list[tuple[int, int]]:
        shape = value.shape or ()
        other = shape if self.other is None else self.other.shapes.get(value.name, shape)
        return list(zip(shape, other, strict=True))

    def _expand(self, node: Node) -> None:
        """Axes repeated a dynamic number of times get an Expand of their own: numbers then stand alone in another."""
        x, target = node.call["inputs"]
        out, sizes, known = node.output, shape_of(node.output), self._known(node.call["inputs"][1])
        repeated = repeated_axes(x, out)
        loose = [d for d in repeated if d in out.dynamic]
        firm = [n if d in repeated and d not in loose else 1 for d, n in enumerate(sizes)]
        if known is None or (loose and (self.opset < 9 or len(known) != len(sizes))):
            return
        if loose:
            node.call["inputs"][1] = counts = self._counts(node, target, loose)
        if loose and any(n != 1 for n in firm):
            shape = tuple(1 if d in repeated and d not in loose else n for d, n in enumerate(sizes))
            node.call["inputs"][0] = self._insert(
                "Expand", f"{node.name}_wide", [x, counts], shape, out.dtype, out.dynamic
            )
        if not loose or any(n != 1 for n in firm):
            node.call["inputs"][1] = self._literal(f"{node.name}_shape", firm)
        node.call["explicit"] = True

    def _counts(self, node: Node, target: Value, loose: Sequence[int]) -> Value:
        """``target`` where an axis is repeated a dynamic number of times, 1 (as it is) elsewhere."""
        r = len(shape_of(node.output))
        wanted = self._literal(f"{node.name}_dynamic", [d in loose for d in range(r)], np.bool_)
        ones = self._literal(f"{node.name}_ones", [1] * r)
        return self._insert("Where", f"{node.name}_sizes", [wanted, target, ones], (r,), "int64")

    def _resize(self, node: Node) -> None:
        """Computed sizes: those of the axes that pass are read from the input itself, and follow it."""
        x, inputs = node.call["inputs"][0], node.call["inputs"]
        sizes = inputs[3] if len(inputs) > 3 else None
        if sizes is None or sizes in self.constants or node.call["attributes"].get("axes") is not None:
            return
        r, known = len(shape_of(x)), self._known(sizes)
        if known is None or r < 3 or self._both(x)[:2] != self._both(node.output)[:2]:
            return
        here = self._insert("Shape", f"{node.name}_here", [x], None, "symint")
        lead = self._cut(node, here, 0, 2)
        firm = known[2:]
        if any(n is None for n in firm):
            tail = self._cut(node, sizes, 2, r)
        else:
            tail = self._literal(f"{node.name}_spatial", [int(n) for n in firm])
        inputs[3] = self._insert("Concat", f"{node.name}_sizes", [lead, tail], (r,), "int64", axis=0)
        node.call["explicit"] = True

    def _cut(self, node: Node, vector: Value, start: int, stop: int) -> Value:
        name = f"{node.name}_{vector.name}_{start}"
        index = self._literal(f"{name}_at", list(range(start, stop)))
        return self._insert("Gather", name, [vector, index], (stop - start,), "int64", axis=0)

    def _literal(self, name: str, numbers: Any, dtype: Any = np.int64) -> Value:
        value = literal(self.graph, name, np.asarray(numbers, dtype))
        self.constants = self.graph.constants
        return value

    def _insert(
        self,
        op_type: str,
        name: str,
        inputs: Sequence[Value],
        shape: Shape | None,
        dtype: str,
        dynamic: frozenset[int] = frozenset(),
        **attributes: Any,
    ) -> Value:
        """A node of our own before the one being read; arithmetic on sizes unless it is an Expand or a Reshape."""
        out = Value(name, shape, dtype, dynamic)
        made = Node(self._unique(name), "fill", (), (out,), {}, op_type, new_call(op_type, inputs, **attributes))
        if op_type == "Shape":
            made.op, made.attrs = "size", {"dims": ()}
        elif op_type in ("Expand", "Reshape"):
            made.call["explicit"] = True
            self._describe(made)
        self.nodes.append(made)
        return out

    # ------------------------------------------------------------------ what the emitter needs

    def _source(self) -> dict[str, Any]:
        fixed = {s: n for s, n in self.axes.example.items() if self.varied[s] == n}
        graph = self.model.graph
        return {
            "opset": self.opset,
            "domains": [(o.domain, o.version) for o in self.model.opset_import],
            "ir_version": ir_version(self.model),
            "producer": (self.model.producer_name, self.model.producer_version),
            "name": graph.name or "graph",
            "doc": (self.model.doc_string, graph.doc_string),
            "metadata": {p.key: p.value for p in self.model.metadata_props},
            "declared_inputs": [_with_sizes(v, fixed) for v in self.declared],
            "declared_outputs": [_with_sizes(v, fixed) for v in graph.output],
            "fixed_sizes": fixed,
            "batch": frozenset(self.axes.batch),
            PACKING: self.packing,
        }


_CARRIED = frozenset(
    {
        AttributeProto.GRAPH,
        AttributeProto.GRAPHS,
        AttributeProto.TENSORS,
        AttributeProto.SPARSE_TENSOR,
        AttributeProto.SPARSE_TENSORS,
        AttributeProto.TYPE_PROTO,
        AttributeProto.TYPE_PROTOS,
    }
)
"""Types of attributes that graphsurgeon does not carry, or would take apart; they pass as they are."""


def _is_empty_list(attribute: AttributeProto) -> bool:
    """Its elements' type is lost where only elements are carried."""
    lists = {AttributeProto.INTS: "ints", AttributeProto.FLOATS: "floats", AttributeProto.STRINGS: "strings"}
    return attribute.type in lists and not getattr(attribute, lists[attribute.type])


def _imported(model: ModelProto) -> gs.Graph:
    try:
        return gs.import_onnx(model)
    except UnicodeDecodeError:
        raise
    except Exception as error:  # whatever the library raises for types and attributes that it does not know
        raise ModelError(f"the model cannot be taken apart: {first_line(error)}", hint=AGAIN) from error


def _with_sizes(value: onnx.ValueInfoProto, sizes: Mapping[str, int]) -> onnx.ValueInfoProto:
    """A declaration in which symbols that could not be varied have their example size."""
    copy = onnx.ValueInfoProto()
    copy.CopyFrom(value)
    if value.type.HasField("tensor_type"):
        for d, dim in enumerate(copy.type.tensor_type.shape.dim):
            symbol = dim.dim_param or ("" if dim.dim_value > 0 else f"{value.name}.{d}")
            if symbol in sizes:
                dim.dim_value = sizes[symbol]
    return copy


def _complete(declared: onnx.ValueInfoProto, value: Value) -> None:
    """A declaration that says no shape is given what was measured."""
    kind = declared.type.tensor_type
    if not declared.type.HasField("tensor_type") or kind.HasField("shape"):
        return
    kind.shape.SetInParent()
    for d, size in enumerate(value.shape or ()):
        dim = kind.shape.dim.add()
        if d not in value.dynamic:
            dim.dim_value = size


def _is_mask(data: Array) -> bool:
    """Whether the numbers are infinities and at most one other: what is added to scores, or compared with."""
    if is_finite(data):
        return False
    array = to_numpy(data)
    return not np.isnan(array).any() and np.unique(array[np.isfinite(array)]).size <= 1


def _is_field(value: Value) -> bool:
    """Numbers with axes of their own, such as a parameter repeated: the axes matter, even where sizes say it all.

    Sizes and positions are no bytes, so bytes are codes for numbers.
    """
    return ("float" in value.dtype or value.dtype in ("int8", "uint8")) and len(value.shape or ()) > 1


def _optional_results(proto: NodeProto, version: int) -> set[int]:
    try:
        schema = onnx.defs.get_schema(proto.op_type, version, proto.domain)
    except onnx.defs.SchemaError:
        return set()
    optional = onnx.defs.OpSchema.FormalParameterOption.Optional
    return {k for k, o in enumerate(schema.outputs) if o.option == optional}


class _quiet:  # noqa: N801  reads as a statement
    """Keeps graphsurgeon's warnings off stderr."""

    def __enter__(self) -> None:
        from onnx_graphsurgeon.logger import G_LOGGER

        self.logger, self.severity = G_LOGGER, G_LOGGER.severity
        G_LOGGER.severity = G_LOGGER.CRITICAL

    def __exit__(self, *error: object) -> None:
        self.logger.severity = self.severity
