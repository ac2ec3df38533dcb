"""What a training says of itself: a line for each epoch, a table of layers, a picture, and a history that is kept."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import prunec
from prunec.ir.errors import UsageError
from prunec.passes.train.curves import curves
from prunec.passes.train.progress import EpochLines
from prunec.passes.train.sparse import Sparse

RECIPE = "pdp{sparsity=0.75,warm=1,rise=2}"
ENTRY = {"epoch": 3, "loss": 0.25, "sparsity": 0.5, "accuracy": 0.875}


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 40))


def trained(epochs: int = 3, recipe: str = RECIPE, sparse: Sparse | None = None) -> Sparse:
    sparse = sparse or prunec.train(net(), recipe)
    optimizer = torch.optim.SGD(sparse.model.parameters(), lr=0.1)
    for k in range(epochs):
        loss = F.mse_loss(sparse.model(torch.ones(2, 8)), torch.ones(2, 40))
        torch.autograd.backward(loss)
        optimizer.step()
        sparse.step(loss, accuracy=torch.tensor(0.5 + k / 10), f1=k)
    return sparse


# ---------------------------------------------------------------------- lines


def test_a_line_for_each_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    trained(sparse=prunec.train(net(), RECIPE, epochs=3, progress=True))
    out, lines = capsys.readouterr()
    assert not out and len(lines.splitlines()) == 4, "stdout is for results"
    note, first, _, last = lines.splitlines()
    assert note == "prunec: pdp: masks are soft for 13 epochs, and of 3 the last ones harden them at once (settle)"
    assert re.fullmatch(
        r"prunec: epoch 1/3 +━+[╸╺]? +0:\d\d:\d\d left +loss [\d.]+  accuracy 0.5  f1 0 +"
        r"sparsity 0.0%, layers 0.0% to 0.0% *",
        first,
    )
    assert "epoch 3/3" in last and "0:00:00 left" in last and "sparsity 75.0%, layers " in last
    assert last.count("━") > 2 * first.count("━")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("shown", "terminal", "ci", "lines"),
    [
        (None, False, "", 0),
        (None, True, "", 1),
        (None, True, "true", 0),
        (True, False, "true", 1),
        (False, True, "", 0),
    ],
)
def test_where_lines_are_shown(
    shown: bool | None, terminal: bool, ci: str, lines: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("CI", ci)
    monkeypatch.setenv("COLUMNS", "200")
    asked = []

    def densities() -> dict[str, float]:
        asked.append(True)
        return {"a": 0.5, "b": 0.25}

    EpochLines(None, shown)(ENTRY, densities)
    assert stream.getvalue().count("\n") == len(asked) == lines, "layers are looked at where they are shown"
    assert (
        lines == 0 or "epoch 3  loss 0.25  accuracy 0.875  sparsity 50.0%, layers 50.0% to 75.0%" in stream.getvalue()
    )


def test_of_several_processes_the_first_prints(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    for rank, count in ((1, 0), (0, 1)):
        monkeypatch.setattr("torch.distributed.get_rank", lambda rank=rank: rank)
        EpochLines(9, True)(ENTRY, dict)
        assert len(capsys.readouterr().err.splitlines()) == count


# ---------------------------------------------------------------------- table and picture


@pytest.mark.parametrize("finished", [False, True])
def test_the_table(finished: bool) -> None:
    sparse = trained()
    if finished:
        sparse.finish()
    table = sparse.table()
    assert [(row.name, row.method, row.shape) for row in table.rows] == [
        ("0.weight", "pdp", (64, 8)), ("2.weight", "pdp", (40, 64)),
    ]  # fmt: skip
    assert table.sparsity == pytest.approx(sparse.sparsity()) == pytest.approx(0.75, abs=1e-3)
    assert {row.name: 1 - row.sparsity for row in table.rows} == pytest.approx(sparse.densities())
    text = str(table)
    assert re.match(r"after 3 epochs  loss [\d.]+  accuracy 0.7  f1 2\n", text)
    assert re.search(r"2.weight +│ pdp +│ 40x64 │ +2,560 │ +\d+\.\d%", text) and re.search(r"all .*3,072 │ 75.0%", text)
    assert "values" not in text, "weights with many values"


def test_the_table_counts_few_values() -> None:
    sparse = trained(1, "dkm{bits=2}")
    assert [row.values for row in sparse.table().rows] == [None], "they are soft"
    sparse.finish()
    assert [row.values for row in sparse.table().rows] == [4]
    assert re.search(r"values.*\n.*\n.*2,560 │ +0.0% │ +4 │", str(sparse.table()))
    assert str(prunec.train(net(), RECIPE).table()).startswith("before the first epoch\n")


def test_looking_changes_nothing() -> None:
    sparse = prunec.train(net(), "dkm{bits=2}")
    sparse.model(torch.ones(2, 8))
    before = {name: value.clone() for name, value in sparse.model.state_dict().items()}
    with torch.no_grad():
        sparse.model[2].parametrizations.weight.original.mul_(2)  # type: ignore[index]
        before["2.parametrizations.weight.original"].mul_(2)
    sparse.sparsity(), sparse.densities(), sparse.table()
    assert all(torch.equal(value, before[name]) for name, value in sparse.model.state_dict().items())
    assert all(module.training for module in sparse.model.modules())


def test_the_picture(tmp_path: Path) -> None:
    sparse = trained()
    sparse.plot(tmp_path / "training.svg")
    text = (tmp_path / "training.svg").read_text()
    root = ElementTree.fromstring(text)
    names = [e.text for e in root.iter("{http://www.w3.org/2000/svg}text") if e.get("class") == "name"]
    assert names == [RECIPE_TEXT, "sparsity", "loss", "accuracy", "f1"]
    dots = [e.text for e in root.iter("{http://www.w3.org/2000/svg}title")]
    assert {"epoch 1: sparsity 0", "epoch 2: accuracy 0.6", "epoch 3: f1 2"} <= set(dots)
    assert len(list(root.iter("{http://www.w3.org/2000/svg}circle"))) == 4 * 3
    sparse.plot(tmp_path / "again.svg")
    assert (tmp_path / "again.svg").read_text() == text


RECIPE_TEXT = prunec.train(net(), RECIPE).recipe


def test_where_a_value_is_missing_the_line_has_a_gap() -> None:
    told = [0.5, 0.25, None, float("nan"), 0.125, 0.0625]
    history = [{"epoch": k, "loss": value, "sparsity": 0.0} for k, value in enumerate(told, 3)]
    root = ElementTree.fromstring(curves(history, "t"))
    lines = [e.get("points", "").split() for e in root.iter("{http://www.w3.org/2000/svg}polyline")]
    assert [len(points) for points in lines] == [6, 2, 2]
    assert lines[1] == ["0.0,0.0", "112.0,74.3"] and lines[2][-1] == "560.0,130.0", "the greatest is above"


@pytest.mark.parametrize("values", [[1.0], [0.0, 5e-324], [1e300, -1e300], [3.0, 3.0], [1.0, 1.0 + 1e-15]])
def test_any_numbers_have_a_picture(values: list[float]) -> None:
    text = curves([{"epoch": k + 1, "loss": v, "sparsity": 0.5} for k, v in enumerate(values)], "<&>")
    assert "nan" not in text and "inf" not in text and ElementTree.fromstring(text) is not None


def test_what_has_no_picture(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no epoch has ended yet"):
        prunec.train(net(), RECIPE).plot(tmp_path / "a.svg")
    with pytest.raises(UsageError, match=r"a\.png is no kind of picture"):
        trained(1).plot(tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------------- history


def test_the_history_survives_a_checkpoint(tmp_path: Path) -> None:
    sparse = trained(2)
    torch.save({"model": sparse.model.state_dict(), "sparse": sparse.state_dict()}, tmp_path / "checkpoint.pt")
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    again = prunec.train(net(), RECIPE)
    again.model.load_state_dict(saved["model"])
    again.load_state_dict(saved["sparse"])
    assert again.history == sparse.history and set(again.history[0]) == {"epoch", "loss", "sparsity", "accuracy", "f1"}
    trained(1, sparse=again)
    assert [entry["epoch"] for entry in again.history] == [1, 2, 3] and len(sparse.history) == 2
    again.plot(tmp_path / "training.svg")
    assert "epoch 1: accuracy 0.5" in (tmp_path / "training.svg").read_text()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sparsity": 0.5}, "a metric cannot be called sparsity"),
        ({"epoch": 1}, "a metric cannot be called epoch"),
        ({"accuracy": "good"}, "the metric accuracy is a str, and no number"),
        ({"accuracy": torch.ones(2)}, "the metric accuracy is a Tensor, and no number"),
        ({"loss": "low"}, "the loss is a str, and no number"),
    ],
)
def test_metrics_that_are_none(given: dict[str, object], message: str) -> None:
    sparse = trained(1)
    torch.autograd.backward(sparse.model(torch.ones(2, 8)).sum())
    with pytest.raises(UsageError, match=message):
        sparse.step(**given)  # type: ignore[arg-type]
    assert sparse.epoch == 1 and len(sparse.history) == 1


def test_after_the_end() -> None:
    sparse = trained()
    sparse.finish()
    sparse.finish()
    assert sparse.finished and sparse.sparsity() == pytest.approx(0.75, abs=1e-3)
    for call in (sparse.step, sparse.skip, sparse.harden):
        with pytest.raises(UsageError, match="training, epoch 3: it has finished"):
            call()
    assert len(sparse.history) == 3


def test_a_schedule_that_the_epochs_are_too_few_for() -> None:
    assert prunec.train(net(), RECIPE, epochs=13).notes == []
    assert "are soft for 13 epochs" in prunec.train(net(), RECIPE, epochs=12).notes[0]
    assert prunec.train(net(), "pdp{sparsity=0.5,warm=1,rise=4}", epochs=3).notes == [
        "pdp: at 50% of what is asked after 3 epochs; the rest goes at once at the end"
    ]
    assert "at 0% of what" in prunec.train(net(), "gradual{sparsity=0.5,warm=9}", epochs=3).notes[0]
    with pytest.raises(UsageError, match="epochs cannot be 0"):
        prunec.train(net(), RECIPE, epochs=0)
