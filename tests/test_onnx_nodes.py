"""The onnx package's own models of single nodes, every op and opset: compiled, or refused in words.

As they are, they hold no weights: nothing may crash (exit code 6), and nothing may be wrong (exit code 4).  Dressed,
every axis of every input comes out of a product with a weight and every axis of every output goes into one, so that a
declaration that says too much about any axis of any op shows.
"""

from __future__ import annotations

import string
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

import prunec
from prunec.ir.analysis import analyse
from prunec.ir.emit.onnx import run
from prunec.ir.errors import ModelError, PrunecError
from prunec.ir.frontends.onnx import from_onnx
from prunec.passes.canonicalize import canonical
from prunec.passes.check import broken
from prunec.passes.groups import Groups, find_groups
from prunec.passes.rewrite import eliminate, mask

Array = NDArray[Any]
NEWEST, OLDEST_EINSUM = 26, 12
"""Opsets: what ONNX Runtime knows, and what the dress is made of."""

FEW = (
    "add_bcast attention_4d attention_4d_causal attention_4d_gqa averagepool_1d_default batchnorm_example clip "
    "concat_2d_axis_0 constant_pad convtranspose_pads cumsum_2d_axis_0 depthtospace_crd_mode_example "
    "dequantizelinear_axis einsum_batch_matmul expand_dim_changed flatten_axis2 gather_1 gathernd_example_float32 "
    "gemm_default_vector_bias gru_defaults group_normalization_example hardmax_axis_1 instancenorm_example "
    "l2normalization_axis_1 layer_normalization_2d_axis1 lstm_defaults matmul_3d maxpool_1d_default mvn "
    "prelu_broadcast reduce_mean_keepdims_example reshape_zero_dim rms_normalization_2d_axis1 simple_rnn_defaults "
    "slice softmax_axis_1 spacetodepth split_equal_parts_2d tile_precomputed transpose_default"
)
"""Of every family through which units pass one, for the quick suite."""

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


class Given:
    """A model of one node with its inputs and outputs."""

    def __init__(self, case: Any) -> None:
        self.name, self.model = case.name, case.model
        self.inputs, self.outputs = ([_array(x) for x in part] for part in case.data_sets[0])

    @property
    def opset(self) -> int:
        versions = [o.version for o in self.model.opset_import if o.domain in ("", "ai.onnx")]
        return versions[0] if len(versions) == len(self.model.opset_import) else 0

    def lowered(self) -> ModelProto:
        """The model in an opset that ONNX Runtime knows: newer ones mostly add types."""
        model = ModelProto()
        model.CopyFrom(self.model)
        model.opset_import[0].version = min(model.opset_import[0].version, NEWEST)
        return model


def _array(item: Any) -> Any:
    return np.asarray(item) if isinstance(item, np.generic) else item


@cache
def cases() -> dict[str, Given]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.loader import load_model_tests

        found = [Given(c) for c in load_model_tests(kind="node") if c.model is not None]
    return {c.name.removeprefix("test_"): c for c in found}


# ---------------------------------------------------------------------- as they are


def outcome(model: ModelProto) -> int:
    """The exit code of a compile."""
    try:
        report = prunec.compile(model, ratio=0.5, measure=False).report
    except PrunecError as error:
        return error.exit_code
    assert report["units"]["removed"] or any(n.startswith("nothing was pruned") for n in report["notes"])
    return 0


@pytest.mark.parametrize("part", range(8))
@pytest.mark.slow
def test_every_model_compiles_or_is_refused(part: int) -> None:
    found = {name: outcome(c.model) for name, c in list(cases().items())[part::8] if c.opset <= NEWEST}
    assert {name: code for name, code in found.items() if code not in (0, 3)} == {}
    assert sum(code == 0 for code in found.values()) > len(found) / 2


# ---------------------------------------------------------------------- dressed


