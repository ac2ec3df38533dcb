"""The ONNX emitter: a graph becomes an ONNX model, the same bytes for the same graph; and runs in ONNX Runtime.

Inputs and outputs are declared as in the source, symbolic axes included; shapes of what lies between are left out,
because they are no longer those of the source.  Start at :func:`emitted`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.version_converter import convert_version
from onnx_graphsurgeon.ir.tensor import LazyValues

from ..arrays import flat, random_array
from ..codes import codes
from ..deferred import is_deferrable
from ..errors import ModelError, PrunecError, first_line
from ..graph import Constant, Graph, Node, Value, reads
from ..inputs import in_order
from .onnx_external import Emitted, open_as_written, open_session
from .onnx_run import limited

Array = NDArray[Any]
DOUBLE = False
"""A model has its own types: graphs of this dialect run in those."""


def emit(graph: Graph, opset: int | None = None) -> ModelProto:
    """The whole model that ``graph`` is; see :func:`emitted`."""
    return emitted(graph, opset).whole()


def emitted(graph: Graph, opset: int | None = None) -> Emitted:
    """The model that ``graph`` is; what lies on disk is left there until it is needed.

    ``opset`` asks for another version of the default domain than the source's.

    Raises
    ------
    ModelError
        The model cannot be converted to ``opset``, or is not valid.
    """
    model = _Writer(graph).write()
    if opset is not None and opset != graph.source["opset"]:
        return Emitted(_converted(model.whole(), opset))
    return model


def _converted(model: ModelProto, opset: int) -> ModelProto:
    try:
        return convert_version(model, opset)
    except Exception as error:  # out of C++
        raise ModelError(
            f"emitting ONNX: the model cannot be converted to opset {opset}: {first_line(error)}",
            hint="leave the opset as it is, or export the source with another one",
            opset=opset,
        ) from error


class _Writer:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.source = graph.source
        self.env: dict[Value, gs.Tensor] = {}
        self.names: set[str] = set()
        self.last: list[gs.Node] = []
        self.on_disk: dict[str, Any] = {}

    def write(self) -> Emitted:
        wanted = [v.name for v in self.source["declared_outputs"]]
        inputs = [
            self._named(v, d.name) for v, d in zip(self.graph.inputs, self.source["declared_inputs"], strict=True)
        ]
        self.names.update(wanted)
        outputs = [self._output(v, name) for v, name in zip(self.graph.outputs, wanted, strict=True)]
        nodes = [self._node(node) for node in self.graph.nodes]
        model = self._exported(gs.Graph([*nodes, *self.last], inputs, outputs, name=self.source["name"]))
        for made, node in zip(model.graph.node, self.graph.nodes, strict=False):
            made.attribute.extend(self._renamed(a, node) for a in node.call.get("protos", ()))
        return Emitted(self._declared(model), self.on_disk)

    def _exported(self, imported: gs.Graph) -> ModelProto:
        imported.opset = self.source["opset"]
        imported.import_domains = [helper.make_opsetid(d, v) for d, v in self.source["domains"]]
        imported.producer_name, imported.producer_version = self.source["producer"]
        imported.ir_version = self.source["ir_version"]
        imported.doc_string = self.source["doc"][1]
        model: ModelProto = gs.export_onnx(imported, do_type_check=False)
        return model

    def _declared(self, model: ModelProto) -> ModelProto:
        for values, declared in ((model.graph.input, "declared_inputs"), (model.graph.output, "declared_outputs")):
            del values[:]
            values.extend(self.source[declared])
        del model.graph.value_info[:]
        model.doc_string = self.source["doc"][0]
        helper.set_model_props(model, self.source["metadata"])
        return model

    def _output(self, value: Value, name: str) -> gs.Tensor:
        """The tensor of an output; one that is no node's result, or a second name of one, is copied."""
        constant = self.graph.constants.get(value)
        if value not in self.env and constant is None:
            return self._named(value, name)
        if value not in self.env and constant is not None and constant.name == name:
            self.env[value] = self._stored(name, constant)
            return self.env[value]
        if value in self.graph.inputs and self.env[value].name == name:
            return self.env[value]
        out = gs.Variable(name)
        self.last.append(gs.Node("Identity", f"{name}_copy", inputs=[self._tensor(value)], outputs=[out]))
        return out

    def _named(self, value: Value, name: str) -> gs.Tensor:
        self.names.add(name)
        self.env[value] = tensor = gs.Variable(name)
        return tensor

    def _tensor(self, value: Value | None) -> gs.Tensor:
        if value is None:
            return gs.Variable.empty()
        if value not in self.env:
            constant = self.graph.constants.get(value)
            name = self._unique(value.name if constant is None or constant.role == "literal" else constant.name)
            self.env[value] = gs.Variable(name) if constant is None else self._stored(name, constant)
        return self.env[value]

    def _stored(self, name: str, constant: Constant) -> gs.Constant:
        """An initialiser; the array becomes bytes once, when the model is made."""
        data = constant.data
        if not is_deferrable(data):
            return gs.Constant(name, LazyValues(numpy_helper.from_array(np.asarray(data), name)))
        self.on_disk[name] = data
        kind = helper.np_dtype_to_tensor_dtype(data.dtype)
        return gs.Constant(name, LazyValues(TensorProto(name=name, data_type=kind, dims=data.shape, raw_data=b"")))

    def _unique(self, name: str) -> str:
        found, k = name, 1
        while found in self.names:
            k += 1
            found = f"{name}_{k}"
        self.names.add(found)
        return found

    def _node(self, node: Node) -> gs.Node:
        call = node.call
        for value in call.get("outer", {}).values():
            self._keep(value)
        results = dict(zip(call["results"], node.outputs, strict=True))
        return gs.Node(
            op=call["op_type"],
            name=node.name,
            attrs=dict(call["attributes"]),
            inputs=[self._tensor(v) for v in call["inputs"]],
            outputs=[self._tensor(results.get(k)) for k in range(max(results) + 1)],
            domain=call["domain"] or None,
        )

    def _keep(self, value: Value) -> None:
        """A constant that only a subgraph reads is no node's input: an Identity keeps it in the graph."""
        tensor = self._tensor(value)
        if value in self.graph.constants and not any(value in n.call["inputs"] for n in self.graph.nodes):
            copied = gs.Variable(self._unique(f"{tensor.name}_outer"))
            self.last.append(gs.Node("Identity", copied.name, inputs=[tensor], outputs=[copied]))

    def _renamed(self, attribute: AttributeProto, node: Node) -> AttributeProto:
        """A subgraph that reads outer values by the names they have now."""
        table = {old: self.env[v].name for old, v in node.call["outer"].items() if self.env[v].name != old}
        if not table:
            return attribute
        changed = copy.deepcopy(attribute)
        for inner in (changed.g, *changed.graphs):
            _rename(inner, table)
        return changed


