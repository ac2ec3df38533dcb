"""Shrink: what a network can do without goes, and nothing else; the network computes what it did."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import prunec
from prunec.ir.errors import UsageError, VerificationError

from ..models import micro, oracle

IMAGES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def network(norm: type[nn.Module] = nn.BatchNorm2d) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), norm(8), nn.ReLU(), nn.Conv2d(8, 6, 3, padding=1), nn.Tanh(), nn.Flatten(),
        nn.Linear(6 * 64, 5),
    ).eval()  # fmt: skip


def without(model: nn.Module, name: str, units: list[int], axis: int = 0, number: float = 0.0) -> nn.Module:
    """``model`` with ``number`` at ``units`` along an axis of the parameter ``name``."""
    with torch.no_grad():
        dict(model.named_parameters())[name].index_fill_(axis, torch.tensor(units), number)
    return model


def shrunk(model: nn.Module, pipeline: str = "shrink,verify", inputs: Any = (IMAGES,)) -> prunec.Result:
    """The result of a compile, which computes what the model does on other inputs."""
    result = prunec.compile(model, inputs, pipeline, measure=False)
    fresh = oracle.fresh_inputs(inputs, 1)
    assert result.module is not None
    assert oracle.distance(oracle.call(model, fresh), oracle.call(result.module.eval(), fresh)) < 1e-6
    return result


def removed(result: prunec.Result) -> int:
    return int(result.report["units"]["removed"])


def test_filters_of_zeros_go_and_nothing_changes(tmp_path: Path) -> None:
    """Their biases too, from torch and from a file that another tool wrote."""
    model = without(without(network(), "3.weight", [1, 4, 5]), "3.bias", [0, 1, 4, 5])
    result = shrunk(model)
    assert removed(result) == 3
    np.testing.assert_array_equal(result.kept["3.weight"][0], [0, 2, 3])
    np.testing.assert_array_equal(
        result.kept["6.weight"][1], [p for u in (0, 2, 3) for p in range(u * 64, u * 64 + 64)]
    )
    torch.onnx.export(model, (IMAGES,), tmp_path / "m.onnx", dynamo=True, verbose=False)
    again = prunec.compile(onnx.load(tmp_path / "m.onnx"), None, "shrink,verify", measure=False)
    assert removed(again) == 3


def test_constants_go_into_biases() -> None:
    """A filter of zeros emits its bias, and the activation of it: a linear layer takes that in."""
    result = shrunk(without(network(), "3.weight", [1, 4]))
    assert removed(result) == 2
    assert result.report["params"]["ratio"] < 0.8


def test_before_a_padding_one_constant_stands_in_for_all() -> None:
    """The border sees zeros and no constants: these go into the weights of one of them."""
    model = without(network(), "0.weight", [1, 4, 5, 6])
    with torch.no_grad():
        model.get_submodule("1").bias.uniform_(0.5, 1)  # type: ignore[operator]
    result = shrunk(model)
    assert removed(result) == 3
    assert "shrink: 1 constant channel stays, for a padding, a norm or a sum over channels" in result.report["notes"]


def test_a_constant_that_the_activation_takes_away_needs_no_stand_in() -> None:
    model = without(network(), "0.weight", [1, 4, 5, 6])
    with torch.no_grad():
        model.get_submodule("1").bias.fill_(-1)  # type: ignore[operator]
    assert removed(shrunk(model)) == 4


def test_transposed_convolutions_read_and_make() -> None:
    """Constants do not stay ones between their strides: one stands in for all; a filter of zeros is a constant."""
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(3, 8, 3), nn.Sigmoid(), nn.ConvTranspose2d(8, 6, 3, stride=2, padding=1), nn.Sigmoid(),
        nn.Conv2d(6, 4, 1),
    ]  # fmt: skip
    model = without(nn.Sequential(*layers).eval(), "0.weight", [1, 4, 6])
    assert removed(shrunk(model)) == 2
    model = without(model, "2.weight", [0, 5], axis=1)
    assert removed(shrunk(model)) == 4
    model = without(model, "2.weight", [2], axis=0)
    assert removed(shrunk(model)) == 5


def test_what_nobody_reads_goes_and_what_made_it() -> None:
    """To a fixpoint: the second layer's filters go first, then what only they read."""
    model = without(network(), "6.weight", list(range(64, 5 * 64)), axis=1)
    assert removed(shrunk(model)) == 4
    model = without(model, "3.weight", [0, 5, 7], axis=1)
    assert removed(shrunk(model)) == 7
    model = without(model, "3.weight", [2, 3], axis=1)
    with torch.no_grad():
        model.get_submodule("3").weight[1:5, 2:4] = 1.0  # type: ignore[operator]
    assert removed(shrunk(model)) == 9, "filters that are gone do not read"


