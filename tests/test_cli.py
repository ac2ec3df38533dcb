"""The command line as far as it goes without compiling anything."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import prunec
from prunec import cli, console


def run(*arguments: str) -> int:
    """The exit code of the command; argparse leaves by SystemExit."""
    try:
        return cli.main(arguments)
    except SystemExit as left:
        return int(left.code or 0)


def compile_(tmp_path: Path, source: str, *arguments: str, output: str = "o.onnx") -> int:
    return run("compile", source, "-o", str(tmp_path / output), *arguments)


@pytest.fixture(autouse=True)
def _somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CI", "true")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ratio", "1"], "--ratio 1 is not in [0, 1)"),
        (["--ratio", "-0.1"], "--ratio -0.1 is not in [0, 1)"),
        (["--ratio", "nan"], "--ratio nan is not in [0, 1)"),
        (["--macs", "0"], "--macs 0 is not in (0, 1]"),
        (["--params", "1.5"], "--params 1.5 is not in (0, 1]"),
        (["--latency", "-1"], "--latency -1 is not in (0, 1]"),
        (["-p", "nonsense"], "unknown pass 'nonsense'"),
        (["-p", "a{b"], "expected '='"),
        (["--recipe", "absent.toml"], "there is no recipe absent.toml"),
        (["--target", "toaster"], "unknown target 'toaster'"),
        (["--print-after", "nonsense"], "unknown pass 'nonsense'"),
        (["--input", "2x3xx"], "is no shape"),
        (["--input", "x:2x0"], "is no shape"),
    ],
)
def test_arguments_that_make_no_sense(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert compile_(tmp_path, "absent.onnx", *arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.startswith("prunec: error: ")
    assert "Traceback" not in captured.err
    assert captured.out == ""
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "arguments",
    [[], ["compile"], ["compile", "a.onnx"], ["compile", "a", "-o", "b", "--ratio", "0.5", "--macs", "0.5"]],
)
def test_incomplete_command_lines(arguments: list[str]) -> None:
    assert run(*arguments) == 2


@pytest.mark.parametrize(
    "source", ["nothing.onnx", "nothing.pt2", "nothing.pth", "absent_module:f", "absent.py:f", "word"]
)
def test_a_source_that_does_not_exist(tmp_path: Path, capsys: pytest.CaptureFixture[str], source: str) -> None:
    assert compile_(tmp_path, source) == 3
    assert "prunec: error: " in capsys.readouterr().err
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["weights.pt", "model.onnx", "model.pt2", "noname"])
def test_a_pickle_is_never_loaded(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    (tmp_path / name).write_bytes(pickle.dumps({"w": [1.0]}))
    assert compile_(tmp_path, name) == 3
    message = capsys.readouterr().err
    assert "pickles are never loaded" in message
    assert "hint: " in message


@pytest.mark.parametrize("output", ["absent/o.onnx", "."])
def test_an_output_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str], output: str) -> None:
    assert compile_(tmp_path, "absent.onnx", output=output) == 7
    assert "cannot write" in capsys.readouterr().err
    assert compile_(tmp_path, "absent.onnx", "--report", "absent/r.json") == 7
    assert os.listdir(tmp_path) == []


def test_a_pair_with_a_missing_file() -> None:
    assert run("verify", "a.onnx", "b.onnx") == 3
    assert run("bench", "a.onnx", "b.onnx") == 3


def test_a_crash_leaves_a_reproducer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(name: str) -> None:
        raise KeyError("lost")

    monkeypatch.setattr("prunec.passes.target.find_target", broken)
    for number in (1, 2):
        assert compile_(tmp_path, "absent.onnx", "--ratio", "0.5") == 6
        written = (tmp_path / f"prunec-crash-{number}.txt").read_text()
        assert "--ratio 0.5" in written
        assert "KeyError: 'lost'" in written
        message = capsys.readouterr().err
        assert f"prunec-crash-{number}.txt" in message
        assert "Traceback" not in message
    assert compile_(tmp_path, "absent.onnx", "--debug") == 6
    assert "Traceback" in capsys.readouterr().err


def test_an_interrupt_is_130(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(name: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("prunec.passes.target.find_target", interrupted)
    assert compile_(tmp_path, "absent.onnx") == 130


def test_a_missing_package_says_how_to_install_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    assert compile_(tmp_path, "timm:resnet18") == 7
    assert "pip install timm" in capsys.readouterr().err


def test_passes_lists_and_the_schema_agree(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("passes", "--json") == 0
    listed = json.loads(capsys.readouterr().out)
    assert run("passes", "--schema") == 0
    described = json.loads(capsys.readouterr().out)["properties"]["pass"]["items"]["oneOf"]
    assert [p["name"] for p in listed] == [p["properties"]["name"]["const"] for p in described]
    for one, other in zip(listed, described):
        assert ["name", *(o["name"] for o in one["options"])] == list(other["properties"])
    assert run("passes") == 0
    table = capsys.readouterr().out
    assert all(p["name"] in table for p in listed)


def test_explain_knows_targets_and_ops(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("explain", "ort-cpu") == 0
    assert "channel block: 16" in capsys.readouterr().out
    assert run("explain", "linear") == 0
    assert "signature: ... i, o i, o -> ... o" in capsys.readouterr().out
    assert run("explain", "liner") == 2
    assert "linear" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["passes", "--help"], ["compile", "--help"]])
def test_help_does_not_import_torch(arguments: list[str]) -> None:
    code = (
        "import sys; from prunec.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'onnx', 'scipy', 'numpy', 'rich'} & set(sys.modules)), file=sys.stderr)"
    )
    root = Path(prunec.__file__ or "").parent
    environment = {**os.environ, "PYTHONPATH": str(root / ".dev")}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout
    assert "torch" not in done.stderr
    assert "onnx" not in done.stderr
    assert "scipy" not in done.stderr


def test_the_package_hands_on_names_lazily() -> None:
    code = (
        "import sys, prunec; assert not {'torch', 'onnx', 'scipy'} & set(sys.modules); prunec.UsageError; prunec.Recipe"
    )
    root = Path(prunec.__file__ or "").parent
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(root / ".dev")})
    with pytest.raises(AttributeError, match="nothing"):
        prunec.nothing  # noqa: B018


def test_the_report_is_shown_whole_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    report = {
        "params": {"dense": 25_557_032, "compact": 8_100_000, "ratio": 0.317},
        "macs": {"dense": 4.09e9, "compact": 1.2e9, "ratio": 0.293},
        "size_bytes": {"dense": 102_000_000, "compact": 32_000_000, "ratio": 0.314},
        "latency_ms": {"dense": 41.2, "compact": 14.9, "ratio": 0.362},
        "verify": {"max_rel_err": 3.2e-7, "ok": True, "checked": ["torch", "onnx"]},
        "units": {"total": 26560, "removed": 0, "pinned": 3},
        "opaque_ops": {"my::op[x]": 12},
        "notes": ["a note with [brackets] " + "x" * 150],
    }
    console.show_report(report, "a -> b")
    shown = capsys.readouterr().out
    for part in ("25.56 M", "4.09 G", "102.00 MB", "41.2 ms", "0.362", "ok, max relative error 3.2e-07", "my::op[x]"):
        assert part in shown
    assert "note     nothing was pruned" in shown
    assert "a note with [brackets] " + "x" * 150 in shown


def test_progress_is_a_line_a_stage_and_quiet_in_ci(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with console.Stages() as stages:
        stages("load", "a")
    assert capsys.readouterr().err == ""
    monkeypatch.delenv("CI")
    with console.Stages() as stages:
        stages("load", "a")
    with console.Stages(quiet=True) as stages:
        stages("load", "b")
    assert capsys.readouterr().err == "prunec: load a\n"
