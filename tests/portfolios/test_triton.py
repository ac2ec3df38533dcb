"""A Triton model repository: one version a variant, whole models, a config that says what is what."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from prunec.ir.errors import EnvironmentProblem, ModelError
from prunec.portfolios.triton import config, export
from prunec.runtime.manifest import Manifest
from prunec.runtime.session import Input, Session

from ..runtime.portfolios import answers, made, question


def test_the_repository(tmp_path: Path) -> None:
    manifest, feeds = made(tmp_path / "pf"), question()
    assert export(manifest, tmp_path / "repo") == [
        "small",
        "middle",
        "large",
    ]  # the best is the highest
    for number, name in enumerate(("small", "middle", "large"), 1):
        model = tmp_path / "repo" / "pf" / str(number) / "model.onnx"
        np.testing.assert_allclose(Session(model).run(feeds)["y"], answers(feeds)[name], atol=1e-3)
    assert {p.name for p in (tmp_path / "repo").iterdir()} == {"pf"}
    text = (tmp_path / "repo" / "pf" / "config.pbtxt").read_text()
    assert 'name: "pf"\nbackend: "onnxruntime"\nmax_batch_size: 64\n' in text
    assert 'input { name: "x" data_type: TYPE_FP32 dims: [16] }' in text
    assert 'parameters { key: "variant.3" value { string_value: "large" } }' in text


def test_what_is_there_is_not_overwritten(tmp_path: Path) -> None:
    manifest = made(tmp_path / "pf")
    export(manifest, tmp_path / "repo")
    with pytest.raises(EnvironmentProblem, match="is there already"):
        export(manifest, tmp_path / "repo")


def test_a_damaged_portfolio_leaves_nothing(tmp_path: Path) -> None:
    manifest = made(tmp_path / "pf")
    data = bytearray(manifest.pack.path.read_bytes())
    for place in manifest.pack.places.values():
        data[place.offset] ^= 1
    manifest.pack.path.write_bytes(data)
    with pytest.raises(ModelError):
        export(manifest, tmp_path / "repo")
    assert list((tmp_path / "repo").iterdir()) == []


def signature(manifest: Manifest, inputs: list[Input], outputs: list[Input]) -> str:
    return config(replace(manifest, inputs=tuple(inputs), outputs=tuple(outputs)), ["one"])


@pytest.mark.parametrize(
    ("shapes", "most", "dims"),
    [
        ([("batch", 3), ("batch", 1)], 64, "[3]"),
        ([("batch", "length"), ("batch", 1)], 64, "[-1]"),
        ([("batch",), ("batch", 1)], 64, "[1] reshape { shape: [ ] }"),
        ([(4, 3), (4, 1)], 0, "[4, 3]"),
        ([("batch", 3), ("other", 1)], 0, "[-1, 3]"),
        ([("batch", 3), ()], 0, "[-1, 3]"),
        ([(), ()], 0, "[1] reshape { shape: [ ] }"),
    ],
)
def test_batches_and_shapes(tmp_path: Path, shapes: list[tuple[int | str, ...]], most: int, dims: str) -> None:
    x, y = (Input(name, np.dtype(np.float32), shape) for name, shape in zip("xy", shapes))
    text = signature(made(tmp_path), [x], [y])
    assert f"max_batch_size: {most}\n" in text and f'"x" data_type: TYPE_FP32 dims: {dims} ' in text
    assert ("dynamic_batching" in text) is (most > 0)


def test_types_of_tensors(tmp_path: Path) -> None:
    manifest = made(tmp_path)
    kinds = {"int64": "INT64", "bool": "BOOL", "uint8": "UINT8", "float16": "FP16", "object": "STRING"}
    for dtype, expected in kinds.items():
        x = Input("x", np.dtype(dtype), ("batch", 3))
        assert f"data_type: TYPE_{expected} " in signature(manifest, [x], [x])
    with pytest.raises(ModelError, match="no type for 'x', which is complex64"):
        signature(manifest, [Input("x", np.dtype(np.complex64), (1,))], [])


def test_what_nobody_measured_is_not_served_by_default(tmp_path: Path) -> None:
    manifest = made(tmp_path / "pf")
    variants = {n: replace(v, accuracy=None if n == "large" else v.accuracy) for n, v in manifest.variants.items()}
    assert export(replace(manifest, variants=variants), tmp_path / "repo")[-1] == "middle"


def test_names_are_quoted(tmp_path: Path) -> None:
    x = Input('x" } evil {', np.dtype(np.float32), ("batch", 3))
    assert r'name: "x\" } evil {"' in signature(made(tmp_path), [x], [x])