@pytest.mark.parametrize(("name", "axis"), [("3.weight", 0), ("6.weight", 1)])
def test_one_number_keeps_a_channel(name: str, axis: int) -> None:
    if name == "3.weight":
        model = without(network(), "3.weight", [1, 4])
        model.get_parameter("3.weight").data[4, 2, 1, 1] = 1e-20
    else:
        model = without(network(), "6.weight", list(range(128)), axis=1)
        model.get_parameter("6.weight").data[3, 65] = 1e-20
    assert removed(shrunk(model)) == 1


def test_a_scale_of_zero_makes_a_channel_constant() -> None:
    """What sparse scales of batch norms (network slimming) leave behind."""
    model = without(without(network(), "1.weight", [2, 3]), "1.bias", [2, 3])
    assert removed(shrunk(model)) == 2


def test_a_layer_that_is_constant_altogether_keeps_a_channel() -> None:
    result = shrunk(without(network(), "3.weight", list(range(6))))
    assert removed(result) == 5 + 7, "and of what it no longer reads one as well"


def test_nothing_goes_and_it_says_so() -> None:
    result = shrunk(network())
    assert removed(result) == 0
    assert "shrink: no channel is idle, and nothing goes" in result.report["notes"]
    assert result.report["params"]["ratio"] == 1


def test_a_norm_over_channels_keeps_them() -> None:
    class OneGroup(nn.GroupNorm):
        def __init__(self, width: int) -> None:
            super().__init__(1, width)

    assert removed(shrunk(without(network(OneGroup), "0.weight", [1, 4]))) == 0


def test_shared_weights_are_no_stand_ins() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(torch.sigmoid(self.b(torch.sigmoid(self.a(x)))))  # type: ignore[no-any-return]

    torch.manual_seed(0)
    assert removed(shrunk(without(Twice().eval(), "a.weight", [1, 2]))) == 0


def test_recurrent_channels_stay() -> None:
    """A hidden unit that no later layer reads is read by the next step."""

    class Steps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cells, self.head = nn.LSTM(4, 6, batch_first=True), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.cells(x)[0])  # type: ignore[no-any-return]

    torch.manual_seed(0)
    model = without(Steps().eval(), "head.weight", [1, 2], axis=1)
    assert removed(shrunk(model, inputs=(torch.randn(2, 5, 4),))) == 0


