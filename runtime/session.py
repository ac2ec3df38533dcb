"""ONNX Runtime on the CPU: sessions that behave the same every time, and inputs made from what a model declares."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from ..ir import arrays
from ..ir.emit.onnx_external import Emitted, open_as_written, open_session
from ..ir.emit.onnx_run import limited
from ..ir.errors import ModelError, PrunecError, UsageError, first_line
from ..ir.words import did_you_mean

Array = NDArray[Any]
Source = onnx.ModelProto | Emitted | bytes | str | Path

IMAGE_SIZE = 224
"""Height and width of a 4-D input that declares none."""

OTHER_SIZE = 16
"""Every other dimension that is not declared and not the batch."""

INTEGERS_BELOW = 2
"""Random integer inputs lie in [0, 2): valid as an index into any table of two rows or more."""

_FILE = "give the path of an .onnx file"
_TENSORS = "only models whose inputs are tensors can be run"


@dataclass(frozen=True)
class Input:
    """A declared input: ``shape`` has an int for a fixed size, a name for a symbolic one, None for an unnamed one."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | str | None, ...]


class Session:
    """A model loaded in ONNX Runtime on the CPU, with fixed threads and deterministic kernels.

    Parameters
    ----------
    model
        A ModelProto, its bytes, or a path (large tensors beside it are mapped, not read).
    threads
        Threads inside an op; None: the cores that this process may use.
    name
        What messages call the model.
    profile
        Where the names of profiles begin: the runtime measures each node; see :meth:`end_profile`.
    as_written
        For a ModelProto: no fusions that round elsewhere; see :func:`~prunec.ir.emit.onnx_external.open_as_written`.

    Raises
    ------
    ModelError
        The file is missing, or ONNX Runtime cannot load the model.
    """

    def __init__(
        self,
        model: Source,
        *,
        threads: int | None = None,
        name: str = "",
        as_written: bool = False,
        profile: Path | None = None,
    ) -> None:
        self.name = name or (str(model) if isinstance(model, (str, Path)) else "the model")
        self.threads = threads or available_cores()
        self._session = _open(model, self.threads, self.name, as_written, profile)
        self.inputs = tuple(map(ort_input, self._session.get_inputs()))
        self.outputs: tuple[str, ...] = tuple(o.name for o in self._session.get_outputs())

    @property
    def declared_outputs(self) -> tuple[Input, ...]:
        """The outputs as :attr:`inputs` are; raises :class:`ModelError` for one that is no tensor."""
        return tuple(map(ort_input, self._session.get_outputs()))

    def run(
        self, feeds: Mapping[str, Array], outputs: Sequence[str] | None = None, *, endless: bool = False
    ) -> dict[str, Array]:
        """Outputs by name; raises :class:`ModelError` when the model does not run on ``feeds``, or does not end.

        ``endless`` leaves out the limit on its seconds, which costs a little: for measuring what is known to end.
        """
        names = list(self.outputs if outputs is None else outputs)
        try:
            found = (self._session.run if endless else partial(limited, self._session))(names, dict(feeds))
        except ModelError:
            raise
        except Exception as error:  # the runtime's own exceptions share no base class
            shapes = ", ".join(f"{k}: {v.dtype}{list(v.shape)}" for k, v in feeds.items())
            raise ModelError(
                f"ONNX Runtime cannot run {self.name} on {shapes}: {first_line(error)}",
                hint="give inputs of the shapes and dtypes that the model declares",
            ) from error
        return dict(zip(names, found))

    def end_profile(self) -> Path:
        """The file with what was measured, a list of events as JSON."""
        return Path(self._session.end_profiling())


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def feeds_for(
    model: Session | Source, seed: int = 0, *, batch: int = 2, sizes: Mapping[str, Sequence[int]] | None = None
) -> dict[str, Array]:
    """Random inputs for a model: normal floats, small non-negative integers, fair booleans.

    ``sizes`` gives whole shapes by input name.  Otherwise a symbolic first axis is ``batch``, the other undeclared axes
    are 224 for the last two of a 4-D input and 16 elsewhere; a symbol has one size wherever it occurs.

    Raises
    ------
    UsageError
        ``sizes`` names no input, or contradicts what the model declares.
    """
    return random_feeds(declared_inputs(model), seed, batch, sizes)


def random_feeds(
    inputs: Sequence[Input], seed: int = 0, batch: int = 2, sizes: Mapping[str, Sequence[int]] | None = None
) -> dict[str, Array]:
    """The same for inputs that are known: see :func:`feeds_for`."""
    sizes = dict(sizes or {})
    known = [i.name for i in inputs]
    for name in sizes:
        if name not in known:
            hint = did_you_mean(name, known, f"inputs: {', '.join(known)}")
            raise UsageError(f"the model has no input {name!r}", hint=hint, input=name)
    symbols: dict[str, int] = {}
    for item in inputs:
        if item.name in sizes:
            _bind(item, sizes[item.name], symbols)
    rng = np.random.default_rng(seed)
    return {i.name: random_array(rng, _sized(i, sizes, batch, symbols), i.dtype) for i in inputs}


def ort_input(value: Any) -> Input:
    """What ONNX Runtime says about one of a session's inputs or outputs."""
    return Input(value.name, _dtype(value.type, value.name), tuple(_dim(d) for d in value.shape))


