"""Packed weights in files of torch: alone, in an artifact, trained on, and compiled again."""

from __future__ import annotations

import gzip
import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

import prunec
from prunec.ir.errors import EnvironmentProblem, ModelError, UsageError
from prunec.ir.packing import Packing, Pattern

X = (torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(1)),)
VECTORS = "palette{bits=4,dim=2,scale=true}"


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.ReLU(), nn.Conv2d(64, 8, 1)).eval()


def compiled(pipeline: str, model: Any = None, **options: Any) -> prunec.Result:
    return prunec.compile(model or net(), X, pipeline, **{"measure": False, "verify": False, **options})


def state(result: prunec.Result) -> dict[str, torch.Tensor]:
    assert result.module is not None
    return {name: tensor.clone() for name, tensor in result.module.state_dict().items()}


def assert_same(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor), name


def weights_bytes(folder: Path) -> int:
    return (folder / "weights.safetensors").stat().st_size


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[prunec.Result, Path]:
    """A palette of vectors with scales, which cannot be found in the numbers; with all that is reported."""
    folder = tmp_path_factory.mktemp("saved") / "artifact"
    result = compiled(VECTORS, measure=True, verify=True)
    result.save(folder)
    return result, folder


def test_an_artifact_is_small_and_comes_back_exactly(saved: tuple[prunec.Result, Path]) -> None:
    result, folder = saved
    assert weights_bytes(folder) < 3 * 1728 + 36864 / 4 + 64 * 4 + 8192
    again = prunec.load(folder)
    assert_same(state(again), state(result))
    assert again.forms == result.forms == {"palette": 1, "dense": 1} and again.values == ("palette",)
    assert_same(prunec.unpack(folder / "weights.safetensors"), state(result))
    told = result.report["packed"]["torch"]
    assert told["forms"] == {"palette": 1, "dense": 1}
    assert told["size_bytes"]["compact"] == weights_bytes(folder)
    assert told["size_bytes"]["dense"] > 150_000 and told["gzip_bytes"]["ratio"] < 0.2


