"""The onnx package's own models of single nodes, every op and opset: compiled, or refused in words.

As they are, they hold no weights: nothing may crash (exit code 6), and nothing may be wrong (exit code 4).  Dressed,
every axis of every input comes out of a product with a weight and every axis of every output goes into one, so that a
declaration that says too much about any axis of any op shows.
"""

from __future__ import annotations

import string
import warnings
from collections.abc import Iterator
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
    "add_bcast attention_4d attention_4d_causal attention_4d_gqa batchnorm_example clip concat_2d_axis_0 "
    "conv_with_autopad_same cumsum_2d_axis_0 depthtospace_crd_mode_example einsum_batch_matmul expand_dim_changed "
    "flatten_axis2 gather_1 gather_elements_1 gemm_default_vector_bias gru_defaults instancenorm_example "
    "layer_normalization_2d_axis1 lstm_defaults matmul_3d maxpool_2d_pads mvn dequantizelinear_axis "
    "reduce_mean_keepdims_example reshape_zero_dim resize_upsample_scales_nearest reversesequence_batch "
    "scatter_elements_with_axis slice softmax_axis_1 split_equal_parts_2d tile top_k tril where_example"
)
"""Of every family one, for the quick suite."""


class Given:
    """A model of one node with its inputs and outputs."""

    def __init__(self, case: Any) -> None:
        self.name, self.model = case.name, case.model
        self.inputs, self.outputs = case.data_sets[0]

    @property
    def opset(self) -> int:
        versions = [o.version for o in self.model.opset_import if o.domain in ("", "ai.onnx")]
        return versions[0] if len(versions) == len(self.model.opset_import) else 0


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
        self.model = ModelProto()
        self.model.CopyFrom(case.model)
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
        if stored or array.dtype != np.float32 or not array.ndim or not array.size:
            self.stored[name] = array
            return
        self.inputs[f"in/{name}"] = array
        self._mixed(f"in/{name}", array.shape, name)

    def _leave(self, declared: Any, array: Any) -> Any:
        if not isinstance(array, np.ndarray) or array.dtype != np.float32 or not array.ndim or not array.size:
            return declared
        self._mixed(declared.name, array.shape, f"out/{declared.name}")
        return helper.make_tensor_value_info(f"out/{declared.name}", TensorProto.FLOAT, None)

    def _mixed(self, x: str, shape: tuple[int, ...], result: str) -> None:
        letters = string.ascii_lowercase[: len(shape)]
        for d, n in enumerate(shape):
            if n > 1:
                w, y = f"{result}/w{d}", f"{result}/{d}"
                self.stored[w] = (np.eye(n) + self.rng.standard_normal((n, n)) / np.sqrt(n)).astype(np.float32)
                equation = f"{letters},{letters[d]}z->{letters.replace(letters[d], 'z')}"
                self.nodes.append(helper.make_node("Einsum", [x, w], [y], equation=equation))
                x = y
        self.nodes.append(helper.make_node("Identity", [x], [result]))


def dressed(case: Given) -> Iterator[Dress]:
    arrays = [*case.inputs, *case.outputs]
    if not OLDEST_EINSUM <= case.opset <= NEWEST or not all(isinstance(a, np.ndarray) for a in case.inputs):
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


def mistakes(dress: Dress) -> int:
    """How many choices of units give a compact graph that is not the masked one; raises where the model is refused."""
    graph = canonical(from_onnx(dress.model))
    groups, inputs, wrong = find_groups(analyse(graph)), list(dress.inputs.values()), 0
    run(graph, inputs)
    for dropped in choices(groups):
        alive = groups.alive(dropped)
        axes = (axis for each in groups.analysis.axes.values() for axis in each or () if axis.size)
        if all(alive[axis].any() for axis in axes):
            masked, small = mask(groups.analysis, alive), eliminate(groups.analysis, alive)
            assert not broken(small, graph)
            wrong += not same(run(masked, inputs), run(small, inputs))
    return wrong


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
    for dress in dressed(cases()[name]):
        try:
            assert mistakes(dress) == 0
        except ModelError:  # the runtime refuses the node
            continue


@pytest.mark.slow
@pytest.mark.parametrize("part", range(8))
def test_no_op_of_all_says_too_much(part: int) -> None:
    wrong, checked = [], 0
    for name, case in list(cases().items())[part::8]:
        for dress in dressed(case):
            try:
                wrong += [name] if mistakes(dress) else []
                checked += 1
            except ModelError:
                continue
    assert wrong == []
    assert checked > 100
