"""Models in and out: whatever a user hands in becomes a graph, a graph becomes ONNX, and ONNX runs.

The libraries are imported by the functions that need them, since a torch model needs no reader of ONNX files, and the
other way round.  Start at :func:`read`.
"""

from __future__ import annotations

import contextlib
import inspect
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .files import digest, file_digest
from .ir import arrays
from .ir.codes import codes
from .ir.errors import ModelError, UsageError
from .ir.graph import Graph
from .ir.packing.packing import PACKING, Packing
from .ir.words import did_you_mean

if TYPE_CHECKING:
    import onnx

    from .ir.emit.onnx_external import Emitted
    from .runtime.session import Session


@dataclass(frozen=True, eq=False)
class OnnxFile:
    """An ONNX file that was parsed once; tensors that lie beside it are not read."""

    path: Path
    proto: onnx.ModelProto


def read(model: Any, example_inputs: Any = None) -> tuple[Graph, str]:
    """The graph of whatever :func:`compile` takes, and the SHA-256 of the source.

    Raises
    ------
    ModelError
        The model cannot be read; see the frontends.
    """
    model = opened(model)
    if isinstance(model, OnnxFile):
        return _read_onnx(model, example_inputs)
    module = type(model).__module__
    if module.startswith("onnx"):
        from .ir.frontends.onnx import from_onnx

        return from_onnx(model, _by_name(model, example_inputs)), digest([model.SerializeToString(deterministic=True)])
    from torch import nn
    from torch.export import ExportedProgram

    if isinstance(model, ExportedProgram):
        return _read_program(model)
    if isinstance(model, nn.Module):
        return _read_module(model, example_inputs)
    raise ModelError(
        f"reading the model: {type(model).__name__} is not understood",
        hint="give an nn.Module, an ExportedProgram, an onnx.ModelProto, or the path of an .onnx or .pt2 file",
    )


def opened(model: Any) -> Any:
    """A path as what lies there, an :class:`OnnxFile` or an ExportedProgram; anything else as it is.

    Raises
    ------
    ModelError
        There is no such file, or it holds something else.
    """
    if not isinstance(model, (str, Path)):
        return model
    from .sources import check_file

    path = Path(model)
    check_file(str(path))
    if path.suffix == ".pt2":
        from .pt2 import load_program

        return load_program(path)
    from .ir.frontends.onnx_file import parse

    return OnnxFile(path, parse(path))


def _read_onnx(file: OnnxFile, example_inputs: Any) -> tuple[Graph, str]:
    from .ir.frontends.onnx import from_onnx

    return from_onnx(file.proto, _by_name(file.proto, example_inputs), file.path), file_digest(file.path)


def _read_program(program: Any) -> tuple[Graph, str]:
    from .ir.frontends.fx import from_exported

    graph = from_exported(program)
    return graph, _digest_of(graph)


def _read_module(model: Any, example_inputs: Any) -> tuple[Graph, str]:
    from .ir.frontends.fx import export
    from .passes.train.parametrized import in_training

    if (name := in_training(model)) is not None:
        raise UsageError(
            f"the model is in training by prunec.train: {name} is not yet what it will be",
            hint="leave the context, or call finish() of the training; of a copy that was made inside, load the "
            "state_dict() into the model before that",
        )
    if example_inputs is None:
        raise UsageError(
            "an nn.Module needs example_inputs",
            hint="a tuple or a dict of tensors; to the command: --input 1x3x224x224, or a factory that returns "
            "(module, example_inputs)",
        )
    if isinstance(example_inputs, Mapping):
        args, kwargs = (), dict(example_inputs)
        _check_names(model, kwargs)
    else:
        args, kwargs = (tuple(example_inputs) if isinstance(example_inputs, (tuple, list)) else (example_inputs,)), {}
    with contextlib.redirect_stderr(io.StringIO()):  # torch prints the graph of an export that failed
        program = export(model, args, kwargs)
    graph, found = _read_program(program)
    graph.source[PACKING] = Packing.of_module(model)
    return graph, found


def _check_names(module: Any, given: Mapping[str, Any]) -> None:
    """Refuse example inputs that ``forward`` does not take by their names."""
    parameters = inspect.signature(module.forward).parameters.values()
    known = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    any_name = any(p.kind is p.VAR_KEYWORD for p in parameters)
    for name in () if any_name else given:
        if name not in known:
            hint = did_you_mean(name, known, f"inputs: {', '.join(known) or 'none that has a name'}")
            raise UsageError(f"the model has no input {name!r}", hint=hint, input=name)