class Dress:
    """A model whose float inputs and outputs pass through a weight along each axis; other inputs are stored."""

    def __init__(self, case: Given, weights_after_first: bool) -> None:
        self.nodes: list[Any] = []
        self.stored: dict[str, Array] = {}
        self.inputs: dict[str, Array] = {}
        self.rng = np.random.default_rng(1)
        for declared, array in zip(case.model.graph.input, case.inputs):
            self._enter(declared.name, array, stored=weights_after_first and bool(self.inputs))
        self.model = case.lowered()
        graph = self.model.graph
        inner = list(graph.node)
        del graph.node[:], graph.input[:], graph.output[:], graph.value_info[:]
        graph.node.extend([*self.nodes, *inner])
        self.nodes = []
        graph.output.extend(self._leave(v, a) for v, a in zip(case.model.graph.output, case.outputs))
        graph.node.extend(self.nodes)
        graph.input.extend(helper.make_tensor_value_info(n, TensorProto.FLOAT, a.shape) for n, a in self.inputs.items())
        graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in self.stored.items())

    def _enter(self, name: str, array: Array, stored: bool) -> None:
        if stored or array.dtype not in FLOATS or not array.ndim or not array.size:
            self.stored[name] = array
            return
        self.inputs[f"in/{name}"] = array.astype(np.float32)
        self._cast(self._mixed(f"in/{name}", array.shape), name, helper.np_dtype_to_tensor_dtype(array.dtype))

    def _leave(self, declared: Any, array: Any) -> Any:
        if not isinstance(array, np.ndarray) or array.dtype not in FLOATS or not array.ndim or not array.size:
            return declared
        self._cast(declared.name, f"single/{declared.name}", TensorProto.FLOAT)
        self._cast(self._mixed(f"single/{declared.name}", array.shape), f"out/{declared.name}", TensorProto.FLOAT)
        return helper.make_tensor_value_info(f"out/{declared.name}", TensorProto.FLOAT, None)

    def _cast(self, x: str, result: str, to: int) -> None:
        self.nodes.append(helper.make_node("Cast", [x], [result], to=to))

    def _mixed(self, x: str, shape: tuple[int, ...]) -> str:
        """What comes out of a product with a weight along each axis of ``x``."""
        first, letters = x, string.ascii_lowercase[: len(shape)]
        for d, n in enumerate(shape):
            if n > 1:
                w, y = f"{first}/w{d}", f"{first}/{d}"
                self.stored[w] = (np.eye(n) + self.rng.standard_normal((n, n)) / np.sqrt(n)).astype(np.float32)
                equation = f"{letters},{letters[d]}z->{letters.replace(letters[d], 'z')}"
                self.nodes.append(helper.make_node("Einsum", [x, w], [y], equation=equation))
                x = y
        return x


def dressed(case: Given) -> Iterator[Dress]:
    arrays = [*case.inputs, *case.outputs]
    if case.opset < OLDEST_EINSUM or not all(isinstance(a, np.ndarray) for a in case.inputs):
        return
    if any(isinstance(a, np.ndarray) and (a.size > 1500 or a.dtype == object) for a in arrays):
        return
    for weights_after_first in (False, True):
        dress = Dress(case, weights_after_first)
        if dress.inputs:
            yield dress


def choices(groups: Groups) -> Iterator[NDArray[np.int64]]:
    """Half of every group, twice, and some units alone."""
    rng = np.random.default_rng(0)
    for _ in range(2):
        halves = [rng.permutation(g.units)[: len(g) // 2] for g in groups.groups]
        yield np.concatenate([np.zeros(0, np.int64), *halves])
    for unit in rng.permutation(groups.prunable)[:4]:
        yield np.array([unit])


@dataclass
class Found:
    """Choices of units that were dropped, those whose mask moved the outputs, and those that came out wrong."""

    dropped: int = 0
    moved: int = 0
    wrong: int = 0


def checked(dress: Dress) -> Found:
    """What the compact graphs of a model are like; raises where it is refused."""
    graph = canonical(from_onnx(dress.model))
    groups, inputs, found = find_groups(analyse(graph)), list(dress.inputs.values()), Found()
    dense = run(graph, inputs)
    for dropped in choices(groups):
        alive = groups.alive(dropped)
        axes = (axis for each in groups.analysis.axes.values() for axis in each or () if axis.size)
        if all(alive[axis].any() for axis in axes):
            masked, small = mask(groups.analysis, alive), eliminate(groups.analysis, alive)
            assert not broken(small, graph)
            expected = run(masked, inputs)
            found.dropped += dropped.size > 0
            found.moved += not same(dense, expected)
            found.wrong += not same(expected, run(small, inputs))
    return found


def same(expected: list[Array], found: list[Array]) -> bool:
    """Equal up to rounding, wherever the masked network is finite: dead positions may divide by zero."""
    for a, b in zip(expected, found, strict=True):
        if a.shape != b.shape or (a.dtype.kind != "f" and not np.array_equal(a, b)):
            return False
        if a.dtype.kind == "f" and np.isfinite(a).all():
            scale = float(np.abs(a).max(initial=0))
            if not np.allclose(a, b, rtol=1e-3, atol=1e-4 * max(scale, 1e-3)):
                return False
    return True


@pytest.mark.parametrize("name", FEW.split())
def test_no_op_says_too_much(name: str) -> None:
    found = [checked(dress) for dress in dressed(cases()[name])]
    assert any(f.moved for f in found), "nothing goes: this case proves nothing"
    assert not any(f.wrong for f in found)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(8))
def test_no_op_of_all_says_too_much(part: int) -> None:
    wrong, ran, moved = [], 0, 0
    for name, case in list(cases().items())[part::8]:
        for dress in dressed(case):
            try:
                found = checked(dress)
            except ModelError:  # the runtime refuses the node
                continue
            wrong += [name] if found.wrong else []
            ran += 1
            moved += found.moved > 0
    assert wrong == []
    assert ran > 100
    assert moved > 50
