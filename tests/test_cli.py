"""The command line as far as it goes without compiling anything."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest

import prunec
from prunec import cli, console, explain
from prunec.passes.base import PASSES
from prunec.recipe import Recipe

from .runtime.onnx_models import layers, linear


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
        (["--ratoi", "0.5"], "unknown arguments: --ratoi 0.5"),
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


@pytest.mark.parametrize("output", ["b.txt", "b.pt2", "b", "b.onnx.txt"])
def test_an_output_of_another_kind_is_refused_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    monkeypatch.delenv("CI")
    assert run("compile", "absent.onnx", "-o", output) == 2
    assert capsys.readouterr().err == (
        f"prunec: error: --output {output} is no kind of model that prunec writes\n"
        "hint: give a name that ends in .onnx\n"
    )
    assert os.listdir(tmp_path) == []


def test_an_output_may_be_in_capitals(tmp_path: Path) -> None:
    onnx.save(layers(3, 8, 2), "net.onnx")
    assert compile_(tmp_path, "net.onnx", "--no-verify", output="HALF.ONNX") == 0
    assert (tmp_path / "HALF.ONNX").exists()


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["--target", "ort-gpu"], "did you mean 'ort-cpu'"),
        (["--print-after", "elimnate"], "did you mean 'eliminate'"),
        (["-p", "scor{method=l1}"], "did you mean 'score'? known passes: "),
        (["-p", "score{metod=l1}"], "did you mean 'method'? options: method, normalize, per"),
        (["-p", "score{normalize=meen}"], "did you mean 'mean' or 'median'? expected one of median, "),
        (["-p", "score{method=lapm},plan,eliminate"], "did you mean 'lamp'? known: bn_gamma, "),
        (["--recipe", "half.tml"], "did you mean 'half.toml'? give the path of a .toml file"),
        (["--recipe", "keys.toml"], "did you mean 'include'? keys: description, "),
        (["--recipe", "half.toml"], "did you mean 'method'? keys in this [[pass]]: name, method"),
        (["--input", "X1:2x3"], "did you mean 'x'? inputs: x"),
    ],
)
def test_what_is_nearly_right_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], hint: str
) -> None:
    onnx.save(layers(3, 8, 2), "net.onnx")
    (tmp_path / "half.toml").write_text('[[pass]]\nname = "score"\nmetod = "l1"\n')
    (tmp_path / "keys.toml").write_text('inclode = ["half.toml"]\n')
    assert compile_(tmp_path, "net.onnx", *arguments) == 2
    assert f"hint: {hint}" in capsys.readouterr().err


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


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("Gemm", ["ONNX Gemm is op linear: Linear layer, weight (out, in)."]),
        ("aten.conv2d.default", ["ATen aten.conv2d.default is op conv: "]),
        ("torch.ops.aten.conv2d", ["ATen aten.conv2d.default is op conv: ", "ATen aten.conv2d.padding is op conv: "]),
        ("conv2d", ["ATen aten.conv2d.default is op conv: ", "ATen aten.conv2d.padding is op conv: "]),
        ("aten.silu.default", ["ATen aten.silu.default is op elementwise: "]),
        ("aten.linalg_svd.default", ["ATen aten.linalg_svd.default: no op says what it means"]),
        ("NonMaxSuppression", ["ONNX NonMaxSuppression: no op says what it means"]),
        ("com.acme::Fused", ["com.acme::Fused: no op says what it means"]),
        ("acme.fused.default", ["acme.fused.default: no op says what it means"]),
    ],
)
def test_explain_says_what_a_kind_of_node_is(capsys: pytest.CaptureFixture[str], name: str, lines: list[str]) -> None:
    assert run("explain", name) == 0
    found = capsys.readouterr().out.splitlines()
    assert [line[: len(start)] for line, start in zip(found, lines, strict=True)] == lines


@pytest.mark.parametrize("name", ["aten.nothing", "aten.linalg_svd.nothing", "Gemmm", "torch.nn.Linear"])
def test_explain_refuses_what_is_not_there(capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert run("explain", name) == 2
    assert f"nothing is called {name!r}" in capsys.readouterr().err


def test_explain_recipe_shows_one_that_can_be_used(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run("explain", "recipe") == 0
    shown = capsys.readouterr().out
    assert explain.RECIPE in shown
    assert f"\n{explain.PIPELINE}\n" in shown
    (tmp_path / "r.toml").write_text(explain.RECIPE)
    assert str(Recipe.from_toml(tmp_path / "r.toml")) == explain.PIPELINE
    others = {"canonicalize", "groups", "layout", "reorder", "split"}
    others |= {
        "mask",
        "pack",
        "permute",
        "rank",
        "palette",
        "rectify",
        "shrink",
        "initialise",
        "pdp",
        "gradual",
        "ste",
        "str",
        "dkm",
    }
    assert {p.name for p in Recipe.parse(explain.PIPELINE)} == set(PASSES) - others


# ---------------------------------------------------------------------- files that would be overwritten


@pytest.mark.parametrize(
    ("tensors", "written"),
    [
        ("m.onnx", ["-o", "m.onnx"]),
        ("m.data", ["-o", "o.onnx", "--report", "m.data"]),
        ("m.onnx.data", ["-o", "m.onnx"]),
    ],
)
def test_the_tensors_of_the_source_are_not_overwritten(
    tensors: str,
    written: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    onnx.save(linear(width=32), "a.onnx", save_as_external_data=True, location=tensors, size_threshold=0)
    held = Path(tensors).read_bytes()
    assert run("compile", "a.onnx", *written) == 2
    assert f"is the file of the tensors of a.onnx ({tensors})" in capsys.readouterr().err
    assert Path(tensors).read_bytes() == held


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.onnx", "-o", "a.onnx"], "--output a.onnx is the file of SOURCE"),
        (["a.onnx", "-o", "./sub/../a.onnx"], "is the file of SOURCE"),
        (["a.onnx", "-o", "link.onnx"], "--output link.onnx is the file of SOURCE"),
        (["a.pt2", "-o", "a.pt2"], "is the file of SOURCE"),
        (["net.py:f", "-o", "net.py"], "--output net.py is the file of SOURCE"),
        (["a.onnx", "-o", "o.onnx", "--report", "a.onnx"], "--report a.onnx is the file of SOURCE"),
        (["a.onnx", "-o", "o.onnx", "--report", "o.onnx"], "--report o.onnx is the file of --output"),
        (["a.onnx", "-o", "r.toml", "--recipe", "r.toml"], "--output r.toml is the file of --recipe"),
        (["a.onnx", "-o", "o.onnx", "--save", "."], "SOURCE a.onnx lies in the folder ."),
        (["pkg.mod:f", "-o", "sub/o.onnx", "--save", "sub"], "--output sub/o.onnx lies in the folder sub"),
    ],
)
def test_a_compile_overwrites_nothing_it_reads_or_writes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "r.toml").write_text('[[pass]]\nname = "fold"')
    for name in ("a.onnx", "a.pt2", "net.py"):
        (tmp_path / name).write_text("the source")
    (tmp_path / "link.onnx").symlink_to("a.onnx")
    assert run("compile", *arguments) == 2
    assert message in capsys.readouterr().err
    assert all((tmp_path / name).read_text() == "the source" for name in ("a.onnx", "a.pt2", "net.py"))


@pytest.mark.parametrize("command", ["verify", "bench"])
def test_a_report_on_a_pair_overwrites_neither(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    for name in ("a.onnx", "b.onnx"):
        (tmp_path / name).write_text("a model")
    assert run(command, "a.onnx", "b.onnx", "--report", "b.onnx") == 2
    assert "--report b.onnx is the file of COMPACT" in capsys.readouterr().err


def test_devices_may_be_written_twice(tmp_path: Path) -> None:
    assert run("compile", "absent.onnx", "-o", "/dev/null", "--report", "/dev/null") == 3


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


def shown_report(report: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> str:
    console.show_report(report, "a -> b")
    return capsys.readouterr().out


def test_the_report_is_shown_whole_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    report: dict[str, Any] = {
        "params": {"dense": 25_557_032, "compact": 8_100_000, "ratio": 0.317},
        "macs": {"dense": 4.09e9, "compact": 1.2e9, "ratio": 0.293},
        "size_bytes": {"dense": 102_000_000, "compact": 32_000_000, "ratio": 0.314},
        "latency_ms": {"dense": 41.2, "compact": 14.9, "ratio": 0.362},
        "verify": {"max_rel_err": 3.2e-7, "ok": True, "checked": ["torch", "onnx"]},
        "units": {"total": 26560, "removed": 0, "pinned": 3},
        "opaque_ops": {"my::op[x]": 12},
        "notes": ["nothing was pruned", "a note with [brackets] " + "x" * 150],
    }
    tied = "verify   units under norms, softmax or means over channels: "
    assert tied not in shown_report(report, capsys)
    report["verify"]["norm_tied"] = 384
    assert tied + "384, kept ones too; removing is not zeroing there" in shown_report(report, capsys)
    shown = shown_report(report, capsys)
    for part in ("25.56 M", "4.09 G", "102.00 MB", "41.2 ms", "0.362", "ok, max relative error 3.2e-07", "my::op[x]"):
        assert part in shown
    assert "note     nothing was pruned" in shown
    assert "a note with [brackets] " + "x" * 150 in shown


def test_the_report_shows_how_weights_are_packed(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = {"dense": 46_800_000, "compact": 5_900_000, "ratio": 0.126}
    torch = {"forms": {"palette": 21}, "size_bytes": sizes, "gzip_bytes": sizes}
    shown = shown_report({"packed": {"forms": {"palette": 21}, "gzip_bytes": sizes, "torch": torch}}, capsys)
    assert "packed   palette 21; gzip 46.80 MB -> 5.90 MB" in shown
    assert "torch weights: 46.80 MB -> 5.90 MB; gzip 46.80 MB -> 5.90 MB" in shown
    alone = {"packed": {"forms": {"palette": 21}, "gzip_bytes": None, "torch": None}}
    assert "torch" not in shown_report(alone, capsys)


def test_the_report_shows_which_groups_were_cut_and_how_sensitive_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    def group(kept: int, lost: float, sensitivity: float | None) -> dict[str, Any]:
        return {"units": 64, "kept": kept, "density": 0.25, "flow_lost": lost, "sensitivity": sensitivity}

    groups = {"late": group(64, 0.0, None), "fragile": group(64, 0.5, 37.8), "robust": group(16, 0.125, 1.7)}
    lines = shown_report({"values": {"rectify": groups}}, capsys).splitlines()
    rows = [line.replace("│", " ").split() for line in lines if " 64 " in line]
    assert rows == [
        ["robust", "64", "16", "cut", "0.250", "12.50%", "1.7"],
        ["fragile", "64", "64", "whole", "0.250", "50.00%", "37.8"],
        ["late", "64", "64", "whole", "0.250", "-", "-"],
    ]
    many = {f"layer{k}": group(64, 0.5, float(k)) for k in range(23)}
    assert "3 more sensitive ones, 3 of them whole" in shown_report({"values": {"rectify": many}}, capsys)


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


def test_progress_names_passes_and_the_parts_of_the_proof(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CI")
    onnx.save(layers(3, 32, 2), "net.onnx")
    assert compile_(tmp_path, "net.onnx") == 0
    told = [line.removeprefix("prunec: ") for line in capsys.readouterr().err.splitlines()]
    proof = ["verify", "verify with the model's own weights", "verify with random weights"]
    passes = ["groups", "score", "plan", "eliminate", "fold", *proof]
    assert told == [
        *("load net.onnx", "read net.onnx", "verify source"), *passes, "emit", "verify onnx", "emit dense", "measure",
        "measure copies",
        f"write {tmp_path / 'o.onnx'}",
    ]  # fmt: skip


def test_analyze_shows_what_is_pinned_and_why(capsys: pytest.CaptureFixture[str]) -> None:
    pin = {
        "cause": "Foo", "why": "odd", "nodes": ["a", "b"], "axes": [["x", 1], ["x", 2], ["w", 0]], "units": 1,
        "alone": 0, "parameters": [["w", 2]],
    }  # fmt: skip
    places = [["a.w", 0], ["a.b", 0], ["b.w", 1], ["c.w", 1], ["d.w", 1]]
    found = {
        "groups": [
            {
                "name": "a.w:0", "units": 2_000, "parameters": places, "pins": [0, 3],
                "scores": {"min": 0.125, "lower": 0.2, "median": 0.25, "upper": 0.3, "max": 2.0},
                "cost": {"unit_macs": 1_500.0, "unit_params": 9.0, "macs_share": 0.25, "params_share": 0.5},
            }
        ],
        "criterion": "lamp", "units": 2_000, "atoms": 5_000, "pinned": 1_021, "conflicts": 1,
        "opaque": [
            {"kind": "Foo", "cost": 1, "pins": [1], "why": ["odd"]},
            {"kind": "Bar", "cost": 0, "pins": [2], "why": ["odd too"]},
            {"kind": "And", "cost": 0, "pins": [], "why": ["odd"]},
            {"kind": "Diff", "cost": 0, "pins": [], "why": ["odd"]},
        ],
        "notes": ["a note"], "seconds": 0.125,
        "pins": [
            {**pin, "cause": "output", "why": "kept", "nodes": ["y"], "axes": [], "units": 1_000, "alone": 1_000},
            *[pin] * 21,
        ],
    }  # fmt: skip
    console.show_analysis(found, "net.onnx")
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "│ a.w:0 │ 2,000 │ 0.12 / 0.25 / 2 │ 1.50 k │ 25.0% │" in lines
    assert "│ in a:0, b:1, c:1, ... 1 more │ │ │ │ │" in lines
    assert "│ pinned beside it: reasons 1, 4 │ │ │ │ │" in lines
    foo = "1 unit, 0 by this alone: Foo 'a' and 1 more, axes 1 and 2 of x (w:2): odd"
    assert lines[lines.index("atoms 5,000") :] == [
        "atoms 5,000",
        f"words {console.WORDS}",
        "pinned 1,021 units, for these reasons:",
        "pinned 1. 1,000 units: output 'y' (w:2): kept",
        *[f"pinned {k}. {foo}" for k in range(2, 21)],
        "pinned 2 units: 2 other reasons (--json lists all)",
        "pinned 1 set of atoms: their factorisations disagree",
        "opaque Foo: not understood, costs 1 unit",
        "why Foo: odd",
        "opaque Bar: not understood, costs 0 units; other reasons hold the same ones",
        "why Bar: odd too",
        "opaque not understood, but no unit passes, so they cost 0 units: And, Diff",
        "note a note",
        "seconds 0.12",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["net.onnx", "--graph", "groups.png"], "--graph groups.png is no kind of drawing"),
        (["net.onnx", "--graph", "groups"], "no kind of drawing"),
        (["groups.svg", "--graph", "groups.svg"], "--graph groups.svg is the file of SOURCE"),
        (["net.onnx", "--score", "beauty"], "unknown criterion 'beauty'"),
    ],
)
def test_drawings_and_scores_that_make_no_sense(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    onnx.save(layers(3, 4, 2), "net.onnx")
    (tmp_path / "groups.svg").write_text("the source")
    assert run("analyze", *arguments) == 2
    assert message in capsys.readouterr().err
    assert sorted(os.listdir(tmp_path)) == ["groups.svg", "net.onnx"]


def test_analyze_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx.save(layers(3, 4, 2), "net.onnx")
    assert run("analyze", "net.onnx", "--graph", "absent/groups.html") == 7
    assert run("analyze", "net.onnx", "--graph", "groups.HTML", "--score", "l1", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["criterion"] == "l1"
    assert "<h1>net.onnx</h1>" in (tmp_path / "groups.HTML").read_text()


def test_notes_reach_stderr_where_stdout_is_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx.save(layers(3, 2), "net.onnx")
    arguments = ["net.onnx", "--no-verify", "-p", "score,plan{ratio=0.5},eliminate"]
    assert compile_(tmp_path, *arguments, "--json") == 0
    captured = capsys.readouterr()
    notes = json.loads(captured.out)["notes"]
    assert notes[0].startswith("nothing was pruned: ")
    assert notes[-1].startswith("verify: not run")
    assert captured.err.splitlines() == [f"prunec: note: {note}" for note in notes]
    assert compile_(tmp_path, *arguments) == 0
    shown = capsys.readouterr().out.splitlines()
    assert "verify   not run" in shown
    assert [line for line in shown if line.startswith("note ")] == [f"note     {note}" for note in notes]


def test_a_reader_that_leaves_is_no_error() -> None:
    command = f"{sys.executable} -m prunec passes --quiet | head -n 1; exit ${{PIPESTATUS[0]}}"
    env = os.environ | {"CI": "true", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("kind", ["int", "bool"])
def test_an_input_of_another_type_than_the_file_declares(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    onnx.save(linear(), "m.onnx")
    (x,) = onnx.load("m.onnx").graph.input
    shape = "x".join(str(d.dim_value or 2) for d in x.type.tensor_type.shape.dim)
    assert compile_(tmp_path, "m.onnx", "--input", f"{x.name}:{shape}:{kind}") == 2
    assert f"the model declares float32, not {kind}" in capsys.readouterr().err
    assert compile_(tmp_path, "m.onnx", "--input", f"{x.name}:{shape}:float") == 0


def test_explain_says_which_options_are_required(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("explain", "rectify") == 0
    shown = capsys.readouterr().out
    assert "  params: float, required\n" in shown and "  steps: int = 10\n" in shown
