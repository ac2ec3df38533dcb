"""Models whose tensors stay on disk, models without values, and that work grows with depth as the model does."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import tempfile
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto
from torch import Tensor, nn

import prunec
from prunec.cli import main
from prunec.files import write_model
from prunec.ir import arrays
from prunec.ir.emit.fx import differentiable
from prunec.ir.emit.onnx import emit, emitted
from prunec.ir.emit.onnx_external import split
from prunec.ir.errors import ModelError
from prunec.ir.frontends import onnx_file
from prunec.ir.frontends.onnx import from_onnx
from prunec.passes.meter import Meter
from prunec.passes.plan.global_plan import MakePlan
from prunec.passes.score.scoring import Score, _unit_macs
from prunec.passes.tally import Tally

from .ir.test_onnx_frontend import build, node, weight
from .models import micro, oracle
from .models.oracle import Subject, known
from .passes.subjects import with_groups

ROOT = Path(__file__).resolve().parents[1]


def perceptron() -> ModelProto:
    nodes = [node("MatMul", "x a", "h"), node("Add", "h b", "k"), node("Relu", "k", "r"), node("MatMul", "r c", "y")]
    return build(nodes, {"a": weight(64, 256), "b": weight(256), "c": weight(256, 64)}, {"x": ("N", 64)})


@pytest.fixture
def on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The perceptron with its tensors in a file beside it; other processes' temporary files lie elsewhere."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    path = tmp_path / "net.onnx"
    onnx.save_model(perceptron(), str(path), save_as_external_data=True, location="net.data", size_threshold=1000)
    return path


# ---------------------------------------------------------------------- tensors on disk


def test_what_is_streamed_is_the_whole_model(on_disk: Path, tmp_path: Path) -> None:
    graph = from_onnx(on_disk)
    model = emitted(graph)
    assert set(model.tensors) == {"a", "c"}
    whole = emit(graph)
    expected = whole.SerializeToString(deterministic=True)
    assert b"".join(model.serialised()) == expected
    assert model.size_bytes() == len(expected) == whole.ByteSize()
    assert not any(model.proto.graph.initializer[k].raw_data for k in (0, 2))
    write_model(tmp_path / "out.onnx", model)
    assert (tmp_path / "out.onnx").read_bytes() == expected
    (slim, chunks), (slim_whole, chunks_whole) = split(model, "data"), split(whole, "data")
    assert slim == slim_whole
    assert b"".join(chunks) == b"".join(chunks_whole)


def test_a_tensor_that_its_data_cannot_be_put_into_is_not_written(on_disk: Path) -> None:
    model = emitted(from_onnx(on_disk))
    model.proto.graph.initializer[0].ClearField("raw_data")
    with pytest.raises(ModelError, match="tensor 'a' has no place for its data") as refusal:
        b"".join(model.serialised())
    assert refusal.value.data == {"tensor": "a"}


@pytest.mark.parametrize("opset", [None, 20])
def test_a_model_on_disk_compiles_to_the_same_bytes(on_disk: Path, opset: int | None) -> None:
    before = set(Path(tempfile.gettempdir()).glob("prunec-*"))
    from_disk = prunec.compile(on_disk, ratio=0.5, opset=opset)
    in_memory = prunec.compile(perceptron(), ratio=0.5, opset=opset)
    assert from_disk.report["verify"]["ok"]
    assert from_disk.report["size_bytes"] == in_memory.report["size_bytes"]
    assert from_disk.onnx.SerializeToString(deterministic=True) == in_memory.onnx.SerializeToString(deterministic=True)
    assert from_disk.onnx is from_disk.onnx
    assert set(Path(tempfile.gettempdir()).glob("prunec-*")) <= before


def test_the_command_parses_a_file_once(on_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[Any] = []
    parse = onnx_file.parse

    def counted(path: Any) -> Any:
        parsed.append(path)
        return parse(path)

    monkeypatch.setattr(onnx_file, "parse", counted)
    out = str(on_disk.parent / "out.onnx")
    assert main(["compile", str(on_disk), "-o", out, "--quiet", "--no-verify", "--input", "4x64"]) == 0
    assert parsed == [on_disk]


def test_the_command_does_not_overwrite_the_tensors_that_it_reads(on_disk: Path) -> None:
    data = on_disk.parent / "net.data"
    before = data.read_bytes()
    assert main(["compile", str(on_disk), "-o", str(data), "--quiet"]) == 2
    assert data.read_bytes() == before


@pytest.mark.parametrize("method", ["l1", "l2", "lamp", "fpgm"])
def test_a_model_on_disk_has_the_plan_of_one_in_memory(on_disk: Path, method: str) -> None:
    pipeline = f"score{{method={method}}},plan{{ratio=0.5}},eliminate"
    plans = [prunec.compile(m, None, pipeline, verify=False, measure=False).plan for m in (on_disk, perceptron())]
    assert plans[0] == plans[1]


# ---------------------------------------------------------------------- blocks of rows


@pytest.mark.parametrize("method", ["l1", "l2", "lamp"])
def test_scores_do_not_depend_on_how_many_rows_are_read_at_a_time(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = stack(3, width=96)
    at_once = Score(method=method).run(with_groups(subject))
    monkeypatch.setattr(arrays, "_BLOCK", 96 * 7)
    np.testing.assert_allclose(Score(method=method).run(with_groups(subject)), at_once, rtol=1e-12)


# ---------------------------------------------------------------------- no values


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(8, 64), nn.Linear(64, 4)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.down(self.up(x).relu())
        return result


def compiled_on_meta(method: str, **options: Any) -> prunec.Result:
    with torch.device("meta"):
        model, x = Two().eval(), torch.zeros(2, 8)
    pipeline = f"score{{method={method}}},plan{{ratio=0.5,scope=uniform}},eliminate"
    return prunec.compile(model, (x,), pipeline, **options)


def test_a_model_on_meta_is_planned_and_gives_shapes() -> None:
    result = compiled_on_meta("random", verify=False)
    assert result.report["units"]["removed"] == 32
    assert result.module is not None
    assert result.module.get_parameter("up.weight").shape == (32, 8)
    assert any("meta device" in note for note in result.report["notes"])  # why there is no latency
    with pytest.raises(ModelError, match="meta device"):
        result.onnx  # noqa: B018


@pytest.mark.parametrize("method", ["l1", "l2", "lamp", "fpgm", "taylor"])
def test_a_criterion_that_reads_weights_says_that_there_are_none(method: str) -> None:
    with pytest.raises(ModelError, match="weights are on the meta device") as caught:
        compiled_on_meta(method, verify=False, measure=False)
    assert "score{method=random}" in str(caught.value.hint)


def test_what_has_no_values_is_not_verified() -> None:
    with torch.device("meta"):
        model, x = Two().eval(), torch.zeros(2, 8)
    with pytest.raises(ModelError, match="weights are on the meta device"):
        prunec.compile(model, (x,), "score{method=random},plan{ratio=0.5},eliminate,verify", measure=False)


# ---------------------------------------------------------------------- growth


class Stack(nn.Module):
    """Residual blocks on one stream."""

    def __init__(self, depth: int, width: int) -> None:
        super().__init__()
        self.up = nn.ModuleList(nn.Linear(width, 2 * width) for _ in range(depth))
        self.down = nn.ModuleList(nn.Linear(2 * width, width) for _ in range(depth))
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        for up, down in zip(self.up, self.down, strict=True):
            x = x + down(up(x).relu())
        result: Tensor = self.head(x)
        return result


def stack(depth: int, width: int = 32) -> Subject:
    torch.manual_seed(0)
    return oracle.subject(Stack(depth, width).eval(), (torch.randn(2, width),))


@pytest.mark.parametrize("name", sorted(micro.CASES))
def test_a_meter_counts_what_the_whole_graph_costs(name: str) -> None:
    groups = known(name).groups
    rng = np.random.default_rng(0)
    units = rng.permutation(groups.prunable)
    first, second, third = np.array_split(units, 3)

    def whole(dropped: Any) -> dict[str, float]:
        alive = groups.alive(dropped)
        return {"macs": groups.cost.macs(alive), "params": groups.cost.params(alive)}

    meter = Meter(groups, ("macs", "params"), first)
    meter.drop(second)
    assert meter.totals == pytest.approx(whole(np.concatenate([first, second])), rel=1e-12)
    meter.take_back(first)
    meter.drop(third)
    assert meter.totals == pytest.approx(whole(np.concatenate([second, third])), rel=1e-12)
    before, after = whole(np.concatenate([second, third])), whole(units)
    assert meter.saved(first) == pytest.approx({name: before[name] - after[name] for name in before}, rel=1e-12)
    meter.take_back(second)
    meter.take_back(third)
    assert meter.totals == pytest.approx(whole(()), rel=1e-12)


def test_macs_of_a_unit_are_what_dropping_it_saves() -> None:
    groups = known("grouped").groups
    everything = groups.cost.macs(groups.all_alive())
    costs = _unit_macs(groups)
    for group in groups.groups:
        assert costs[group.units[0]] == max(1.0, everything - groups.cost.macs(groups.alive(group.units[:1])))


def work(depth: int, monkeypatch: pytest.MonkeyPatch, **score: Any) -> dict[str, int]:
    """How many terms of costs were computed, and how often the whole graph, while a stack was scored and planned."""
    done = {"terms": 0, "walks": 0}
    subject = stack(depth)
    evaluate, alive = Tally._evaluate, type(subject.groups).alive

    def counted(tally: Tally, k: int) -> None:
        done["terms"] += 1
        evaluate(tally, k)

    def walked(groups: Any, dropped: Any) -> Any:
        done["walks"] += 1
        return alive(groups, dropped)

    state = with_groups(subject)
    with monkeypatch.context() as patch:
        patch.setattr(Tally, "_evaluate", counted)
        patch.setattr(type(subject.groups), "alive", walked)
        state.facts["scores"] = Score(method="random", **score).run(state)
        MakePlan(macs=0.5, align=1, floor=0.0).run(state)
    return done


def test_planning_and_scoring_grow_with_depth_and_not_with_its_square(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two, four = (work(depth, monkeypatch, per="macs") for depth in (8, 16, 32))
    assert two["terms"] < 2.6 * one["terms"]
    assert four["terms"] < 2.6 * two["terms"]
    assert four["walks"] <= one["walks"] + 4  # a search by halves: it grows with the logarithm


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from Linux's /proc")
@pytest.mark.parametrize(("task", "most"), [("onnx", 1.5), ("onnx_verify", 1.5), ("meta", 0.3)])
def test_memory_above_the_libraries(task: str, most: float) -> None:
    """An ONNX file of 500 MB, and 1.24 billion parameters without values: peak, as a share of the weights' bytes."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-m", "bench.bench_scale", task]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    cost = json.loads(done.stdout.splitlines()[-1])
    assert cost["rise_mib"] < most * cost["weights_mib"]


def test_copies_of_weights_go_with_the_last_reference() -> None:
    """They do not wait for the next collection of garbage, for they may be gigabytes."""
    subject = oracle.subject(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).eval(), (torch.ones(2, 4),))
    enabled = gc.isenabled()
    gc.disable()
    try:
        module = differentiable(subject.graph, double=True, training=False)
        held = [weakref.ref(p) for p in module.parameters()]
        module(torch.ones(2, 4).double())[0].sum().backward()
        assert all(p() is not None for p in held)
        del module
        assert all(p() is None for p in held)
    finally:
        if enabled:
            gc.enable()
