"""Sizes that a model leaves open: what is tried where it does not run on the usual ones, and models that crash."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper

import prunec
from prunec.ir.emit import onnx_run
from prunec.ir.emit.onnx import batch_axes, run, sample_inputs
from prunec.ir.errors import ModelError
from prunec.ir.frontends import onnx_trial
from prunec.ir.frontends.onnx import from_onnx
from prunec.ir.frontends.onnx_sizes import Axes, Declared

from .test_onnx_frontend import HEAD, LINEAR, between, build, compact, ints, node, weight


def shapes(model: ModelProto) -> dict[str, tuple[int, ...] | None]:
    return {v.name: v.shape for v in from_onnx(model).inputs}


def test_a_batch_of_one() -> None:
    """The batch is declared open, and a reshape holds a one."""
    nodes = [*HEAD, node("Reshape", "h flat", "f"), node("MatMul", "f w", "y")]
    weights = {"w1": weight(8, 3, 3, 3), "flat": ints(1, 128), "w": weight(128, 4)}
    model = build(nodes, weights, {"x": ("N", 3, 4, 4)})
    assert shapes(model) == {"x": (1, 3, 4, 4)}
    small = prunec.compile(model, ratio=0.5, measure=False)
    assert small.report["units"]["removed"]
    assert small.onnx.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1, "other batches do not run"


def test_an_example_with_a_batch_of_one_is_believed_where_two_do_not_run() -> None:
    nodes = [*HEAD, node("Reshape", "h flat", "f"), node("MatMul", "f w", "y")]
    weights = {"w1": weight(8, 3, 3, 3), "flat": ints(1, 128), "w": weight(128, 4)}
    model = build(nodes, weights, {"x": ("N", 3, 4, 4)})
    graph = from_onnx(model, {"x": np.zeros((1, 3, 4, 4), np.float32)})
    assert graph.inputs[0].shape == (1, 3, 4, 4)
    free = from_onnx(between(node("Relu", "h", "t")), {"x": np.zeros((1, 3, 8, 8), np.float32)})
    assert free.inputs[0].shape == (2, 3, 8, 8), "a batch of one would look like any axis of one"


def test_images_of_a_certain_height() -> None:
    """Text in a line is 32 pixels high: the network leaves one row, which is squeezed."""
    nodes = [
        node("Conv", "x w1", "a", strides=[32, 4]),
        node("Relu", "a", "b"),
        node("Squeeze", "b two", "c"),
        node("Conv", "c w2", "y"),
    ]
    model = build(nodes, {"w1": weight(8, 3, 32, 4), "w2": weight(4, 8, 1), "two": ints(2)}, {"x": ("N", 3, "H", "W")})
    assert shapes(model) == {"x": (2, 3, 32, 32)}
    compact(model, units=8)


def test_states_whose_batch_has_no_name() -> None:
    nodes = [
        node("LSTM", "x w r _ _ h c", "a p q", hidden_size=6),
        node("ReduceSum", "p at", "b", keepdims=0),
        node("MatMul", "first f", "d"),
        node("Add", "b d", "y"),
    ]
    weights = {"w": weight(1, 24, 12), "r": weight(1, 24, 6), "at": ints(0), "f": weight(2, 6)}
    inputs: dict[str, Any] = {"first": (None, 2), "x": (16, None, 12), "h": (1, None, 6), "c": (1, None, 6)}
    model = build(nodes, weights, inputs)
    assert shapes(model) == {"first": (2, 2), "x": (16, 2, 12), "h": (1, 2, 6), "c": (1, 2, 6)}
    assert batch_axes(from_onnx(model)) == [0, 1, 1, 1]
    assert prunec.compile(model, ratio=0.5).report["latency_ms"] is not None


def test_inputs_too_large_to_try_count_as_those_that_run(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [*HEAD, node("Reshape", "h flat", "f"), node("MatMul", "f w", "y")]
    weights = {"w1": weight(8, 3, 3, 3), "w": weight(128, 4)}
    any_batch = build(nodes, {**weights, "flat": ints(-1, 128)}, {"x": ("N", 3, 4, 4)})
    batch_of_one = build(nodes, {**weights, "flat": ints(1, 128)}, {"x": ("N", 3, 4, 4)})
    monkeypatch.setattr(onnx_trial, "_LARGEST_INPUTS", 50)
    assert shapes(any_batch) == {"x": (2, 3, 4, 4)}
    assert from_onnx(any_batch).inputs[0].dynamic == {0}
    monkeypatch.setattr(onnx_trial, "_LARGEST_INPUTS", 100)
    assert shapes(batch_of_one) == {"x": (1, 3, 4, 4)}, "two do not run, and three are not tried"


def test_sizes_that_are_open_no_more_are_noted() -> None:
    nodes = [*HEAD, node("Reshape", "h flat", "f"), node("MatMul", "f w", "y")]
    weights = {"w1": weight(8, 3, 3, 3), "flat": ints(1, 128), "w": weight(128, 4)}
    notes = prunec.compile(build(nodes, weights, {"x": ("N", 3, 4, 4)}), ratio=0.5, measure=False).report["notes"]
    assert [n for n in notes if "open sizes of the file are fixed now" in n and n.endswith(": N = 1")]


def test_choices_depart_from_what_is_usual_step_by_step() -> None:
    axes = Axes([Declared("x", "float32", ("N", 3, "H", "W")), Declared("t", "int64", ("N", "L"))], {})
    choices = list(axes.choices())
    assert choices[0] == {"batch": 2, "space": 224, "length": 16}
    assert len({tuple(sorted(c.items())) for c in choices}) == len(choices)
    assert {"batch": 1, "space": 224, "length": 16} in choices[1:4]


def test_dense_layers_over_steps_as_keras_has_them() -> None:
    """``(b t) c -> b t c``: two sizes that only the runtime knows."""
    nodes = [
        node("Shape", "x", "s"),
        node("Gather", "s lead", "bt", axis=0),
        node("Reshape", "x flat", "f"),
        node("MatMul", "f w1", "a"),
        node("Concat", "bt c", "t1", axis=0),
        node("Reshape", "a t1", "b"),
        node("Relu", "b", "h"),
        node("Reshape", "h rows", "g"),
        node("MatMul", "g w2", "q"),
        node("Concat", "bt heads", "t2", axis=0),
        node("Reshape", "q t2", "q4"),
        node("ReduceMean", "q4 last", "y", keepdims=0),
    ]
    weights = {"w1": weight(12, 10), "w2": weight(10, 6), "lead": ints(0, 1), "flat": ints(-1, 12), "last": ints(3)}
    weights |= {"c": ints(10), "rows": ints(-1, 10), "heads": ints(3, 2)}
    compact(build(nodes, weights, LINEAR), units=12)


# ---------------------------------------------------------------------- models that crash


ASKED = "import sys\nprint('ready', flush=True)\nsys.stdin.readline()\n"


@pytest.mark.skipif(sys.platform == "win32", reason="no signals end a program there")
def test_a_model_that_crashes_the_runtime_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, worker = tmp_path / "model.onnx", tmp_path / "worker.py"
    model = between(node("Relu", "h", "t"))
    onnx.save(model, path)
    worker.write_text(f"{ASKED}import os, signal\nos.kill(os.getpid(), signal.SIGFPE)\n")
    with monkeypatch.context() as patched:
        onnx_trial._Worker.stop()
        patched.setattr(onnx_trial, "_WORKER", worker)
        for source in (model, path):
            with pytest.raises(ModelError, match=r"on x: \[2, 3, 8, 8\]: ONNX Runtime crashed \(Floating") as caught:
                from_onnx(source)
            assert "example inputs" in caught.value.hint
    assert from_onnx(model).nodes, "a worker is there again"


def test_without_another_process_a_model_counts_as_one_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    onnx_trial._Worker.stop()
    with monkeypatch.context() as patched:
        patched.setattr(onnx_trial, "_WORKER", Path("no such file"))
        assert shapes(between(node("Relu", "h", "t"))) == {"x": (2, 3, 8, 8)}, "it ends before it answers"
        patched.setattr(sys, "executable", "/no/such/program")
        assert shapes(between(node("Relu", "h", "t"))) == {"x": (2, 3, 8, 8)}
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    assert shapes(between(node("Relu", "h", "t"))) == {"x": (2, 3, 8, 8)}


def test_a_run_that_does_not_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = tmp_path / "worker.py"
    worker.write_text(f"{ASKED}import time\ntime.sleep(60)\n")
    with monkeypatch.context() as patched:
        onnx_trial._Worker.stop()
        patched.setattr(onnx_trial, "_WORKER", worker)
        patched.setattr(onnx_run, "LIMIT_S", 0.2)
        with pytest.raises(ModelError, match="did not end within"):
            from_onnx(between(node("Relu", "h", "t")))
    assert from_onnx(between(node("Relu", "h", "t"))).nodes, "a worker is there again"


def test_trials_do_not_mix_their_models(tmp_path: Path) -> None:
    trials = []
    for width in (3, 5):
        path = tmp_path / f"{width}.onnx"
        onnx.save(build([node("MatMul", "x w", "y")], {"w": weight(width, 4)}, {"x": ("N", width)}), path)
        trials.append(onnx_trial.Trial(path))
    sizes: list[Any] = [{"x": (2, 3)}, {"x": (2, 5)}]
    assert [t.runs(s) for t, s in zip(trials * 2, sizes * 2, strict=True)] == [True] * 4
    assert not trials[0].runs(sizes[1])


@pytest.mark.skipif(sys.platform == "win32", reason="no signals end a program there")
def test_what_ends_the_process_from_outside_is_no_fault_of_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = tmp_path / "worker.py"
    worker.write_text(f"{ASKED}import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    with monkeypatch.context() as patched:
        onnx_trial._Worker.stop()
        patched.setattr(onnx_trial, "_WORKER", worker)
        assert from_onnx(between(node("Relu", "h", "t"))).nodes


def test_a_worker_ends_with_its_parent(tmp_path: Path) -> None:
    """Though the model that it runs never does."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Identity", ["v"], ["w"])],
        "body",
        [helper.make_tensor_value_info(n, t, []) for n, t in (("k", TensorProto.INT64), ("go", TensorProto.BOOL))]
        + [helper.make_tensor_value_info("v", TensorProto.FLOAT, None)],
        [helper.make_tensor_value_info("on", TensorProto.BOOL, []), helper.make_tensor_value_info("w", 1, None)],
    )
    loop = helper.make_node("Loop", ["", "yes", "x"], ["y"], body=body)
    model = build([loop], {"yes": np.array(True)}, {"x": (1, 2)})
    onnx.save(model, tmp_path / "loop.onnx")
    question: dict[str, Any] = {
        "open": str(tmp_path / "loop.onnx"),
        "sizes": {"x": [1, 2]},
        "examples": None,
        "names": [],
    }
    worker = subprocess.Popen(
        [sys.executable, "-P", str(onnx_trial._WORKER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert worker.stdin is not None
    assert worker.stdout is not None
    assert worker.stdout.readline().strip() == "ready"
    worker.stdin.write(json.dumps(question) + "\n")
    worker.stdin.flush()
    with pytest.raises(subprocess.TimeoutExpired):
        worker.wait(1.0)
    worker.stdin.close()
    assert worker.wait(30.0) == 0


# ---------------------------------------------------------------------- sample inputs


def test_lengths_of_examples_are_lengths() -> None:
    """What is as long as the batch and points nowhere may count steps: none would leave nothing to compute with."""
    nodes = [node("LSTM", "x w r _ lens", "a", hidden_size=6), node("MatMul", "a v", "y")]
    weights = {"w": weight(1, 24, 12), "r": weight(1, 24, 6), "v": weight(6, 4)}
    model = build(nodes, weights, {"x": ("T", "N", 12)})
    model.graph.input.append(helper.make_tensor_value_info("lens", TensorProto.INT32, ["N"]))
    graph = from_onnx(model)
    for seed in range(3):
        x, lens = sample_inputs(graph, seed)
        assert lens.min() >= 1
        assert lens.max() <= x.shape[0]
    run(graph, [x, lens])
