"""Seconds and memory by size: decoders of a billion parameters and of growing depth, an ONNX file of 500 MB.

Run with ``pytest bench -k scale``.  Each figure comes from a process of its own (``python -m bench.bench_scale TASK``
prints it as JSON).  Memory is counted above where the work started, all libraries imported: the peak of everything that
is resident, mapped files too, and of what is not backed by a file.  For torch, ``read`` holds ``torch.export``.
"""

from __future__ import annotations

import json
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from .apart import apart

MIB = 1024
STAGES = ("read", "groups", "score", "plan", "eliminate", "verify")


@dataclass
class Cost:
    """Seconds of each stage, and MiB: of the source's weights, and how far memory rose."""

    weights_mib: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)
    rise_mib: float = 0.0
    anonymous_mib: float = 0.0


# What is measured; each runs in a process of its own


def decoder(device: str, pipeline: str, **sizes: int) -> Cost:
    """A pipeline over a torch decoder, neither verified nor measured."""
    import torch

    import prunec

    from .scale_models import Decoder

    with torch.device(device):
        torch.set_default_dtype(torch.bfloat16)
        model = Decoder(**sizes).eval()
        tokens = torch.zeros(2, 8, dtype=torch.int64)
    result = prunec.compile(model, (tokens,), pipeline, verify=False, measure=False)
    held = sum(p.numel() * p.element_size() for p in model.parameters())
    return Cost(held / MIB**2, _seconds(result.report))


def _deep(layers: int) -> Cost:
    return decoder("cpu", f"{PLANNED},eliminate", layers=layers, **SMALL)


def onnx_file(verify: bool) -> Cost:
    """The whole compile of an ONNX file of 500 MB with external data: written, and measured in ONNX Runtime."""
    import prunec

    from .scale_models import OnnxDecoder

    with tempfile.TemporaryDirectory(prefix="prunec-scale-") as folder:
        model = OnnxDecoder(Path(folder, "decoder.onnx"))
        with _peaks() as peaks:
            result = prunec.compile(model.path, ratio=0.5, verify=verify)
            result.save(Path(folder, "artifact"))
        return Cost(model.size_bytes / MIB**2, _seconds(result.report), *peaks())


def _seconds(report: dict[str, Any]) -> dict[str, float]:
    return {"read": report["seconds"]["read"]} | {s["name"]: s["seconds"] for s in report["passes"]}


PLANNED = "score,plan{macs=0.5}"
RANDOM = "score{method=random},plan{macs=0.5},eliminate"
SMALL = {"width": 256, "heads": 8, "key_heads": 2, "hidden": 1024, "words": 1000}
TASKS: dict[str, tuple[str, Callable[[], Cost]]] = {
    "meta": ("decoder, 1.24 B parameters on meta", lambda: decoder("meta", RANDOM)),
    "bfloat16": ("decoder, 1.24 B parameters, bfloat16", lambda: decoder("cpu", PLANNED)),
    **{f"depth{n}": (f"decoder, {n} layers of 1 M parameters", partial(_deep, n)) for n in (8, 16, 32, 64)},
    "onnx": ("ONNX file, --no-verify", lambda: onnx_file(False)),
    "onnx_verify": ("ONNX file", lambda: onnx_file(True)),
}


def measure(task: str) -> Cost:
    """Run ``task`` here and now; Linux alone tells the peak of a stretch of work."""
    if task.startswith("onnx"):
        import onnx_graphsurgeon  # noqa: F401
        import onnxruntime  # noqa: F401
    else:
        import torch.export  # noqa: F401

    import prunec.api  # noqa: F401

    from . import scale_models  # noqa: F401

    with _peaks() as peaks:
        cost = TASKS[task][1]()
    if not cost.rise_mib:
        cost.rise_mib, cost.anonymous_mib = peaks()
    return cost


@contextmanager
def _peaks() -> Any:
    """A function that says how far resident and anonymous memory rose inside, in MiB."""
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of what was before
    before, anonymous, done = _memory_mib("VmRSS"), [_memory_mib("RssAnon")], threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            anonymous.append(_memory_mib("RssAnon"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield lambda: (_memory_mib("VmHWM") - before, max(anonymous) - anonymous[0])
    finally:
        done.set()
        watcher.join()


def _memory_mib(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) / MIB


# The benchmark


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from Linux's /proc")
def test_scale(benchmark: Any, capsys: pytest.CaptureFixture[str]) -> None:
    costs = {task: cost_of(task) for task in TASKS if task != "meta"}
    costs["meta"] = benchmark.pedantic(cost_of, args=("meta",), rounds=1)
    benchmark.extra_info.update({task: asdict(cost) for task, cost in costs.items()})
    with capsys.disabled():
        print(f"\n\n{table(costs)}")


def cost_of(task: str) -> Cost:
    """The cost of one task in a new process."""
    return Cost(**apart("bench.bench_scale", task))


def table(costs: dict[str, Cost]) -> str:
    """What is printed."""
    head = "".join(f"{stage:>10}" for stage in STAGES)
    lines = [f"{'seconds; MiB above the libraries':<40}{head}{'weights':>10}{'rise':>8}{'anonymous':>11}"]
    for task, (label, _) in TASKS.items():
        if task in costs:
            cost = costs[task]
            seconds = "".join(f"{cost.seconds[s]:>10.2f}" if s in cost.seconds else " " * 10 for s in STAGES)
            memory = f"{cost.weights_mib:>10.0f}{cost.rise_mib:>8.0f}{cost.anonymous_mib:>11.0f}"
            lines.append(f"{label:<40}{seconds}{memory}")
    return "\n".join(lines)


if __name__ == "__main__":
    if sys.argv[1:]:
        print(json.dumps(asdict(measure(sys.argv[1]))))
    else:
        print(table({task: cost_of(task) for task in TASKS}))
