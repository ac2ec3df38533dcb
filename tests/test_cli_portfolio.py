"""``prunec portfolio`` and ``prunec serve``, as they are typed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import onnx
import pytest

import prunec
from prunec.cli import main
from prunec.runtime.manifest import Manifest
from prunec.runtime.session import Session

from .runtime.onnx_models import layers
from .runtime.portfolios import answers, made, models, question


def run(*arguments: object) -> int:
    return main([*map(str, arguments), "--quiet"])


def test_variants_come_and_go(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made(tmp_path / "pf")
    onnx.save(layers(16, 32, 32, 4), tmp_path / "tiny.onnx")
    assert run("portfolio", "add", tmp_path / "pf", tmp_path / "tiny.onnx", "--accuracy", 0.5) == 0
    assert "tiny" in capsys.readouterr().out
    manifest = Manifest.read(tmp_path / "pf")
    assert (
        manifest["tiny"].accuracy == 0.5 and manifest["tiny"].latency_ms and manifest["large"].memory_bytes is not None
    )
    assert run("portfolio", "rm", tmp_path / "pf", "large", "middle") == 0
    assert run("portfolio", "gc", tmp_path / "pf", "--this-machine") == 0
    assert run("portfolio", "verify", tmp_path / "pf") == 0
    assert "is whole" in capsys.readouterr().out
    assert run("portfolio", "ls", tmp_path / "pf", "--json") == 0
    assert [v["name"] for v in json.loads(capsys.readouterr().out)["variants"]] == ["small", "tiny"]
    assert run("portfolio", "plot", tmp_path / "pf", "-o", tmp_path / "p.png") == 0
    assert (tmp_path / "p.png").exists()


def test_damage_has_its_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = made(tmp_path)
    place = next(iter(manifest.pack.places.values()))
    with manifest.pack.path.open("r+b") as file:
        file.seek(place.offset)
        byte = file.read(1)
        file.seek(place.offset)
        file.write(bytes([byte[0] ^ 1]))
    assert run("portfolio", "verify", tmp_path) == 4
    assert "not those that were stored" in capsys.readouterr().out
    assert run("portfolio", "verify", tmp_path, "--json") == 4
    assert json.loads(capsys.readouterr().out)["ok"] is False


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["ls", "{}/none"], 3, "is no portfolio"),
        (["verify", "{}/none"], 3, "is no portfolio"),
        (["rm", "{}/none", "a"], 3, "is no portfolio"),
        (["rm", "{}/pf", "a"], 2, "no variant 'a'"),
        (["gc", "{}/none"], 3, "is no portfolio"),
        (["add", "{}/pf", "{}/none.onnx"], 3, "no such file"),
        (["add", "{}/none", "{}/none.onnx"], 3, "is no portfolio"),
        (["plot", "{}/pf", "-o", "{}/p.gif"], 2, "no kind of picture"),
        (["export", "{}/pf", "--variant", "large"], 2, "needs a file"),
        (["export", "{}/pf", "--variant", "none", "-o", "{}/a.onnx"], 2, "no variant 'none'"),
        (["export", "{}/pf", "--variant", "large", "-o", "{}/a.txt"], 2, "no kind of model"),
        (["build", "torchvision:resnet18", "--levels", "x", "-o", "{}/b"], 2, "--levels cannot be"),
        (["build", "torchvision:resnet18", "--levels", "2", "--method", "magic", "-o", "{}/b"], 2, "unknown method"),
        (["build", "torchvision:resnet18", "--levels", "2", "--method", "imp", "-o", "{}/b"], 2, "training function"),
        (["build", "{}/none.onnx", "--levels", "2", "-o", "{}/b"], 3, "no file"),
    ],
)
def test_what_is_wrong_is_said(
    tmp_path: Path, arguments: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    made(tmp_path / "pf")
    assert run("portfolio", *(a.format(tmp_path) for a in arguments)) == code
    assert said in capsys.readouterr().err


def test_a_variant_as_a_file(tmp_path: Path) -> None:
    made(tmp_path / "pf")
    assert run("portfolio", "export", tmp_path / "pf", "--variant", "middle", "-o", tmp_path / "m.onnx") == 0
    feeds = question()
    np.testing.assert_allclose(Session(tmp_path / "m.onnx").run(feeds)["y"], answers(feeds)["middle"], atol=1e-3)
    assert run("portfolio", "export", tmp_path / "pf", "--triton", tmp_path / "repo") == 0
    assert (tmp_path / "repo" / "pf" / "3" / "model.onnx").exists()


def test_an_onnx_file_becomes_a_portfolio(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without training nobody knows how accurate the variants are, and the table says so; again: nothing is done."""
    onnx.save(models()["large"], tmp_path / "net.onnx")
    build = (
        "portfolio",
        "build",
        tmp_path / "net.onnx",
        "--levels",
        "0.5,0.2",
        "-o",
        tmp_path / "pf",
        "--name",
        "mine",
    )
    assert run(*build) == 0
    out = capsys.readouterr().out
    assert "portfolio mine" in out and "nobody measured it" in out
    manifest = Manifest.read(tmp_path / "pf")
    assert list(manifest.variants) == ["dense", "level-1", "level-2"]
    assert manifest["dense"].params > manifest["level-1"].params > manifest["level-2"].params
    assert not (tmp_path / "pf" / ".build").exists() and (tmp_path / "pf" / "pareto.svg").exists()
    before = (tmp_path / "pf" / "manifest.json").read_bytes()
    assert run(*build) == 0
    assert (tmp_path / "pf" / "manifest.json").read_bytes() == before
    capsys.readouterr()
    assert run(*build[:4], "0.5,0.1", *build[5:]) == 2
    assert "holds another portfolio" in capsys.readouterr().err


