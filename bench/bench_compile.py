"""Seconds and memory that compiling takes, beside Torch-Pruning's dependency graph and pruning.

Run with ``pytest bench -k compile``.  Each figure comes from a process of its own (``python -m bench.bench_compile
TASK MODEL`` prints it as JSON), with everything imported and the model built before the clock starts.  The memory is
the peak of that process, and how far it rises above where the work started.  No figure fails a test.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

from .apart import apart

RATIO = 0.5
REPEATS = 3
MIB = 1024


@dataclass(frozen=True)
class Cost:
    """What one task took: ``seconds`` is the median of ``repeats`` runs, memory in MiB."""

    seconds: float
    peak_mib: float
    rise_mib: float
    repeats: int


# What is measured; each runs in a process of its own


def analysis(model: Any, example: Any) -> float:
    """Seconds of prunec's analysis, scores, plan and elimination; export and verification left out."""
    import prunec

    pipeline = f"score{{method=l2}},plan{{ratio={RATIO}}},eliminate"
    result = prunec.compile(model, (example,), pipeline=pipeline, verify=False, measure=False, seed=0)
    return sum(float(entry["seconds"]) for entry in result.report["passes"])


def whole(model: Any, example: Any) -> float:
    """Seconds of the whole compile, from the module to the ONNX model: export, verification, measured latency."""
    import prunec

    start = time.perf_counter()
    prunec.compile(model, (example,), ratio=RATIO, seed=0).onnx  # noqa: B018 - emitted on first use
    return time.perf_counter() - start


def torch_pruning(model: Any, example: Any) -> float:
    """Seconds of Torch-Pruning's dependency graph, scores and pruning at the same ratio."""
    from . import peer

    start = time.perf_counter()
    peer.prune(model, example, ratio=RATIO)
    return time.perf_counter() - start


TASKS: dict[str, tuple[Callable[[Any, Any], float], int, str]] = {
    "analysis": (analysis, REPEATS, "prunec: analysis + plan + eliminate"),
    "whole": (whole, 1, "prunec: whole compile"),
    "torch_pruning": (torch_pruning, REPEATS, "Torch-Pruning: graph + prune"),
}


def measure(task: str, model_name: str) -> Cost:
    """Run ``task`` here and now; Linux alone tells the peak of a stretch of work."""
    import torch
    import torchvision

    run, repeats, _ = TASKS[task]
    if task == "torch_pruning":
        import torch_pruning  # noqa: F401 - importing is not part of the work
    else:
        import onnxruntime  # noqa: F401
        import torch.export
        import torch.onnx

        import prunec.api  # noqa: F401
    torch.manual_seed(0)
    model = torchvision.models.get_model(model_name).eval()
    example = torch.randn(2, 3, 224, 224)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of the imports
    before = _memory_mib("VmRSS")
    first = run(model, example)
    peak = _memory_mib("VmHWM")
    seconds = [first, *(run(model, example) for _ in range(repeats - 1))]
    return Cost(statistics.median(seconds), peak, peak - before, repeats)


def _memory_mib(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / MIB


# The benchmark


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from Linux's /proc")
@pytest.mark.parametrize("model_name", ["resnet50", "densenet121"])
def test_compile(benchmark: Any, capsys: pytest.CaptureFixture[str], model_name: str) -> None:
    pytest.importorskip("torchvision", reason="the models are torchvision's")
    pytest.importorskip("torch_pruning", reason="the peer: pip install torch-pruning==1.6.1")
    costs = {task: _cost_of(task, model_name) for task in TASKS if task != "whole"}
    costs["whole"] = benchmark.pedantic(_cost_of, args=("whole", model_name), rounds=1)
    benchmark.extra_info.update({task: asdict(cost) for task, cost in costs.items()})
    with capsys.disabled():
        print(f"\n\n{table(model_name, costs)}")


def _cost_of(task: str, model_name: str) -> Cost:
    """The cost of one task in a new process."""
    return Cost(**apart("bench.bench_compile", task, model_name))


def table(model_name: str, costs: dict[str, Cost]) -> str:
    """What is printed."""
    lines = [
        f"{model_name} at ratio={RATIO}, batch 2, 224x224",
        f"{'':<38}{'seconds':>10}{'peak MiB':>10}{'rise MiB':>10}",
    ]
    for task, (_, _, label) in TASKS.items():
        cost = costs[task]
        lines.append(f"{label:<38}{cost.seconds:>10.2f}{cost.peak_mib:>10.0f}{cost.rise_mib:>10.0f}")
    return "\n".join([*lines, f'each in its own process: pytest bench -k "compile and {model_name}"'])


if __name__ == "__main__":
    print(json.dumps(asdict(measure(*sys.argv[1:3]))))
