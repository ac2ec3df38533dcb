"""Sparse ONNX files made small: prunec's ``shrink`` against OpenVINO's own pruning transformation, on the same files.

Run from the root of the repository, with ``pip install -e '.[bench]'``::

    python -m bench.shrink            # six networks of torchvision
    python -m bench.shrink --short    # one of them

30 % of the filters of each network are zero, at random: *filters* leaves biases and the shifts of batch norms as they
are, *and biases* makes the biases of the exported layers zero as well.  Sizes are elements of floating-point constants,
to those of the tool's own reading of the sparse file; errors are relative to the sparse file's largest output, in the
tool's own runtime.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import ModelProto, numpy_helper
from torch import nn

from .cifar10 import ROOT, log, machine
from .onnx_export import export
from .record import command, record

try:
    import prunec
except ImportError:  # a bare clone: the root of the repository is the package
    sys.path.insert(0, str(ROOT / ".dev"))
    import prunec

RESULTS = ROOT / "bench" / "results" / "shrink.json"
MODELS = ("resnet18", "vgg11_bn", "mobilenet_v2", "squeezenet1_1", "densenet121", "regnet_y_400mf")
SHARE = 0.3
FORMS = ("filters", "and biases")


@dataclass(frozen=True)
class Row:
    """What one tool made of one sparse file: elements to before, error, seconds; None where it failed."""

    model: str
    form: str
    tool: str
    params: float | None = None
    error: float | None = None
    seconds: float | None = None


def sparse(name: str, form: str, seed: int = 0) -> ModelProto:
    """The exported network with filters of zeros."""
    import torchvision

    torch.manual_seed(seed)
    model = torchvision.models.get_model(name, weights=None).eval()
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for norm in model.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.weight.uniform_(0.5, 1.5, generator=draw)
                norm.bias.uniform_(-0.5, 0.5, generator=draw)
    exported = export(model, torch.randn(2, 3, 224, 224, generator=draw))
    rng = np.random.default_rng(seed)
    held = {i.name: i for i in exported.graph.initializer}
    for node in exported.graph.node:
        if node.op_type == "Conv" and node.input[1] in held:
            weight = numpy_helper.to_array(held[node.input[1]]).copy()
            gone = rng.random(len(weight)) < SHARE
            weight[gone] = 0
            held[node.input[1]].CopyFrom(numpy_helper.from_array(weight, node.input[1]))
            if form == "and biases" and len(node.input) > 2 and node.input[2] in held:
                bias = numpy_helper.to_array(held[node.input[2]]).copy()
                bias[gone] = 0
                held[node.input[2]].CopyFrom(numpy_helper.from_array(bias, node.input[2]))
    return exported


def by_prunec(path: Path, inputs: NDArray[Any]) -> tuple[float, float, float]:
    """Elements to before, error and seconds of ``shrink``, run in ONNX Runtime."""
    import onnxruntime as ort

    before = onnx.load(path)
    start = time.perf_counter()
    small = prunec.compile(str(path), None, "shrink,verify", measure=False).onnx
    seconds = time.perf_counter() - start
    outputs = []
    for model in (before, small):
        session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        outputs.append(session.run(None, {session.get_inputs()[0].name: inputs})[0])
    return _elements(small) / _elements(before), _error(*outputs), seconds


def by_openvino(path: Path, inputs: NDArray[Any]) -> tuple[float, float, float]:
    """The same of OpenVINO's transformation, run in OpenVINO."""
    import openvino as ov
    from openvino._offline_transformations import apply_pruning_transformation

    core = ov.Core()
    model = core.read_model(str(path))
    before, expected = _constants(model), core.compile_model(model, "CPU")(inputs)[0]
    start = time.perf_counter()
    apply_pruning_transformation(model)
    seconds = time.perf_counter() - start
    return _constants(model) / before, _error(expected, core.compile_model(model, "CPU")(inputs)[0]), seconds


TOOLS = {"prunec": by_prunec, "openvino": by_openvino}


def _elements(model: ModelProto) -> int:
    return sum(int(np.prod(i.dims)) for i in model.graph.initializer if i.data_type == onnx.TensorProto.FLOAT)


def _constants(model: Any) -> int:
    constants = (op for op in model.get_ops() if op.get_type_name() == "Constant")
    return sum(int(np.prod(op.get_output_shape(0))) for op in constants if op.get_element_type().is_real())


def _error(expected: NDArray[Any], found: NDArray[Any]) -> float:
    return float(np.abs(expected - found).max() / np.abs(expected).max())


def rows(names: Sequence[str]) -> Iterator[Row]:
    """A line for each network, form and tool."""
    inputs = np.random.default_rng(1).standard_normal((1, 3, 224, 224)).astype(np.float32)
    for name in names:
        for form in FORMS:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "sparse.onnx"
                onnx.save(sparse(name, form), path)
                for tool, shrink in TOOLS.items():
                    try:
                        yield Row(name, form, tool, *shrink(path, inputs))
                    except RuntimeError as error:  # OpenVINO's, of a graph that it broke
                        log(f"{tool} fails on {name}: {str(error).splitlines()[0]}")
                        yield Row(name, form, tool)


def table(found: Sequence[Row]) -> str:
    """The rows as people read them."""
    lines = [f"{'network':<16}{'zero':<12}{'tool':<10}{'params':>8}{'error':>10}{'seconds':>9}"]
    lines += [_line(row) for row in found]
    return "\n".join(lines)


def _line(row: Row) -> str:
    start = f"{row.model:<16}{row.form:<12}{row.tool:<10}"
    if row.params is None:
        return f"{start}   fails"
    return f"{start}{row.params:>8.3f}{row.error:>10.1e}{row.seconds:>9.1f}"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.shrink", description=str(__doc__).partition("\n")[0])
    parser.add_argument("--short", action="store_true", help="one network: a check that it works")
    parser.add_argument("--models", nargs="+", default=list(MODELS), help="these networks of torchvision")
    options = parser.parse_args(arguments)
    found = []
    for row in rows(MODELS[:1] if options.short else options.models):
        log(table([row]).splitlines()[1])
        found.append(row)
    if not options.short:
        result = {
            "command": command("bench.shrink", arguments),
            "machine": machine(),
            "rows": [asdict(r) for r in found],
        }
        record(result, RESULTS)
    print(table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
