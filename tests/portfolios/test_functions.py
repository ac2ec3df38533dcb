"""The user's functions: found beside the source, or by their names, and what is wrong with them is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from prunec.ir.errors import ModelError, UsageError
from prunec.portfolios.functions import beside, function_at
from prunec.portfolios.job import Job
from prunec.portfolios.resolve import resolved

NETS = str(Path(__file__).with_name("nets.py"))
JOB = Job(f"{NETS}:net", (0.5,))


def test_functions_beside_the_factory_are_used() -> None:
    job = resolved(JOB)
    assert (job.method, job.train, job.evaluate) == ("imp", f"{NETS}:fit", f"{NETS}:evaluate")


def test_without_functions_the_network_is_pruned_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "bare.py").write_text("def net(): ...\n")
    job = resolved(replace(JOB, source=f"{tmp_path / 'bare.py'}:net"))
    assert (job.method, job.train, job.evaluate) == ("oneshot", None, None)


def test_a_module_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "named_nets.py").write_text("def net(): ...\ndef fit(model): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert beside("named_nets:net", "fit") == "named_nets:fit"
    assert function_at("named_nets:fit", "--train").takes == frozenset()


@pytest.mark.parametrize("source", ["net.onnx", "net.pt2", "torchvision:resnet18", "timm:vit"])
def test_files_and_zoos_have_no_functions(source: str) -> None:
    assert beside(source, "fit") is None


def test_only_what_a_function_takes_is_given() -> None:
    assert function_at(f"{NETS}:fit", "--train").takes == {"start", "after_epoch"}
    assert function_at(f"{NETS}:fit_alone", "--train").takes == frozenset()


@pytest.mark.parametrize(
    ("text", "error", "said", "hint"),
    [
        ("fit", UsageError, "names no function", "FILE.py:function"),
        (f"{NETS}:fitt", UsageError, "no function 'fitt'", "did you mean 'fit'"),
        (f"{NETS}:SEEN", UsageError, "no function 'SEEN'", "functions in it"),
        (f"{NETS}:fit_more", UsageError, "needs x, y as well", "start and after_epoch"),
        (f"{NETS}:data", UsageError, "takes no argument", "start and after_epoch"),
        ("absent.py:fit", ModelError, "cannot import 'absent.py'", "current folder"),
    ],
)
def test_a_function_that_cannot_be_used(text: str, error: type[Exception], said: str, hint: str) -> None:
    with pytest.raises(error, match=said) as caught:
        function_at(text, "--train")
    assert hint in caught.value.hint  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"method": "imq"}, "unknown method 'imq'"),
        ({"method": "reconvene", "of": "elements"}, "reconvene does not prune elements"),
        ({"method": "pdp", "train": f"{NETS}:fit_alone"}, "does not take 'after_epoch'"),
        ({"nested": True}, "levels by imp of channels are not prefixes"),
        ({"source": "net.onnx", "method": "imp"}, "imp needs a training function"),
        ({"source": "net.onnx", "train": f"{NETS}:fit"}, "net.onnx cannot be trained"),
    ],
)
def test_a_job_that_cannot_work_is_refused_before_anything_runs(options: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        resolved(replace(JOB, **options))  # type: ignore[arg-type]
    assert caught.value.hint


def test_a_method_that_is_misspelt_is_guessed() -> None:
    with pytest.raises(UsageError) as caught:
        resolved(replace(JOB, method="onshot"))
    assert "did you mean 'oneshot'?" in caught.value.hint and "pdp" in caught.value.hint


@pytest.mark.parametrize(
    ("function", "said"), [("evaluate_nan", "returned nan"), ("evaluate_nothing", "returned a NoneType, no number")]
)
def test_a_measure_that_is_no_number(function: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        function_at(f"{NETS}:{function}", "--evaluate").measured(None)