def test_serving(tmp_path: Path) -> None:
    made(tmp_path)
    root = Path(prunec.__file__).parent
    path = os.pathsep.join([str(root.parent), *filter(None, sys.path)])
    server = subprocess.Popen(
        [sys.executable, "-m", "prunec", "serve", str(tmp_path), "--port", "0", "--slo-ms", "50"],
        env=os.environ | {"PYTHONPATH": path, "CI": ""}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert server.stdout is not None and server.stderr is not None
    try:
        url = server.stdout.readline().split()[-1]
        with urllib.request.urlopen(f"{url}/v2/health/ready") as answer:
            assert answer.status == 200
        feeds = question(batch=2)
        body = {"inputs": [{"name": "x", "shape": [2, 16], "datatype": "FP32", "data": feeds["x"].ravel().tolist()}]}
        asked = urllib.request.Request(f"{url}/v2/models/{tmp_path.name}/infer", json.dumps(body).encode())
        with urllib.request.urlopen(asked) as answer:
            found = json.load(answer)
        wanted = answers(feeds)[found["model_version"]]
        np.testing.assert_allclose(np.reshape(found["outputs"][0]["data"], (2, 4)), wanted, atol=1e-3)
    finally:
        server.send_signal(signal.SIGTERM)
        rest = server.stderr.read()
        assert server.wait(60) == 0, rest
        server.stdout.close()
        server.stderr.close()
    assert "decided" in rest


def test_serving_needs_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made(tmp_path)
    for name in [n for n in sys.modules if n.startswith("prunec.serve")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "starlette", None)
    monkeypatch.setitem(sys.modules, "starlette.applications", None)
    assert run("serve", tmp_path) == 7
    assert "pip install 'prunec[serve]'" in capsys.readouterr().err


def test_the_help_names_every_method(capsys: pytest.CaptureFixture[str]) -> None:
    from prunec import cli_portfolio
    from prunec.portfolios import METHODS

    *names, last = cli_portfolio.METHODS.replace(" or ", ", ").split(", ")
    own = [n for n, m in METHODS.items() if m.steps.__module__.startswith("prunec.portfolios.methods.")]
    assert sorted([*names, last]) == sorted(own)
    for name in own:
        assert main(["explain", name]) == 0
        assert f"method {name}, of portfolios" in capsys.readouterr().out