def _rename(graph: GraphProto, table: Mapping[str, str]) -> None:
    inside = (
        {v.name for v in graph.input} | {t.name for t in graph.initializer} | {o for n in graph.node for o in n.output}
    )
    visible = {old: new for old, new in table.items() if old not in inside}
    for node in graph.node:
        _rename_node(node, visible)
    for value in graph.output:
        value.name = visible.get(value.name, value.name)


def _rename_node(node: NodeProto, table: Mapping[str, str]) -> None:
    for k, name in enumerate(node.input):
        node.input[k] = table.get(name, name)
    for attribute in node.attribute:
        for inner in (attribute.g, *attribute.graphs):
            _rename(inner, table)


# ---------------------------------------------------------------------- running a graph


def batch_axes(graph: Graph) -> list[int | None]:
    """For each input the axis whose size is that of the batch, if it is dynamic.

    States have it second: the symbol that an input has first stands for the batch everywhere, and so do those that the
    reader found to be the batch.
    """
    declared = [_symbols(v) for v in graph.source["declared_inputs"]]
    leading = {s[0] for v, s in zip(graph.inputs, declared, strict=True) if 0 in v.dynamic} | graph.source["batch"]
    axes = [[d for d in sorted(v.dynamic) if s[d] in leading] for v, s in zip(graph.inputs, declared, strict=True)]
    return [found[0] if found else None for found in axes]


def _symbols(value: onnx.ValueInfoProto) -> dict[int, str]:
    """What the axes are called; one without a name has its own."""
    dims = value.type.tensor_type.shape.dim
    return {d: dim.dim_param or f"{value.name}.{d}" for d, dim in enumerate(dims)}


def flat_inputs(graph: Graph, given: Any) -> list[Any]:
    """``given``, in the form of example inputs, as :func:`run` takes it."""
    return in_order(given, [v.name for v in graph.inputs])


def returned(graph: Graph) -> list[Value]:
    """What :func:`run` gives, in order."""
    return graph.outputs


def observing(graph: Graph, values: list[Value]) -> Graph:
    """``graph`` with ``values``, as far as it computes them, as further outputs."""
    made = graph.producers()
    extra = [v for v in values if v in made and v not in graph.outputs]
    seen = graph.copy()
    seen.outputs += extra
    declared = [onnx.ValueInfoProto(name=v.name) for v in extra]
    seen.source["declared_outputs"] = [*graph.source["declared_outputs"], *declared]
    return seen


