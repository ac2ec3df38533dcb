"""Everything that a compile refuses, with the error's class, its exit code and what it tells the user."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import prunec
from prunec import artifact, cli, strict
from prunec.ir.errors import BudgetError, EnvironmentProblem, ModelError, PrunecError, UsageError
from prunec.ir.graph import Graph, Node, Value
from prunec.ir.opset import OPAQUE
from prunec.ir.signature import Signature
from prunec.models import emitted_onnx
from prunec.sources import load_source

from .models import micro

X = (torch.randn(2, 6),)


def mlp(**changes: float) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))
    with torch.no_grad():
        for name, value in changes.items():
            model.get_parameter(name.replace("_", ".")).view(-1)[0] = value
    return model


def compiled(model: Any, inputs: Any = X, **options: Any) -> prunec.api.Result:
    return prunec.compile(model, inputs, **{"measure": False, "verify": False, **options})


class Counting(nn.Module):
    """Changes its own buffer while it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 4)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls.add_(1)  # type: ignore[operator]
        return self.layer(x) + self.calls  # type: ignore[no-any-return]


class Branching(nn.Module):
    """Control flow that depends on the data."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.sum() > 0 else x


REFUSED: dict[str, tuple[Callable[[], Any], type[PrunecError], str]] = {
    "NaN weights": (lambda: compiled(mlp(**{"0_weight": float("nan")})), ModelError, "parameter '0.weight' holds NaN"),
    "infinite weights": (lambda: compiled(mlp(**{"2_bias": float("inf")})), ModelError, "parameter '2.bias' holds NaN"),
    "no example inputs": (lambda: compiled(mlp(), None), UsageError, "needs example_inputs"),
    "inputs that do not fit": (lambda: compiled(mlp(), (torch.randn(2, 5),)), ModelError, "torch.export cannot trace"),
    "unknown model type": (lambda: compiled(object()), ModelError, "object is not understood"),
    "a number": (lambda: compiled(3), ModelError, "int is not understood"),
    "a file that is not there": (lambda: compiled("nothing.onnx", None), ModelError, "nothing.onnx"),
    "unknown criterion": (lambda: compiled(mlp(), pipeline="score{method=no}"), UsageError, "unknown criterion 'no'"),
    "unknown pass": (lambda: compiled(mlp(), pipeline="nonsense"), UsageError, "unknown pass 'nonsense'"),
    "unknown option": (lambda: compiled(mlp(), pipeline="score{way=l2}"), UsageError, "has no option 'way'"),
    "bad value": (
        lambda: compiled(mlp(), pipeline="score,plan{ratio=lots}"),
        UsageError,
        "plan{ratio} cannot be 'lots'",
    ),
    "bad ratio": (lambda: compiled(mlp(), ratio=1.0), UsageError, "ratio} cannot be 1.0"),
    "bad latency": (lambda: compiled(mlp(), latency=0.0), UsageError, "latency cannot be 0.0"),
    "two budgets": (lambda: compiled(mlp(), ratio=0.5, macs=0.5), UsageError, "two budgets: ratio and macs"),
    "two budgets, one of latency": (
        lambda: compiled(mlp(), macs=0.5, latency=0.5),
        UsageError,
        "two budgets: macs and latency",
    ),
    "budget and pipeline": (
        lambda: compiled(mlp(), pipeline="score", ratio=0.5),
        UsageError,
        "both a pipeline and ratio",
    ),
    "unknown target": (lambda: compiled(mlp(), target="toaster"), UsageError, "unknown target 'toaster'"),
    "a budget out of reach": (lambda: compiled(mlp(), macs=0.01), BudgetError, "macs=0.01 cannot be met"),
    "state that changes": (lambda: compiled(Counting()), ModelError, "changes its own buffers"),
    "a name of GraphModule's": (
        lambda: compiled(nn.Sequential(OrderedDict(graph=nn.Linear(6, 8), b=nn.Linear(8, 4)))),
        ModelError,
        "'graph' is an attribute of the model and of every torch.fx.GraphModule",
    ),
    "data-dependent flow": (lambda: compiled(Branching()), ModelError, "torch.export cannot trace Branching"),
}
CODES = {UsageError: 2, ModelError: 3, BudgetError: 5}


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_refused(name: str) -> None:
    attempt, kind, message = REFUSED[name]
    with pytest.raises(PrunecError) as error:
        attempt()
    assert type(error.value) is kind
    assert message in error.value.message
    assert error.value.exit_code == CODES[kind]
    assert error.value.message.count("\n") in (0, 2), "one line, or the place in the pipeline under it"


def test_nan_weights_name_the_parameter() -> None:
    with pytest.raises(ModelError) as error:
        compiled(mlp(**{"0_weight": float("nan")}))
    assert error.value.data == {"parameter": "0.weight"}


def test_strict_prints_the_declaration_to_write() -> None:
    model, inputs = micro.build("custom_op")
    with pytest.raises(ModelError) as error:
        compiled(model, inputs, strict=True)
    kind = "prunec_tests.twice.default"
    assert error.value.message == f"--strict: 1 kind of op is not understood: {kind}: no declaration for this op"
    assert error.value.hint == (
        f'for {kind} (2x8 -> 2x8) write declare("twice", "B c -> B c", "What it does."), where equal letters live and '
        f'die together, and spell("fx", "{kind}", Spelling("twice")), in a file of yours that --plugin names '
        "(docs/adding-an-op.md)"
    )
    assert error.value.exit_code == 3


def opaque(kind: str, *shapes: tuple[int, ...]) -> Node:
    """A node over values of these shapes, the last of which is the result; first axes are dynamic."""
    *operands, result = (Value(f"v{k}", shape, dynamic=frozenset({0})) for k, shape in enumerate(shapes))
    return Node("n", OPAQUE, tuple(operands), (result,), kind=kind)


@pytest.mark.parametrize(
    ("dialect", "node", "said"),
    [
        ("onnx", opaque("com.acme::FusedThing", (2, 8), (2, 8, 5)), 'declare("fused_thing", "B c -> B c d", "What'),
        ("fx", opaque("aten.linear.other", (2, 8), (2, 8)), "is what `prunec explain linear` says, write spell("),
        ("fx", opaque("aten.linear.default", (2, 8), (2, 4)), "is known, but not in this form (2x8 -> 2x4)"),
    ],
)
def test_strict_advises_by_what_is_known(dialect: str, node: Node, said: str) -> None:
    advice = strict.advice(Graph(dialect, [], [], [node], {}), node)
    assert said in advice
    assert f"ir/frontends/{dialect}_names.py" in advice or f'spell("{dialect}", "{node.kind}", Spelling(' in advice


def test_the_suggested_signature_can_be_read() -> None:
    values = [Value("a", (2, 8, 1), dynamic=frozenset({0})), Value("b", (8, 30)), Value("c", ())]
    text = strict.signature(values, [Value("d", (30, *range(40, 70)))])
    assert text.startswith("B c N, c d,  -> d e f")
    Signature.parse(strict.signature(values[:2], [Value("d", (30, 8))]))


def test_strict_accepts_what_is_known() -> None:
    assert compiled(mlp(), strict=True, ratio=0.5).report["opaque_ops"] == {}


def test_an_export_that_fails_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    """torch prints the graph as far as it got."""
    with pytest.raises(ModelError) as error:
        compiled(Branching())
    assert capfd.readouterr() == ("", "")
    assert len(error.value.message) < 200
    assert error.value.__cause__ is not None


@torch.library.custom_op("prunec_tests::no_onnx", mutates_args=())
def no_onnx(x: Tensor) -> Tensor:
    return x + 1


@no_onnx.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


class WithoutOnnx(nn.Module):
    """Holds an op that no ONNX exporter knows."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = mlp()

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(torch.ops.prunec_tests.no_onnx(x))  # type: ignore[no-any-return]


