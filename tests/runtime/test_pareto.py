"""Which variants nobody needs; what variants take on this machine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import helper, numpy_helper

from prunec.runtime.manifest import Manifest
from prunec.runtime.measured import measured
from prunec.runtime.pareto import dominates, dominator, marked
from prunec.runtime.portfolio import Portfolio
from prunec.runtime.prepare import machine
from prunec.runtime.store import Entry, writing
from prunec.runtime.variant import Stored, Variant

from .onnx_models import finish
from .portfolios import made


def variant(name: str, accuracy: float | None, latency: float | None, memory: int = 100, size: int = 100) -> Variant:
    return Variant(name, Stored("f", "0", ()), size, 1, accuracy=accuracy, latency_ms=latency, memory_bytes=memory)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (variant("a", 0.9, 10), variant("b", 0.8, 10), True),
        (variant("a", 0.9, 10), variant("b", 0.9, 20), True),
        (variant("a", 0.9, 10), variant("b", 0.9, 10), False),  # twins need each other
        (variant("a", 0.9, 10.2), variant("b", 0.9, 10), False),  # noise
        (variant("a", 0.9, 10.2), variant("b", 0.8, 10), True),  # noise does not save what is less accurate
        (variant("a", 0.9, 12), variant("b", 0.8, 10), False),
        (variant("a", 0.9, 10, memory=200), variant("b", 0.8, 10), False),
        (variant("a", 0.9, 10, size=101), variant("b", 0.8, 10), False),
        (variant("a", None, 1), variant("b", 0.8, 10), False),
        (variant("a", 0.9, None), variant("b", 0.8, 10), False),
    ],
)
def test_who_dominates_whom(one: Variant, other: Variant, expected: bool) -> None:
    assert dominates(one, other) is expected
    assert not (dominates(one, other) and dominates(other, one))


def test_the_best_of_those_that_dominate_is_named() -> None:
    all_of_them = [variant("a", 0.9, 10), variant("b", 0.95, 9), variant("c", 0.8, 20)]
    assert [dominator(v, all_of_them) for v in all_of_them] == ["b", None, "b"]


def test_what_variants_take_is_measured(tmp_path: Path) -> None:
    made(tmp_path)
    with writing(tmp_path) as store:
        store.revise(lambda m: marked(measured(m, budget_s=0.1)))
        store.commit()
    manifest = Manifest.read(tmp_path)
    for found in manifest.variants.values():
        assert found.latency_ms and found.p95_ms and found.latency_ms <= found.p95_ms
        assert found.memory_bytes is not None and 0 <= found.memory_bytes < 1 << 26
        assert found.prepared[machine()].latency_ms == found.latency_ms
    assert Portfolio.open(tmp_path).holds("large") == manifest["large"].memory_bytes


def test_it_is_measured_on_the_shapes_that_were_given(tmp_path: Path) -> None:
    """Also a model that runs on no other: its open axis has one size that fits."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    weight = numpy_helper.from_array(np.ones((12, 300), np.float32), "w")
    model = finish(nodes, {"x": (1, ["batch", "wide"])}, {"y": (1, ["batch", 300])}, [weight])
    with writing(tmp_path) as store:
        store.add([Entry("one", model)], example=[(3, 12)])
        store.revise(lambda m: measured(m, budget_s=0.0))
        manifest = store.commit()
    assert Manifest.read(tmp_path).example == {"x": (3, 12)} and manifest["one"].latency_ms
    assert Portfolio.open(tmp_path).resident == ("one",)
