"""Latency in ONNX Runtime: dense, prunec's compact model and Torch-Pruning's at the same MACs, in one process.

Run with ``pytest bench -k latency``.  The four models run in turns, two threads each, batch 1; a ratio is the median
over rounds of a model's time divided by the dense model's in the same round.  The sessions are ONNX Runtime's default
ones, apart from the threads and that a model's threads stop spinning when its run ends, so that they take nothing from
the next one's.  No time fails a test: the figures are printed, and recorded in ``benchmark.extra_info``.
"""

from __future__ import annotations

import copy
import gc
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray

import prunec

from . import peer
from .onnx_export import export

torchvision = pytest.importorskip("torchvision", reason="the models are torchvision's")
pytest.importorskip("torch_pruning", reason="the peer: pip install torch-pruning==1.6.1")

THREADS = 2
SECONDS = 30.0  # of measurement for one model
LEAST_ROUNDS = 20
ROUND_TO = 16  # what the peer's documentation offers for speed; it is off by default
DENSE = "dense"

Feeds = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Row:
    """One model: its MACs and median time, and both as a ratio to dense."""

    name: str
    macs_ratio: float
    median_ms: float
    ratio: float


@pytest.mark.parametrize(("model_name", "macs"), [("resnet50", 0.3), ("mobilenet_v2", 0.33)])
def test_latency(benchmark: Any, capsys: pytest.CaptureFixture[str], model_name: str, macs: float) -> None:
    torch.manual_seed(0)
    model = torchvision.models.get_model(model_name).eval()
    example = torch.randn(2, 3, 224, 224)
    protos, macs_ratios = _contenders(model, example, macs)
    sessions = {name: _session(proto) for name, proto in protos.items()}
    image = np.random.default_rng(0).standard_normal((1, 3, 224, 224), dtype=np.float32)
    feeds: dict[str, Feeds] = {name: {s.get_inputs()[0].name: image} for name, s in sessions.items()}
    times = interleave(sessions, feeds)
    rows = [
        Row(name, macs_ratios[name], float(np.median(ms)), float(np.median(ms / times[DENSE])))
        for name, ms in times.items()
    ]
    rounds = len(times[DENSE])
    benchmark.extra_info.update({"rows": [asdict(r) for r in rows], "rounds": rounds, "threads": THREADS})
    with capsys.disabled():
        print(f"\n\n{table(model_name, macs, rows, rounds)}")
    benchmark.pedantic(sessions["prunec"].run, args=(None, feeds["prunec"]), rounds=10, warmup_rounds=1)


def _contenders(
    model: torch.nn.Module, example: torch.Tensor, macs: float
) -> tuple[dict[str, onnx.ModelProto], dict[str, float]]:
    """ONNX models by name, the dense one first, and their MACs as a ratio to dense."""
    result = prunec.compile(copy.deepcopy(model), (example,), macs=macs, seed=0)
    modules = {
        "Torch-Pruning": peer.prune(model, example, macs=macs),
        f"Torch-Pruning, round_to={ROUND_TO}": peer.prune(model, example, macs=macs, round_to=ROUND_TO),
    }
    protos = {DENSE: export(model, example), "prunec": result.onnx}
    protos |= {name: export(module, example) for name, module in modules.items()}
    dense_macs = peer.count_macs(model, example)
    assert result.module is not None
    ratios = {n: peer.count_macs(m, example) / dense_macs for n, m in {"prunec": result.module, **modules}.items()}
    return protos, {DENSE: 1.0, **ratios}


def _session(proto: onnx.ModelProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = THREADS
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])


def interleave(sessions: dict[str, ort.InferenceSession], feeds: dict[str, Feeds]) -> dict[str, NDArray[np.float64]]:
    """Milliseconds by model, one for each round; each round starts with another model."""
    names = list(sessions)
    rounds: list[dict[str, float]] = []
    for name in names * 2:  # warm
        sessions[name].run(None, feeds[name])
    gc.collect()
    gc.disable()
    until = time.perf_counter() + SECONDS
    while len(rounds) < LEAST_ROUNDS or time.perf_counter() < until:
        shift = len(rounds) % len(names)
        order = names[shift:] + names[:shift]
        rounds.append({name: _time_ms(sessions[name], feeds[name]) for name in order})
    gc.enable()
    return {name: np.array([r[name] for r in rounds]) for name in names}


def _time_ms(session: ort.InferenceSession, feeds: Feeds) -> float:
    start = time.perf_counter_ns()
    session.run(None, feeds)
    return (time.perf_counter_ns() - start) / 1e6


def table(model_name: str, macs: float, rows: list[Row], rounds: int) -> str:
    """What is printed."""
    head = f"{model_name} at macs={macs}, random weights, seed 0; batch 1, 224x224; ONNX Runtime, {THREADS} threads"
    lines = [head, f"{'':<28}{'MACs':>8}{'median ms':>12}{'time/dense':>12}"]
    lines += [f"{r.name:<28}{r.macs_ratio:>8.3f}{r.median_ms:>12.2f}{r.ratio:>12.3f}" for r in rows]
    return "\n".join([*lines, f'{rounds} rounds in turns: pytest bench -k "latency and {model_name}"'])