def test_a_module_without_onnx_form_is_verified_in_torch_alone() -> None:
    result = compiled(WithoutOnnx(), ratio=0.5, verify=True)
    assert result.report["verify"]["ok"] and "onnx_rel_err" not in result.report["verify"]
    assert any(note.startswith("verified in torch alone") for note in result.report["notes"])
    with pytest.raises(ModelError, match="emitting ONNX"):
        _ = result.onnx


def test_a_module_without_onnx_form_is_exported_once(monkeypatch: pytest.MonkeyPatch) -> None:
    exports: list[Graph] = []

    def emitted(graph: Graph, opset: int | None) -> Any:
        exports.append(graph)
        return emitted_onnx(graph, opset)

    monkeypatch.setattr(artifact, "emitted_onnx", emitted)
    result = compiled(WithoutOnnx(), ratio=0.5, verify=True, measure=True)
    (note,) = (note for note in result.report["notes"] if "ONNX" in note)
    assert note.startswith("verified in torch alone, and latency was not measured, for it has no ONNX form: ")
    assert result.report["latency_ms"] is None and len(exports) == 1


def test_an_opaque_op_is_reported_with_its_cost() -> None:
    """The eight units that feed the op could go if it were known; the nine behind it go as it is."""
    model, inputs = micro.build("custom_op")
    result = compiled(model, inputs, pipeline="score,plan{ratio=0.5,align=1},eliminate")
    assert result.report["opaque_ops"] == {"prunec_tests.twice.default": 8}
    assert result.report["opaque_reasons"] == ["prunec_tests.twice.default: no declaration for this op"]
    assert result.report["units"]["total"] == 9
    assert result.report["units"]["removed"] == 5
    assert prunec.analyze(model, inputs)["opaque_ops"] == result.report["opaque_ops"]