def run(graph: Graph, inputs: list[Array], double: bool = False) -> list[Array]:
    """All outputs of ``graph``, in order, sequences taken apart, from ONNX Runtime on the CPU.

    ``double`` is ignored: a model has its types.

    Raises
    ------
    ModelError
        ONNX Runtime cannot load or run the model.
    """
    model = emitted(graph)
    feeds = {v.name: np.asarray(x) for v, x in zip(model.graph.input, inputs, strict=True)}
    try:
        return flat(limited(_session(model, quantised=bool(codes(graph))), None, feeds))
    except PrunecError:
        raise
    except Exception as error:  # the runtime's exceptions share no base class
        shapes = ", ".join(f"{k}: {v.dtype}{list(v.shape)}" for k, v in feeds.items())
        raise ModelError(
            f"ONNX Runtime cannot run the model on {shapes}: {first_line(error)}",
            hint="give example inputs that the model accepts; a newer onnxruntime knows more ops",
        ) from error


def _session(model: ModelProto | Emitted, quantised: bool = False) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 4  # errors come as exceptions
    return open_as_written(model, options) if quantised else open_session(model, options)


def evaluate(graph: Graph, node: Node, operands: list[NDArray[np.float64]]) -> NDArray[np.float64] | None:
    """A node computed on numbers in place of its operands; None where it reads something else as well."""
    given = [v for v in node.call["inputs"] if v is not None]
    table = {v: x.astype(np.float32) for v, x in zip(node.inputs, operands, strict=False) if v is not None}
    if any(v not in table for v in reads(node)) or node.call["domain"] or node.call.get("protos"):
        return None
    names = {v: f"x{k}" for k, v in enumerate(dict.fromkeys(given))}
    inputs = ["" if v is None else names[v] for v in node.call["inputs"]]
    proto = helper.make_node(node.call["op_type"], inputs, ["y"], **node.call["attributes"])
    declared = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, table[v].shape) for v, n in names.items()]
    result = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    model = helper.make_model(
        helper.make_graph([proto], "one", declared, [result]),
        opset_imports=[helper.make_opsetid("", graph.source["opset"])],
        ir_version=graph.source["ir_version"],
    )
    try:
        session = _session(model)
        (found,) = session.run(None, {n: table[v] for v, n in names.items()})
    except Exception:  # the runtime's exceptions share no base class: a type or opset that this form does not have
        return None
    return np.asarray(found, np.float64)


def sample_inputs(graph: Graph, seed: int) -> list[Array]:
    """Random inputs of the example's sizes: floats normal, booleans, integers in their :func:`_ranges`."""
    rng = np.random.default_rng(seed)
    return [random_array(rng, _shape(v), v.dtype, *bounds) for v, bounds in _ranges(graph).items()]


def _ranges(graph: Graph) -> dict[Value, tuple[int, int]]:
    """Where the integers of each input start and what they stay below.

    They point into tables; or there is one for each example of the batch, which may say how many of its steps count:
    none at all would leave nothing to compute with; anything else is 0 or 1.
    """
    rows = _rows(graph)
    batches = dict(zip(graph.inputs, batch_axes(graph), strict=True))
    steps = any(d != batches[v] for v in graph.inputs for d in v.dynamic)
    counts = {v for v in graph.inputs if "int" in v.dtype and batches[v] == 0 and len(v.shape or ()) == 1}
    return {v: (1, 3) if steps and v in counts and not rows[v] else (0, min(rows[v], default=2)) for v in graph.inputs}


_SAME_NUMBERS = frozenset({"Cast", "Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose"})


def _rows(graph: Graph) -> dict[Value, list[int]]:
    """How many rows the tables have that each input points into."""
    source = {v: v for v in graph.inputs}
    rows: dict[Value, list[int]] = {v: [] for v in graph.inputs}
    for node in graph.nodes:
        read = [v for v in node.inputs if v is not None]
        if node.kind in _SAME_NUMBERS and read and read[0] in source:
            source |= dict.fromkeys(node.outputs, source[read[0]])
        elif node.op in ("embedding", "index") and read[-1] in source:
            rows[source[read[-1]]] += [(read[0].shape or (2,))[d] for d in node.attrs.get("dims", (0,))]
    return rows


def _shape(value: Value) -> tuple[int, ...]:
    if value.shape is None:
        raise ModelError(f"input {value.name!r} is no tensor of known shape", hint="give example inputs")
    return value.shape
