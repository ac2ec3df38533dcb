"""Two ONNX files: what proves that one is the other pruned, and what a file carries that makes it possible."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

import prunec
from prunec import cli, proofs
from prunec.ir.errors import ModelError, VerificationError
from prunec.pairs import PLAN_KEY, stamped
from prunec.passes import difference as differences
from prunec.passes import verify as verification

from .runtime.onnx_models import linear

HALF = "score,plan{ratio=0.5,align=1},eliminate,verify"


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with dense.onnx and compact.onnx."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CI", "true")
    onnx.save(linear(width=8, depth=2), "dense.onnx")
    onnx.save(prunec.compile("dense.onnx", pipeline=HALF, measure=False).onnx, "compact.onnx")
    return tmp_path


def test_a_pair_that_belongs_together(pair: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["verify", "dense.onnx", "compact.onnx", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ok"]
    assert not found["rounding"]
    assert found["checked"] == 2 * 2 * 8


@pytest.mark.parametrize("plan", [None, "no JSON", "{}"])
def test_a_file_without_a_plan_cannot_be_verified(
    pair: Path, capsys: pytest.CaptureFixture[str], plan: str | None
) -> None:
    model = linear(width=8, depth=2)
    if plan is not None:
        model.metadata_props.add(key=PLAN_KEY, value=plan)
    onnx.save(model, "other.onnx")
    assert cli.main(["verify", "dense.onnx", "other.onnx"]) == 3
    message = capsys.readouterr().err
    assert "verifying other.onnx: the file carries no plan, so prunec did not write it" in message
    assert "`prunec compile`" in message
    with pytest.raises(ModelError):
        prunec.verify("dense.onnx", "other.onnx")


def test_a_compact_file_with_other_weights_differs(pair: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = onnx.load("compact.onnx")
    tensor = model.graph.initializer[0]
    tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor) * np.float32(1.01), tensor.name))
    onnx.save(model, "compact.onnx")
    assert cli.main(["verify", "dense.onnx", "compact.onnx"]) == 4
    assert "FAILED, max relative error" in capsys.readouterr().out


def test_a_plan_for_another_model(pair: Path) -> None:
    onnx.save(linear(width=16, depth=2), "wide.onnx")
    with pytest.raises(VerificationError, match=r"its plan is not for wide\.onnx \(group 'w.:.' differs\)"):
        prunec.verify("wide.onnx", "compact.onnx")


def test_a_plan_that_names_units_which_are_not_there(pair: Path) -> None:
    model = onnx.load("compact.onnx")
    (entry,) = model.metadata_props
    plan = json.loads(entry.value)
    next(iter(plan["groups"].values()))["dropped"] = [99]
    entry.value = json.dumps(plan)
    onnx.save(model, "compact.onnx")
    with pytest.raises(VerificationError, match="its plan is not for"):
        prunec.verify("dense.onnx", "compact.onnx")


def test_what_prunec_wrote_can_be_compiled_again(pair: Path) -> None:
    again = prunec.compile("compact.onnx", pipeline=HALF, measure=False)
    assert again.report["units"] == {"total": 4, "removed": 2, "pinned": again.report["units"]["pinned"]}
    assert [entry.key for entry in again.onnx.metadata_props] == [PLAN_KEY]
    assert stamped(again.onnx) == again.plan
    onnx.save(again.onnx, "smaller.onnx")
    assert prunec.verify("compact.onnx", "smaller.onnx")["ok"]
    with pytest.raises(VerificationError):
        prunec.verify("dense.onnx", "smaller.onnx")


@pytest.mark.parametrize("tolerance", [1e-4, 1e-12])
def test_an_error_that_rounding_explains_is_reported_as_it_was_measured(
    pair: Path, monkeypatch: pytest.MonkeyPatch, tolerance: float
) -> None:
    for module in (verification, differences):
        monkeypatch.setattr(module, "relative_error", lambda expected, found: 1e-6)
    report = prunec.compile(
        "dense.onnx", pipeline=HALF.replace("verify", f"verify{{tolerance={tolerance}}}"), measure=False
    ).report
    assert report["verify"]["max_rel_err"] == report["verify"]["onnx_rel_err"] == 1e-6
    assert report["verify"]["rounding"] == (tolerance < 1e-6)
    assert any("rounding explains" in note for note in report["notes"]) == (tolerance < 1e-6)


def test_an_error_beyond_rounding_is_an_error(pair: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = iter([1e-3, 0.0])  # the error, and the masked graph run again
    monkeypatch.setattr(verification, "relative_error", lambda expected, found: next(measured))
    rounding = iter([1e-3, 0.0, 1e-6, 0.0])  # the error and what rounding makes, each of outputs and border
    monkeypatch.setattr(differences, "relative_error", lambda expected, found: next(rounding))
    for module in (verification, proofs):
        monkeypatch.setattr(module, "refuse_chance", lambda again, tolerance, expected=None: None)
    with pytest.raises(VerificationError) as error:
        prunec.compile("dense.onnx", pipeline=HALF, measure=False)
    assert error.value.data["max_rel_err"] == 1e-3


def test_a_network_that_hardly_answers_is_noted(pair: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is wrong in a part that adds a millionth to the output is not seen by running it: that is said."""
    assert cli.main(["verify", "dense.onnx", "compact.onnx"]) == 0
    assert "other inputs change an output by" not in capsys.readouterr().out
    model = onnx.load("dense.onnx")
    last = model.graph.node[-1].output[0]
    faint = [
        onnx.helper.make_node("Mul", [last, "small"], ["faint"]),
        onnx.helper.make_node("Add", ["faint", "one"], ["sum"]),
    ]
    model.graph.node.extend(faint)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.full(1, 1e-4, np.float32), "small"))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(1, np.float32), "one"))
    model.graph.output[0].name = "sum"
    onnx.save(model, "faint.onnx")
    onnx.save(prunec.compile("faint.onnx", pipeline=HALF, measure=False).onnx, "small.onnx")
    assert cli.main(["verify", "faint.onnx", "small.onnx"]) == 0
    assert "note     other inputs change an output by" in capsys.readouterr().out


def test_a_constant_output_is_not_noted(pair: Path) -> None:
    model = onnx.load("dense.onnx")
    model.graph.node.append(onnx.helper.make_node("Identity", ["anchors"], ["places"]))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.arange(5, dtype=np.float32), "anchors"))
    model.graph.output.append(onnx.helper.make_tensor_value_info("places", onnx.TensorProto.FLOAT, [5]))
    onnx.save(model, "two.onnx")
    onnx.save(prunec.compile("two.onnx", pipeline=HALF, measure=False).onnx, "small.onnx")
    assert prunec.verify("two.onnx", "small.onnx")["notes"] == []