def _by_name(model: onnx.ModelProto, example_inputs: Any) -> dict[str, Any] | None:
    """Example inputs by input name; positional ones go to the inputs in the order of the graph."""
    if example_inputs is None:
        return None
    if isinstance(example_inputs, Mapping):
        return {k: arrays.to_numpy(v) for k, v in example_inputs.items()}
    from .runtime.session import declared_inputs

    given = example_inputs if isinstance(example_inputs, (tuple, list)) else (example_inputs,)
    names = [i.name for i in declared_inputs(model)]
    if len(given) > len(names):
        raise UsageError(
            f"{len(given)} example inputs, but the model has {len(names)}: {', '.join(names)}",
            hint="a tuple in the order of the inputs, or a dict of arrays by input name",
        )
    return {name: arrays.to_numpy(x) for name, x in zip(names, given)}


def _digest_of(graph: Graph) -> str:
    from .ir.printer import print_graph

    def parts() -> Iterator[bytes]:
        yield print_graph(graph).encode()
        for constant in graph.constants.values():
            if not arrays.is_meta(constant.data):
                yield from (np.ascontiguousarray(rows).tobytes() for _, rows in arrays.blocks(constant.data))

    return digest(parts())


def check_finite(graph: Graph) -> None:
    """Raise :class:`ModelError` for a parameter that holds NaN or infinite values."""
    for constant in graph.constants.values():
        data = constant.data
        if (
            constant.role == "parameter"
            and arrays.is_float(data)
            and not (arrays.is_meta(data) or arrays.is_finite(data))
        ):
            raise ModelError(
                f"reading the model: parameter {constant.name!r} holds NaN or infinite values",
                hint="repair or retrain the model: weights that are not finite cannot be ranked or verified",
                parameter=constant.name,
            )


def emit_onnx(graph: Graph, opset: int | None = None) -> onnx.ModelProto:
    """The ONNX form of a graph, by the emitter of its dialect."""
    return emitted_onnx(graph, opset).whole()


def emitted_onnx(graph: Graph, opset: int | None = None) -> Emitted:
    """The same; tensors that lie on disk are read when they are needed."""
    if graph.dialect == "fx":
        from .ir.emit import torch_onnx
        from .ir.emit.onnx_external import Emitted

        return Emitted(torch_onnx.emit(graph, opset))
    from .ir.emit import onnx as emitter

    return emitter.emitted(graph, opset)


def run_onnx(
    model: onnx.ModelProto | Emitted | Path, graph: Graph, inputs: list[Any], name: str, watched: Sequence[str] = ()
) -> list[Any]:
    """Outputs of ``model`` in ONNX Runtime, in order, then ``watched`` values, on sample inputs of ``graph``.

    ``name`` is for messages.  A path is run as it lies there: nothing can be ``watched`` in it.
    """
    from .runtime.session import Session

    assert not (watched and isinstance(model, Path))
    seen = model if isinstance(model, Path) or not watched else _watching(model, watched)
    try:
        session = Session(seen, name=name, as_written=bool(codes(graph)))
        found = session.run(feeds(session, graph, inputs))
    except ModelError as error:
        held = {v.dtype for v in graph.constants if "float" in v.dtype} - {"float32"}
        if held:
            error.hint = (
                f"the model holds {', '.join(sorted(held))}, and ONNX Runtime's kernels on the CPU are for float32: "
                "compile model.float(), and convert what comes out"
            )
        raise
    return arrays.flat([found[name] for name in session.outputs])


def _watching(model: onnx.ModelProto | Emitted, names: Sequence[str]) -> onnx.ModelProto | Emitted:
    """``model`` with values of those names as further outputs."""
    import onnx

    from .ir.emit.onnx_external import Emitted

    copy = onnx.ModelProto()
    copy.CopyFrom(model.proto if isinstance(model, Emitted) else model)
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return replace(model, proto=copy) if isinstance(model, Emitted) else copy


def feeds(model: onnx.ModelProto | Emitted | Session, graph: Graph, inputs: list[Any]) -> dict[str, Any]:
    """Inputs of ``graph``, in order, as ``model`` declares them: by name, in its dtypes."""
    from .runtime.session import declared_inputs

    tensors = [arrays.to_numpy(x) for v, x in zip(graph.inputs, inputs, strict=True) if v.is_tensor]
    declared = declared_inputs(model)
    if len(declared) != len(tensors):
        raise ModelError(
            f"running the ONNX model: it has {len(declared)} inputs where the dense graph has {len(tensors)}",
            hint="give the model that was compiled, and what came out of it",
        )
    return {i.name: x.astype(i.dtype, copy=False) for i, x in zip(declared, tensors, strict=True)}