def test_an_artifact_that_is_saved_again_stays_packed(saved: tuple[prunec.Result, Path], tmp_path: Path) -> None:
    _, folder = saved
    again = prunec.load(folder)
    again.save(tmp_path / "again")
    for name in ("weights.safetensors", "model.onnx", "example.safetensors", "report.json"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes(), name


def test_what_is_trained_on_is_dense_and_that_is_said(saved: tuple[prunec.Result, Path], tmp_path: Path) -> None:
    """Other weights keep their form, in both files."""
    _, folder = saved
    again = prunec.load(folder)
    before = weights_bytes(folder)
    with torch.no_grad():
        again.module.get_parameter("4.bias").add_(1)  # type: ignore[union-attr]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again.save(tmp_path / "bias")
    assert weights_bytes(tmp_path / "bias") == before and again.emit() and again.forms["palette"] == 1
    assert_same(state(prunec.load(tmp_path / "bias")), state(again))
    with torch.no_grad():
        again.module.get_parameter("2.weight").mul_(torch.rand(64, 64, 3, 3))  # type: ignore[union-attr]
    with pytest.warns(UserWarning, match="1 weight changed since the compile.*2.weight"):
        again.save(tmp_path / "weight")
    assert weights_bytes(tmp_path / "weight") > before + 36864 * 3
    notes = json.loads((tmp_path / "weight" / "report.json").read_text())["notes"]
    assert sum("2.weight" in note for note in notes) == 1
    assert_report_is_true(tmp_path / "weight")
    assert again.emit() and again.forms == {"dense": 2}
    assert_same(state(prunec.load(tmp_path / "weight")), state(again))


def assert_report_is_true(folder: Path) -> None:
    """The bytes that it gives are those of the files beside it, and gzip's."""
    report = json.loads((folder / "report.json").read_text())
    packed, files = report["packed"], [(folder / name).read_bytes() for name in ("model.onnx", "weights.safetensors")]
    assert [report["size_bytes"]["compact"], packed["torch"]["size_bytes"]["compact"]] == [len(f) for f in files]
    zipped = [packed["gzip_bytes"]["compact"], packed["torch"]["gzip_bytes"]["compact"]]
    assert zipped == pytest.approx([len(gzip.compress(f)) for f in files], rel=0.01)


def test_other_bytes_in_the_same_form_are_reported(tmp_path: Path) -> None:
    layer = nn.Linear(256, 256, bias=False)
    held = layer.weight.detach().clone()
    with torch.no_grad():
        layer.weight.mul_(held > held.quantile(0.9))
    result = prunec.compile(layer.eval(), (torch.randn(2, 256),), "pack,verify")
    result.save(tmp_path / "sparse")
    assert_report_is_true(tmp_path / "sparse")
    with torch.no_grad():
        result.module.get_parameter("weight").copy_(held * (held > held.quantile(0.4)))  # type: ignore[union-attr]
    result.save(tmp_path / "filled")
    assert result.emit() and result.forms == {"bitmask": 1}
    assert_report_is_true(tmp_path / "filled")


@pytest.mark.parametrize("source", ["module", "inside", "onnx"])
def test_what_was_packed_is_packed_by_the_next_compile(saved: tuple[prunec.Result, Path], source: str) -> None:
    """Whatever its pipeline does: where the weights still have the form, which is tried."""
    _, folder = saved
    loaded = prunec.load(folder)
    model = {"module": loaded.module, "inside": nn.Sequential(loaded.module, nn.ReLU()), "onnx": loaded.onnx}[source]  # type: ignore[arg-type]
    result = prunec.compile(model, None if source == "onnx" else X, "verify", measure=False)
    result.emit()
    assert result.forms == {"palette": 1, "dense": 1}
    half = "score{method=l1},plan{ratio=0.5},eliminate"
    smaller = prunec.compile(model, None if source == "onnx" else X, half, measure=False, verify=False)
    smaller.emit()
    assert smaller.forms == {"palette": 1, "dense": 0}, "each row still has few values"


def test_an_artifact_of_an_onnx_file(tmp_path: Path) -> None:
    result = compiled("score{method=magnitude},mask{n=1,m=4},pack", compiled("score", net()).onnx)
    result.save(tmp_path / "artifact")
    again = prunec.load(tmp_path / "artifact")
    assert again.packing is not None and again.packing.patterns == (Pattern(1, 4),)
    assert not (tmp_path / "artifact" / "weights.safetensors").exists() and result.report["packed"]["torch"] is None


def test_bfloat16(tmp_path: Path) -> None:
    """Tables and scales of bfloat16 weights are such that the numbers are, too."""
    for pipeline in (VECTORS, "palette{bits=3,group=16}", "score{method=magnitude},mask{n=1,m=4,ignore=[0.*]},pack"):
        model = net().bfloat16()
        result = prunec.compile(model, (X[0].bfloat16(),), pipeline, measure=False, verify=False)
        found = prunec.pack(result.module, tmp_path / "w.safetensors")  # type: ignore[arg-type]
        assert found["forms"].get("dense", 0) == 0, "the first and the last are small"
        assert result.report["packed"]["torch"]["forms"] == found["forms"]
        assert_same(prunec.unpack(tmp_path / "w.safetensors"), state(result))


def test_a_module_alone(tmp_path: Path) -> None:
    """What a user ships: a file of weights beside the code of the model, as it comes out of training."""
    path, model = tmp_path / "w.safetensors", net()
    with prunec.train(model, "ste{n=1,m=4,ignore=[0.*]}") as sparse:
        sparse.skip()
    found = prunec.pack(model, path, n=1, m=4)
    assert found["forms"] == {"nm": 1, "dense": 1} and found["size_bytes"]["compact"] == path.stat().st_size
    assert found["size_bytes"]["ratio"] < 0.4
    plain = prunec.pack(model.state_dict(), path)
    assert plain["forms"] == {"bitmask": 1, "dense": 1}
    fresh = net()
    fresh.load_state_dict(prunec.unpack(path))
    assert torch.equal(fresh(*X), model(*X))


def test_a_real_model(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, path = torchvision.models.resnet18().eval(), tmp_path / "w.safetensors"
    pattern = Pattern(1, 4, 4)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and pattern.fits(tuple(parameter.shape)):
                parameter.mul_(torch.from_numpy(pattern.best(parameter.abs().numpy())))
            elif name == "conv1.weight":
                parameter.copy_((parameter * 50).round() / 50)
    found = prunec.pack(model, path, n=1, m=4, v=4)
    assert found["forms"] == {"nm": 20, "bitmask": 1, "dense": 0}
    assert path.stat().st_size < 0.257 * found["size_bytes"]["dense"]
    other = torchvision.models.resnet18().eval()
    other.load_state_dict(prunec.unpack(path))
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(other(x), model(x))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pipeline", "most"),
    [
        ("score{method=magnitude},mask{n=1,m=4,v=4},pack", 0.257),
        ("palette{bits=4}", 0.128),
        ("score{method=magnitude},mask{sparsity=0.9},palette{bits=4},pack", 0.047),
    ],
)
def test_the_artifact_of_a_real_model(pipeline: str, most: float, tmp_path: Path) -> None:
    torch.manual_seed(0)
    inputs = (torch.randn(1, 3, 224, 224),)
    result = prunec.compile(torchvision.models.resnet18().eval(), inputs, f"{pipeline},verify", measure=False)
    result.save(tmp_path / "artifact")
    assert weights_bytes(tmp_path / "artifact") < most * 46.8e6
    assert_same(state(prunec.load(tmp_path / "artifact")), state(result))


def test_a_state_dict_of_other_things(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'_extra_state' is a dict"):
        prunec.pack({"weight": torch.ones(3), "_extra_state": {}}, tmp_path / "w")  # type: ignore[dict-item]
    with pytest.raises(UsageError, match="packing the weights of a list"):
        prunec.pack([torch.ones(3)], tmp_path / "w")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="pack: n=4, m=4, v=1 is no pattern"):
        prunec.pack(net(), tmp_path / "w", n=4, m=4)
    with pytest.raises(ModelError, match="meta device"):
        prunec.pack(net().to("meta"), tmp_path / "w")
    with pytest.raises(EnvironmentProblem):
        prunec.pack(net(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_damaged_artifact(saved: tuple[prunec.Result, Path], tmp_path: Path) -> None:
    """A shape that the graph does not have is refused, also where all hashes are right."""
    from prunec.ir.serial import load_graph, save_graph
    from prunec.ir.serial_weights import written

    graph = saved[0].graph
    assert graph is not None
    save_graph(graph, tmp_path, Packing())
    tensors = prunec.unpack(tmp_path / "weights.safetensors")
    for change, message in (
        ({"2.weight": tensors["2.weight"][:3]}, "'2.weight' has shape"),
        ({"2.weight": None}, "damaged"),
    ):
        kept = {n: t for n, t in {**tensors, **change}.items() if t is not None}
        (tmp_path / "weights.safetensors").write_bytes(written(kept, None).data)
        with pytest.raises(ModelError, match=message):
            load_graph(tmp_path)
    save_graph(graph, tmp_path)
    (tmp_path / "example.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelError, match="damaged"):
        load_graph(tmp_path)
