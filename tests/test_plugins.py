"""Plugins: what they can declare, where they are found, and what is said of those that cannot be loaded."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import prunec
from prunec import cli, plugins
from prunec.ir import dialects
from prunec.ir.frontends import fx_names, onnx_names
from prunec.ir.frontends.spelling import Spelling
from prunec.ir.modules import load_module
from prunec.ir.opset import OPS, declare
from prunec.passes.base import PASSES
from prunec.passes.score.scoring import CRITERIA

from .runtime.onnx_models import layers

PLUGIN = """
from prunec.plugin import criterion

@criterion("test_plugin")
def test_plugin(scoring):
    "Nothing matters."
    return scoring.zeros()
"""


@pytest.fixture(autouse=True)
def _as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test registers and imports is gone after it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CI", "true")
    monkeypatch.setattr(sys, "path", list(sys.path))
    tables: list[dict[str, Any]] = [OPS, PASSES, CRITERIA, fx_names.NAMES, onnx_names.NAMES]
    before = [dict(table) for table in tables]
    yield
    for table, known in zip(tables, before):
        for key in set(table) - set(known):
            del table[key]
        table.update(known)
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


def installed(folder: Path, value: str, source: str) -> None:
    """A package that is installed in ``folder`` with an entry point in the group of plugins."""
    info = folder / "acme_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{plugins.GROUP}]\nacme = {value}\n")
    (folder / "acme_plugin.py").write_text(source)
    sys.path.insert(0, str(folder))


def test_what_a_plugin_registers_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN)
    assert cli.main(["passes"]) == 0
    assert "test_plugin" not in capsys.readouterr().out
    assert cli.main(["passes", "--plugin", "mine.py"]) == 0
    assert "test_plugin" in capsys.readouterr().out
    onnx.save(layers(3, 8, 2), "net.onnx")
    assert cli.main(["analyze", "net.onnx", "--plugin", "mine", "--plugin", "mine.py", "--score", "test_plugin"]) == 0
    assert "0 / 0 / 0" in capsys.readouterr().out


def test_a_plugin_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN)
    onnx.save(layers(3, 8, 2), "net.onnx")
    assert cli.main(["compile", "net.onnx", "-o", "mine.py", "--plugin", "mine.py"]) == 2
    assert "--output mine.py is the file of --plugin mine.py" in capsys.readouterr().err
    assert (tmp_path / "mine.py").read_text() == PLUGIN


def test_an_installed_plugin_loads_by_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    installed(tmp_path, "acme_plugin", PLUGIN)
    assert cli.main(["explain", "test_plugin"]) == 0
    assert "Nothing matters." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "source", "said"),
    [
        ("absent.py", None, "there is no file absent.py"),
        ("absent_module", None, "No module named 'absent_module'"),
        ("mine.py", "1 / 0", "ZeroDivisionError: division by zero"),
        ("mine.py", "raise SystemExit(0)", "SystemExit"),
        ("mine.py", 'from prunec.plugin import declare\ndeclare("conv", "B c -> B c", "")', "'conv' is declared twice"),
        ("mine.py", 'from prunec.plugin import declare\ndeclare("odd", "B c ? -> B c", "")', "is neither a letter nor"),
        (
            "mine.py",
            'from prunec.plugin import Spelling, spell\nspell("onnx", "Gemm", Spelling("linear"))',
            "Gemm is spelled already: it is op 'linear'",
        ),
        (
            "mine.py",
            'from prunec.plugin import Spelling, spell\nspell("tf", "MatMul", Spelling("matmul"))',
            "there is no dialect 'tf', but fx and onnx",
        ),
    ],
)
def test_a_plugin_that_cannot_be_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, source: str | None, said: str
) -> None:
    if source is not None:
        (tmp_path / name).write_text(source)
    assert cli.main(["passes", "--plugin", name]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"prunec: error: --plugin {name} cannot be loaded: ")
    assert said in captured.err
    assert (captured.out, "Traceback" in captured.err) == ("", False)


def test_an_installed_plugin_that_cannot_be_loaded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    installed(tmp_path, "acme_plugin:absent", "")
    assert cli.main(["passes"]) == 7
    assert "the installed plugin 'acme' (acme_plugin:absent) cannot be loaded" in capsys.readouterr().err


def test_help_loads_no_plugin(tmp_path: Path) -> None:
    installed(tmp_path, "acme_plugin", "raise AssertionError")
    with pytest.raises(SystemExit) as left:
        cli.main(["compile", "--help"])
    assert left.value.code == 0


def test_a_plugin_may_have_the_name_of_another_module(tmp_path: Path) -> None:
    """A dataclass finds its fields by the name of its module."""
    (tmp_path / "json.py").write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\nfrom typing import ClassVar\n"
        "@dataclass(frozen=True)\nclass Two:\n    one: int\n    other: ClassVar[int] = 2\n"
    )
    module = load_module("json.py")
    assert module is load_module(str(tmp_path / "json.py")) is not sys.modules["json"]
    assert list(module.Two.__dataclass_fields__) == ["one", "other"]
    assert module.Two(1).other == 2
    with pytest.raises(TypeError):
        module.Two(1, 3)


def test_an_onnx_op_of_another_domain_can_be_declared() -> None:
    """An op that ONNX Runtime has a kernel for: a bias, then the Gaussian error unit."""
    kind, rng = "com.microsoft::BiasGelu", np.random.default_rng(0)
    onnx_names.NAMES.pop(kind, None)
    sizes = {"w": (3, 32), "bias": (32,), "v": (32, 2)}
    weights = [numpy_helper.from_array(rng.standard_normal(s, dtype=np.float32), n) for n, s in sizes.items()]
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("BiasGelu", ["h", "bias"], ["g"], domain="com.microsoft"),
        helper.make_node("MatMul", ["g", "v"], ["y"]),
    ]
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", s]) for n, s in (("x", 3), ("y", 2)))
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    graph = helper.make_graph(nodes, "g", [x], [y], weights)
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    assert prunec.analyze(model)["opaque_ops"] == {kind: 64}
    dialects.spell("onnx", kind, Spelling("test_bias_gelu", ("0", "1")))
    declare("test_bias_gelu", "... c, c -> ... c", "A bias, then a Gaussian error unit.")
    result = prunec.compile(model, ratio=0.5, measure=False, strict=True)
    assert result.report["units"] == {"total": 32, "removed": 16, "pinned": 2}
    assert result.report["verify"]["ok"]


def test_an_op_without_an_onnx_form_is_named() -> None:
    from .models import micro

    with pytest.raises(prunec.ModelError) as error:
        prunec.compile(*micro.build("custom_op"), pipeline="verify", measure=False).onnx.ByteSize()
    assert "it may know no ONNX form of prunec_tests.twice.default: a plugin can give it one" in error.value.hint