def test_a_model_that_is_in_training_mode_comes_back_so() -> None:
    model = mlp().train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    compiled(model, ratio=0.5)
    assert model.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    model[0].eval()
    compiled(model, ratio=0.5)
    assert [part.training for part in model] == [False, True, True]
    with pytest.raises(ModelError):
        compiled(model, (torch.randn(2, 5),))
    assert model.training


# ---------------------------------------------------------------------- the same by the command

FACTORIES = """
import torch
from torch import nn

def good():
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4)), (torch.randn(2, 6),)

def poisoned():
    model, inputs = good()
    model[0].weight.data[0, 0] = float("nan")
    return model, inputs

def raises():
    raise RuntimeError("no such weights")

def bare():
    return good()[0]
"""


@pytest.fixture
def factories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CI", "true")
    (tmp_path / "net.py").write_text(FACTORIES)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["net.py:poisoned"], 3, "parameter '0.weight' holds NaN"),
        (["net.py:raises"], 3, "no such weights"),
        (["net.py:bare"], 2, "--input 1x3x224x224"),
        (["net.py:good", "-p", "score,plan{ratio=0.5,ignore=1.*},eliminate"], 2, "pattern '1.*' matches nothing"),
        (["net.py:good", "-p", "score,plan{ratio=0.5},eliminate,groups"], 2, "pass 'groups' cannot follow"),
        (["net.py:absent"], 3, "absent"),
        (["net.py:good", "--macs", "0.01"], 5, "cannot be met"),
        (["net.py:good", "-p", "score{method=no},plan{ratio=0.5},eliminate"], 2, "unknown criterion 'no'"),
        (["net.py:good", "-p", "eliminate"], 2, "requires 'plan'"),
        (["net.py:good", "--input", "2x5"], 3, "torch.export cannot trace"),
    ],
)
def test_exit_codes(
    factories: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str
) -> None:
    assert cli.main(["compile", *arguments, "-o", "o.onnx"]) == code
    captured = capsys.readouterr()
    assert message in captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""
    assert sorted(p.name for p in factories.iterdir() if p.name != "__pycache__") == ["net.py"]


class PerSample(nn.Module):
    """A convolution with weights of its own for each example: as many groups as there are examples."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 32, 3, padding=1), nn.Conv2d(16, 4, 1)
        self.mixture, self.kernels = nn.Linear(32, 4), nn.Parameter(torch.randn(4, 16, 32, 3, 3) * 0.1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x).relu()
        b, c, h, w = y.shape
        share = self.mixture(y.mean((2, 3))).softmax(-1)
        kernels = torch.einsum("be,eoihw->boihw", share, self.kernels).reshape(b * 16, c, 3, 3)
        z = nn.functional.conv2d(y.reshape(1, b * c, h, w), kernels, padding=1, groups=b).view(b, 16, h, w)
        result: Tensor = self.last(z.relu())
        return result


def test_groups_that_depend_on_the_batch_are_pinned() -> None:
    report = prunec.compile(PerSample(), torch.randn(2, 3, 8, 8), ratio=0.5, measure=False).report
    assert report["verify"]["ok"]
    assert report["opaque_ops"]


@pytest.mark.parametrize("opset", [3, 99])
def test_an_opset_that_no_runtime_knows(opset: int) -> None:
    with pytest.raises(UsageError, match=f"opset cannot be {opset}"):
        prunec.compile(nn.Linear(2, 2), torch.randn(2, 2), opset=opset)


def test_a_criterion_that_ranks_nothing_is_noted() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))
    report = prunec.compile(
        model, torch.randn(2, 6), "score{method=bn_gamma},plan{ratio=0.5},eliminate,verify", measure=False
    ).report
    assert any("bn_gamma gives every unit the same score" in note for note in report["notes"])


def test_a_pickle_is_named_as_one_in_python_too(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "weights.pt")
    with pytest.raises(ModelError, match="is a pickle; pickles are never loaded"):
        prunec.compile(tmp_path / "weights.pt", ratio=0.5)


def test_a_package_that_cannot_be_imported_is_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> Any:
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr("prunec.sources.importlib.import_module", broken)
    with pytest.raises(EnvironmentProblem, match="is installed, and cannot be imported: RuntimeError: operator"):
        load_source("torchvision:resnet18")


def test_a_target_in_torch_is_for_torch_models() -> None:
    result = compiled(mlp(), ratio=0.5, target="torch-cpu", measure=True)
    assert "latency and copies are those of ONNX Runtime; torch-cpu is torch" in result.report["notes"]
    with pytest.raises(UsageError, match="target torch-cpu runs torch modules, and the model is an ONNX file") as error:
        compiled(result.onnx, None, ratio=0.5, target="torch-cpu")
    assert error.value.hint == "use ort-cpu"
