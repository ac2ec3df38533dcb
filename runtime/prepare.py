"""Models as ONNX Runtime optimises them on this machine, so that a session has nothing left to do when it is opened.

A default session folds constants, fuses layers and puts the weights of convolutions into blocks of channels, into
memory of its own, each time.  Here that is done once: what comes out is written with its tensors beside it, and later
sessions map them.  Blocks are those of one processor and one version of ONNX Runtime, so that what is prepared belongs
to a machine (:func:`machine`), and is proved to compute what the model itself computes there before it is kept.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import onnxruntime as ort

from ..ir.emit.onnx_external import SMALL_BYTES, Emitted, as_emitted, open_session
from ..ir.errors import ModelError, VerificationError, first_line
from .session import Array, Session, available_cores, feeds_for

TOLERANCE = 1e-5
"""Relative to the largest output: preparing only moves numbers, but kernels may sum in another order."""

Sizes = Mapping[str, tuple[int, ...]]

_REPORT = "try another version of ONNX Runtime, and report it with the model"


@cache
def machine() -> str:
    """What a prepared model depends on: ONNX Runtime's version, the processor's name and what it can do."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else [platform.processor()]
    told = ("model name", "flags", "Features", "CPU part")
    kinds = sorted({line.strip() for line in lines if line.startswith(told)} or set(lines[:1]))
    mark = hashlib.sha256("\n".join(kinds).encode()).hexdigest()[:10]
    return f"ort{ort.__version__}-{platform.machine() or 'unknown'}-{mark}"


def prepared(model: onnx.ModelProto | Emitted, name: str, sizes: Sizes | None = None) -> onnx.ModelProto:
    """``model`` as ONNX Runtime optimises it on this machine; ``sizes`` are shapes of inputs that it runs on.

    Raises
    ------
    ModelError
        ONNX Runtime cannot load it, or write what it made of it.
    VerificationError
        What came out computes something else.
    """
    with TemporaryDirectory(prefix="prunec-") as folder:
        path = Path(folder, "prepared.onnx")
        options = plain_options()
        options.optimized_model_filepath = str(path)
        entry = "session.optimized_model_external_initializers_"
        options.add_session_config_entry(f"{entry}file_name", "prepared.data")
        options.add_session_config_entry(f"{entry}min_size_in_bytes", str(SMALL_BYTES))
        try:
            open_session(as_emitted(model), options)
        except Exception as error:  # the runtime's own exceptions share no base class
            raise ModelError(
                f"ONNX Runtime cannot prepare {name}: {first_line(error)}", hint="run the model in onnxruntime alone"
            ) from error
        found = onnx.load_model(str(path))
    check_same(model, found, name, sizes)
    return found


def plain_options(threads: int | None = None) -> ort.SessionOptions:
    """Options that all sessions of a portfolio share; idle threads leave the cores to others."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or available_cores()
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4  # errors come as exceptions
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def check_same(model: onnx.ModelProto | Emitted, other: onnx.ModelProto, name: str, sizes: Sizes | None = None) -> None:
    """Raise :class:`VerificationError` unless both compute the same on random inputs, :class:`ModelError` where one
    does not run."""
    original = Session(model, name=name)
    feeds = feeds_for(original, batch=2, sizes=sizes)
    options = plain_options()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = open_session(other, options)
    except Exception as error:  # the runtime's own exceptions share no base class
        raise ModelError(f"{name}: its other form does not load: {first_line(error)}", hint=_REPORT) from error
    wanted = original.run(feeds)
    for output, got in zip(wanted, session.run(list(wanted), dict(feeds))):
        error_there = _apart(wanted[output], got)
        if not error_there <= TOLERANCE:
            raise VerificationError(
                f"{name}: its optimised model is off by {error_there:.1e} in {output!r}", hint=_REPORT
            )


def _apart(wanted: Array, got: Array) -> float:
    """How far outputs are apart, relative to the largest; infinite for other shapes, or numbers that one alone has."""
    if wanted.shape != got.shape or wanted.dtype != got.dtype:
        return float("inf")
    if wanted.dtype.kind not in "fV":
        return 0.0 if bool((wanted == got).all()) else float("inf")
    a, b = wanted.astype(np.float64), got.astype(np.float64)
    if not bool(((np.isnan(a) == np.isnan(b)) & (np.isinf(a) == np.isinf(b))).all()):
        return float("inf")
    whole = np.isfinite(a)
    return float(np.abs(a - b)[whole].max(initial=0) / max(np.abs(a[whole]).max(initial=0), np.finfo(np.float64).tiny))