def test_attention_heads_that_nobody_reads_go() -> None:
    model, inputs = single("matmul_attention")
    before = prunec.compile(model, inputs, "shrink,verify", measure=False)
    assert removed(before) == 0
    (name,) = [n for n, p in model.named_parameters() if n.endswith(("out.weight", "proj.weight"))][-1:]
    width = model.get_parameter(name).shape[1]
    result = prunec.compile(
        without(model, name, list(range(width // 2)), axis=1), inputs, "shrink,verify", measure=False
    )
    assert removed(result) > 0


def single(name: str) -> tuple[nn.Module, Any]:
    """A small network in float32, and its inputs."""
    model, inputs = micro.build(name)
    numbers = pytree.tree_map(lambda x: x.float() if isinstance(x, Tensor) and x.is_floating_point() else x, inputs)
    return copy.deepcopy(model).float(), numbers


@pytest.mark.parametrize("name", sorted(micro.CASES))
def test_every_family_of_networks(name: str) -> None:
    """Filters and columns of zeros, at random, biases and norms as they are: the same outputs, in torch and as ONNX."""
    model, inputs = single(name)
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters() if name != "weight_norms" else ():  # what has no length has no direction
            if parameter.dim() > 1:
                parameter[torch.rand(parameter.shape[0], generator=rng) < 0.3] = 0
                parameter[:, torch.rand(parameter.shape[1], generator=rng) < 0.2] = 0
    result = prunec.compile(model, inputs, "shrink,verify", measure=False)
    fresh = oracle.fresh_inputs(inputs, 1)
    assert result.module is not None
    assert oracle.distance(oracle.call(model, fresh), oracle.call(result.module.eval(), fresh)) < 1e-5
    left = {n: tuple(p.shape) for n, p in result.module.named_parameters()}
    for parameter_name, axes in result.kept.items():
        source = dict(model.named_parameters()).get(parameter_name)
        if source is not None and parameter_name in left:
            sizes = [
                n if k is None else len(k) for n, k in zip(source.shape, axes or (None,) * source.dim(), strict=True)
            ]
            assert tuple(sizes) == left[parameter_name]


def test_a_sparse_file_of_another_tool(tmp_path: Path) -> None:
    """Zeroed in the file itself; ONNX Runtime gives the same for both, and `prunec verify` takes the pair."""
    torch.onnx.export(network(), (IMAGES,), tmp_path / "m.onnx", dynamo=True, verbose=False, external_data=False)
    model = onnx.load(tmp_path / "m.onnx")
    for initializer in model.graph.initializer:
        if len(initializer.dims) == 4:
            weight = numpy_helper.to_array(initializer).copy()
            weight[::2] = 0
            initializer.CopyFrom(numpy_helper.from_array(weight, initializer.name))
    onnx.save(model, tmp_path / "sparse.onnx")
    result = prunec.compile(str(tmp_path / "sparse.onnx"), None, "shrink,verify", measure=False)
    assert removed(result) >= 5
    onnx.save(result.onnx, tmp_path / "small.onnx")
    sessions = [ort.InferenceSession(tmp_path / name) for name in ("sparse.onnx", "small.onnx")]
    both = [s.run(None, {s.get_inputs()[0].name: IMAGES.numpy()})[0] for s in sessions]
    np.testing.assert_allclose(both[1], both[0], rtol=1e-5, atol=1e-6)
    assert prunec.verify(tmp_path / "sparse.onnx", tmp_path / "small.onnx")["ok"]


def test_after_a_plan() -> None:
    """What the plan leaves may be idle as well; the proof is of both."""
    model = without(network(), "3.weight", [1, 4])
    result = prunec.compile(model, (IMAGES,), "score,plan{ratio=0.2,align=1},eliminate,shrink,verify", measure=False)
    assert result.report["verify"]["ok"] and removed(result) >= 3


def test_near_zero_costs_and_says_so() -> None:
    model = without(network(), "3.weight", [1, 4], number=1e-5)
    assert removed(shrunk(model)) == 0
    result = prunec.compile(model, (IMAGES,), "shrink{tolerance=0.001},verify", measure=False)
    assert removed(result) == 2
    told = result.report["values"]["shrink"]
    assert told["zeroed"] == 2 * 8 * 9 and 0 < told["relative_error"] < 1e-3
    assert any("144 elements within 0.001 of zero became zero" in note for note in result.report["notes"])
    assert result.module is not None
    assert oracle.distance(model(IMAGES), result.module(IMAGES)) < 1e-3
    exact = prunec.compile(network(), (IMAGES,), "shrink{tolerance=0.001},verify", measure=False)
    assert "shrink: no row or column of a weight is within 0.001 of zero" in exact.report["notes"]
    assert "shrink" not in exact.report["values"]


def test_whole_blocks_stay() -> None:
    layers = [nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 8, 1)]
    model = without(
        without(nn.Sequential(*layers).eval(), "0.weight", list(range(0, 40, 2))), "0.bias", list(range(40))
    )
    assert removed(shrunk(model)) == 20
    result = shrunk(model, "shrink{align=16},verify")
    assert removed(result) == 16 and len(result.kept["0.weight"][0]) == 48


def test_targets() -> None:
    model = without(without(network(), "3.weight", [1]), "3.bias", [1])
    assert removed(shrunk(model, "shrink{ignore=[3.*]},verify")) == 0
    assert removed(shrunk(model, "shrink{targets=[3.*]},verify")) == 1


@pytest.mark.parametrize(
    ("pipeline", "message"),
    [
        ("shrink{tolerance=1.0}", "cannot be 1.0"),
        ("shrink{tolerance=-0.1}", "cannot be -0.1"),
        ("shrink{align=0}", "cannot be 0"),
        ("shrink{targets=[nothing]}", "matches no"),
        ("shrink,shrink", "cannot follow"),
        ("shrink,palette{bits=4}", "put palette before shrink"),
    ],
)
def test_what_cannot_be(pipeline: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        prunec.compile(network(), (IMAGES,), pipeline, measure=False)
    assert message in f"{error.value} {error.value.hint}"


def test_the_check_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without what biases and stand-ins take in, the proof is red: constants count."""
    model = without(network(), "3.weight", [1, 4])
    monkeypatch.setattr("prunec.passes.constants._shift", lambda *given: None)
    with pytest.raises(VerificationError):
        prunec.compile(model, (IMAGES,), "shrink,verify", measure=False)
    model = without(network(), "0.weight", [1, 4, 5, 6])
    with torch.no_grad():
        model.get_submodule("1").bias.uniform_(0.5, 1)  # type: ignore[operator]
    monkeypatch.setattr("prunec.passes.constants._merge", lambda *given: None)
    with pytest.raises(VerificationError):
        prunec.compile(model, (IMAGES,), "shrink,verify", measure=False)


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("op", ["MatMul", "FusedMatMul", "FusedMatMul, alpha"])
@pytest.mark.parametrize("biased", [True, False])
def test_products_of_matrices_are_layers(tmp_path: Path, rank: int, op: str, biased: bool) -> None:
    """What exporters write for a linear layer on sequences: a product, and a sum behind it."""
    rng = np.random.default_rng(0)
    tensors = {
        n: rng.standard_normal(s, dtype=np.float32) for n, s in {"v": (16, 24), "w": (24, 8), "b": (24,)}.items()
    }
    tensors["v"][:, 3:12] = 0
    kind, _, alpha = op.partition(", ")
    home: dict[str, Any] = {"domain": "com.microsoft"} if kind == "FusedMatMul" else {}
    nodes = [
        onnx.helper.make_node(kind, ["x", "v"], ["h"], **home | ({"alpha": 0.5} if alpha else {})),
        *([onnx.helper.make_node("Add", ["h", "b"], ["s"])] if biased else []),
        onnx.helper.make_node("Sigmoid" if biased else "Relu", ["s" if biased else "h"], ["r"]),
        onnx.helper.make_node(kind, ["r", "w"], ["y"], **home | ({"alpha": 2.0} if alpha else {})),
    ]
    stored = [numpy_helper.from_array(a, n) for n, a in tensors.items() if biased or n != "b"]
    shapes: dict[str, list[str | int | None]] = {
        "x": ["batch", *[5] * (rank - 2), 16],
        "y": ["batch", *[5] * (rank - 2), 8],
    }
    x, y = (onnx.helper.make_tensor_value_info(n, 1, s) for n, s in shapes.items())
    graph = onnx.helper.make_graph(nodes, "g", [x], [y], stored)
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("com.microsoft", 1)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)
    result = prunec.compile(model, None, "shrink,verify", measure=False)
    given = {"x": rng.standard_normal((3, *[5] * (rank - 2), 16), dtype=np.float32)}
    before, after = (ort.InferenceSession(m.SerializeToString()).run(None, given)[0] for m in (model, result.onnx))
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-5)
    expected = 0 if alpha and biased else 9 - biased  # one holds the constants of all, for a product has no bias
    assert result.report["units"]["removed"] == expected or alpha
