"""A portfolio as a model repository of NVIDIA's Triton server: for the machines beyond one.

One model, whose versions are the variants: Triton numbers them, and serves the highest where a client asks for none, so
that the most accurate has the highest number.  Which number is which variant stands among the parameters of the config.
The models are those that were compiled, whole; Triton prepares them for its own machine.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ..files import check_folder, whole_folder, write_model, write_whole
from ..ir.errors import EnvironmentProblem, ModelError
from ..runtime.manifest import Manifest
from ..runtime.session import Input
from ..runtime.store import whole
from ..runtime.variant import Variant

MAX_BATCH = 64
"""Examples that Triton may put into one run."""

_TYPES = {
    "bool": "TYPE_BOOL", "float16": "TYPE_FP16", "float32": "TYPE_FP32", "float64": "TYPE_FP64",
    "bfloat16": "TYPE_BF16", "object": "TYPE_STRING",
    **{f"{kind}{bits}": f"TYPE_{kind.upper()}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)},
}  # fmt: skip


def export(manifest: Manifest, repository: str | Path) -> list[str]:
    """Write the model ``manifest.name`` into ``repository``, whole or not at all; returns the variants, by version.

    Raises
    ------
    EnvironmentProblem
        The folder cannot be written, or has a model of that name.
    ModelError
        The portfolio is damaged, or an input is of a type that Triton does not have.
    """
    target = Path(repository) / manifest.name
    check_folder(repository)
    if target.exists():
        raise EnvironmentProblem(f"{target} is there already", hint="remove it, or give another folder")
    order = sorted(manifest.variants.values(), key=_worth)
    with whole_folder(target) as staging:
        for number, variant in enumerate(order, 1):
            (staging / str(number)).mkdir()
            write_model(staging / str(number) / "model.onnx", whole(manifest, variant.name))
        write_whole(staging / "config.pbtxt", config(manifest, [v.name for v in order]))
    return [v.name for v in order]


def config(manifest: Manifest, versions: Sequence[str]) -> str:
    """The text of ``config.pbtxt``."""
    tensors = (*manifest.inputs, *manifest.outputs)
    batched = all(_is_batched(item, tensors[0]) for item in tensors)
    lines = [
        f'name: "{manifest.name}"',
        'backend: "onnxruntime"',
        f"max_batch_size: {MAX_BATCH if batched else 0}",
        *(line for item in manifest.inputs for line in _tensor("input", item, batched)),
        *(line for item in manifest.outputs for line in _tensor("output", item, batched)),
        "version_policy { all { } }",
        "instance_group [ { count: 1 kind: KIND_CPU } ]",
        *(["dynamic_batching { }"] if batched else []),
        *(
            f'parameters {{ key: "variant.{number}" value {{ string_value: "{name}" }} }}'
            for number, name in enumerate(versions, 1)
        ),
    ]
    return "\n".join(lines) + "\n"


def _tensor(kind: str, item: Input, batched: bool) -> Iterator[str]:
    """Triton wants an axis at least: what has none is read as one of size 1."""
    dims = [d if isinstance(d, int) else -1 for d in item.shape[batched:]]
    shape = f" dims: {dims or [1]}" + ("" if dims else " reshape { shape: [ ] }")
    yield f"{kind} {{ name: {json.dumps(item.name)} data_type: {_type(item)}{shape} }}"


def _is_batched(item: Input, first: Input) -> bool:
    """Whether the first axis is any size, the same for all."""
    return bool(item.shape) and not isinstance(item.shape[0], int) and item.shape[0] == first.shape[0]


def _type(item: Input) -> str:
    name = str(np.dtype(item.dtype))
    if name not in _TYPES:
        raise ModelError(f"Triton has no type for {item.name!r}, which is {name}", hint="serve it with `prunec serve`")
    return _TYPES[name]


def _worth(variant: Variant) -> tuple[bool, float, float]:
    """The most accurate comes last, of those the fastest; first those that nobody measured, the smallest first."""
    slow = math.inf if variant.latency_ms is None else variant.latency_ms
    known = variant.accuracy is not None
    return (known, float(variant.params) if variant.accuracy is None else variant.accuracy, -slow)
