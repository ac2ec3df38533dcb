"""Small portfolios for the tests of the runtime: linear layers of several widths, x (batch, 16) -> y (batch, 4)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from prunec.runtime.manifest import Manifest
from prunec.runtime.session import Array, Session
from prunec.runtime.store import Entry, writing

from .onnx_models import layers

WIDTHS = {"large": 256, "middle": 128, "small": 48}
ACCURACY = {"large": 0.9, "middle": 0.8, "small": 0.6}


def models(widths: Mapping[str, int] = WIDTHS) -> dict[str, onnx.ModelProto]:
    """Models whose outputs differ."""
    return {name: layers(16, width, width, 4) for name, width in widths.items()}


def entries(widths: Mapping[str, int] = WIDTHS) -> list[Entry]:
    return [
        Entry(name, model, ACCURACY.get(name), facts={"width": widths[name]}) for name, model in models(widths).items()
    ]


def made(folder: Path, widths: Mapping[str, int] = WIDTHS) -> Manifest:
    """A portfolio in ``folder``."""
    with writing(folder) as store:
        store.add(entries(widths))
        return store.commit()


def question(seed: int = 0, batch: int = 3) -> dict[str, Array]:
    return {"x": np.random.default_rng(seed).standard_normal((batch, 16)).astype(np.float32)}


def answers(feeds: Mapping[str, Array], widths: Mapping[str, int] = WIDTHS) -> dict[str, Array]:
    """What each variant answers, by sessions of their own."""
    return {name: Session(model).run(feeds)["y"] for name, model in models(widths).items()}


def nested(*widths: int) -> dict[str, onnx.ModelProto]:
    """Models of which each one's weights begin like those of the wider ones: rows of the first layer, a bias."""
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((max(widths), 64), dtype=np.float32)
    bias, head = (
        rng.standard_normal(max(widths), dtype=np.float32),
        rng.standard_normal((4, max(widths)), dtype=np.float32),
    )
    found = {}
    for width in widths:
        tensors = {"w": weight[:width], "b": bias[:width], "v": np.ascontiguousarray(head[:, :width])}
        nodes = [
            helper.make_node("Gemm", ["x", "w", "b"], ["h"], transB=1),
            helper.make_node("Relu", ["h"], ["r"]),
            helper.make_node("Gemm", ["r", "v"], ["y"], transB=1),
        ]
        values = [helper.make_tensor_value_info(n, 1, ["batch", d]) for n, d in (("x", 64), ("y", 4))]
        stored = [numpy_helper.from_array(a, n) for n, a in tensors.items()]
        graph = helper.make_graph(nodes, "g", values[:1], values[1:], stored)
        found[f"w{width}"] = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return found