def declared_inputs(model: Session | Source) -> tuple[Input, ...]:
    """What a model says about its inputs; initialisers that are listed as inputs do not count."""
    if isinstance(model, Session):
        return model.inputs
    graph = model.graph if isinstance(model, Emitted) else _read(model).graph
    stored = {t.name for t in graph.initializer}
    return tuple(_declared(value) for value in graph.input if value.name not in stored)


def random_array(rng: np.random.Generator, shape: Sequence[int], dtype: np.dtype[Any]) -> Array:
    """Random data of one dtype; see :func:`feeds_for`."""
    if dtype.kind in "OSU":
        return np.full(shape, "", dtype=object)
    return arrays.random_array(rng, shape, dtype, below=INTEGERS_BELOW)


def _sized(item: Input, sizes: Mapping[str, Sequence[int]], batch: int, symbols: dict[str, int]) -> tuple[int, ...]:
    if item.name in sizes:
        return tuple(sizes[item.name])
    shape = []
    for axis, dim in enumerate(item.shape):
        size = dim if isinstance(dim, int) else symbols.get(dim or "", _stated(axis, len(item.shape), batch))
        if isinstance(dim, str):
            symbols[dim] = size
        shape.append(size)
    return tuple(shape)


def _stated(axis: int, rank: int, batch: int) -> int:
    if axis == 0:
        return batch
    return IMAGE_SIZE if rank == 4 and axis >= 2 else OTHER_SIZE


def _bind(item: Input, shape: Sequence[int], symbols: dict[str, int]) -> None:
    """Take the sizes of an input that the caller gave, checked against what the model declares."""
    fits = len(shape) == len(item.shape) and all(
        size == (dim if isinstance(dim, int) else symbols.setdefault(dim, size) if dim else size)
        for size, dim in zip(shape, item.shape)
    )
    if not fits:
        raise UsageError(
            f"input {item.name!r} cannot have the shape {_show(shape)}",
            hint=f"the model declares {_show(item.shape)}; a symbol has one size everywhere",
            input=item.name, shape=tuple(shape),
        )  # fmt: skip


def _show(shape: Sequence[Any]) -> str:
    return "x".join("?" if d is None else str(d) for d in shape) or "a scalar"


def _read(model: onnx.ModelProto | bytes | str | Path) -> onnx.ModelProto:
    """The model itself, without tensors that lie in other files."""
    if isinstance(model, onnx.ModelProto):
        return model
    name = "the bytes given" if isinstance(model, bytes) else str(model)
    try:
        if isinstance(model, bytes):
            return onnx.load_model_from_string(model)
        return onnx.load_model(name, load_external_data=False)
    except FileNotFoundError as error:
        raise ModelError(f"there is no file {name}", hint=_FILE) from error
    except Exception as error:  # protobuf's DecodeError, onnx's own, OSError
        raise ModelError(f"{name}: not an ONNX model: {first_line(error)}", hint=_FILE) from error


def _declared(value: onnx.ValueInfoProto) -> Input:
    tensor = value.type.tensor_type
    if not value.type.HasField("tensor_type"):
        raise ModelError(f"input {value.name!r} is no tensor", hint=_TENSORS, input=value.name)
    dims = (d.dim_value if d.HasField("dim_value") else d.dim_param for d in tensor.shape.dim)
    return Input(value.name, _np_dtype(tensor.elem_type), tuple(_dim(d) for d in dims))


def _np_dtype(elem_type: int) -> np.dtype[Any]:
    return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(elem_type))


def _dim(dim: Any) -> int | str | None:
    return dim if isinstance(dim, int) and dim > 0 else dim or None if isinstance(dim, str) else None


_RUNTIME_NAMES = {"float": "FLOAT", "double": "DOUBLE"}


def _dtype(text: str, name: str) -> np.dtype[Any]:
    """The dtype behind ONNX Runtime's ``tensor(float)``."""
    if not text.startswith("tensor("):
        raise ModelError(f"input {name!r} is {text}, no tensor", hint=_TENSORS, input=name)
    kind = text[len("tensor(") : -1]
    return _np_dtype(onnx.TensorProto.DataType.Value(_RUNTIME_NAMES.get(kind, kind.upper())))


def _open(model: Source, threads: int, name: str, as_written: bool, profile: Path | None) -> ort.InferenceSession:
    if isinstance(model, (str, Path)):
        if not Path(model).is_file():
            raise ModelError(f"there is no file {model}", hint=_FILE, path=str(model))
        return _load(str(model), threads, name, as_written, profile)
    return _load(model, threads, name, as_written, profile)


def _load(
    source: str | bytes | onnx.ModelProto | Emitted, threads: int, name: str, as_written: bool, profile: Path | None
) -> ort.InferenceSession:
    options = ort.SessionOptions()
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.use_deterministic_compute = True
    options.log_severity_level = 4  # errors come as exceptions
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle threads leave the cores to others
    try:
        if isinstance(source, (onnx.ModelProto, Emitted)):
            return open_as_written(source, options) if as_written else open_session(source, options)
        return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except PrunecError:
        raise
    except Exception as error:  # the runtime's own exceptions share no base class
        raise ModelError(
            f"ONNX Runtime cannot load {name}: {first_line(error)}",
            hint="onnx.checker.check_model says more; a newer onnxruntime knows more ops and opsets",
        ) from error
