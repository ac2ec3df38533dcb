"""What is finished is known again, and anything that counts makes it something else."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from prunec.ir.errors import EnvironmentProblem
from prunec.ir.modules import load_module
from prunec.portfolios.identity import identity
from prunec.portfolios.job import Job


@pytest.fixture
def job(tmp_path: Path) -> Job:
    (tmp_path / "net.py").write_text("import json\nfrom parts import layer\nfrom . import more\ndef net(): ...\n")
    (tmp_path / "parts.py").write_text("import deep.inner\n")
    (tmp_path / "more.py").write_text("")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/inner.py").write_text("")
    (tmp_path / "apart.py").write_text("")
    (tmp_path / "scores.py").write_text("")
    return Job(f"{tmp_path}/net.py:net", (0.5,), evaluate=f"{tmp_path}/scores.py:evaluate")


def common(job: Job) -> str:
    return identity(job, evaluates=False)


@pytest.mark.parametrize("file", ["net.py", "parts.py", "more.py", "deep/inner.py"])
def test_a_file_that_changed_changes_it(job: Job, tmp_path: Path, file: str) -> None:
    before = common(job)
    assert before == common(job)
    with (tmp_path / file).open("a") as written:
        written.write("# more\n")
    assert common(job) != before


def test_a_file_that_nobody_imports_does_not(job: Job, tmp_path: Path) -> None:
    before = common(job)
    (tmp_path / "apart.py").write_text("# more\n")
    assert common(job) == before


def test_another_evaluation_leaves_trainings_as_they_are(job: Job, tmp_path: Path) -> None:
    before, measured = common(job), identity(job, evaluates=True)
    (tmp_path / "scores.py").write_text("# more\n")
    assert common(job) == before and identity(job, evaluates=True) != measured


@pytest.mark.parametrize("options", [{"seed": 1}, {"threads": 2}, {"of": "elements"}, {"rewind": 5}, {"train": "a:b"}])
def test_options_count(job: Job, options: dict[str, Any]) -> None:
    assert common(replace(job, **options)) != common(job)


def test_further_levels_leave_the_others(job: Job) -> None:
    assert common(replace(job, densities=(0.5, 0.2))) == common(job)


def test_an_onnx_file_and_its_tensors_beside_it(tmp_path: Path) -> None:
    import numpy as np
    import onnx
    from onnx import helper, numpy_helper

    weight = numpy_helper.from_array(np.ones((64, 64), np.float32), "w")
    x, y = (helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, ["N", 64]) for n in "xy")
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [x], [y], [weight])
    onnx.save_model(helper.make_model(graph), tmp_path / "net.onnx", save_as_external_data=True, location="net.data")
    job = Job(str(tmp_path / "net.onnx"), (0.5,))
    before = common(job)
    data = bytearray((tmp_path / "net.data").read_bytes())
    data[0] ^= 1
    (tmp_path / "net.data").write_bytes(data)
    assert common(job) != before


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "nets_of/sub").mkdir(parents=True)
    (tmp_path / "nets_of/__init__.py").write_text("WIDTH = 8\n")
    (tmp_path / "nets_of/common.py").write_text("X = 1\n")
    (tmp_path / "nets_of/beside.py").write_text("")
    (tmp_path / "nets_of/sub/__init__.py").write_text("")
    (tmp_path / "nets_of/sub/net.py").write_text("from ..common import X\nfrom nets_of import beside\ndef net(): ...\n")
    (tmp_path / "use.py").write_text("from nets_of.sub.net import net\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    _forget()


def _forget() -> None:
    """As a new process."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "nets_of"]:
        del sys.modules[name]


@pytest.mark.parametrize("file", ["__init__.py", "common.py", "beside.py", "sub/__init__.py", "sub/net.py"])
@pytest.mark.parametrize("source", ["use.py:net", "nets_of.sub.net:net"])
def test_the_files_of_a_package_count(package: Path, source: str, file: str) -> None:
    """Those above as well, and wherever on the path it lies."""
    job = Job(f"{package}/{source}" if source.startswith("use") else source, (0.5,))
    before = common(job)
    with (package / "nets_of" / file).open("a") as written:
        written.write("# more\n")
    _forget()
    assert common(job) != before


def test_a_file_that_changed_since_it_was_loaded(tmp_path: Path) -> None:
    file = tmp_path / "loaded_net.py"
    file.write_text("def net(): ...\n")
    job = Job(f"{file}:net", (0.5,))
    common(job)
    file.write_text("def net(): ...  # more\n")
    load_module(str(file))
    before = common(job)
    file.write_text("def net(): return 1\n")
    with pytest.raises(EnvironmentProblem, match=r"loaded_net\.py changed since this process loaded it") as caught:
        common(job)
    assert "start a new one" in caught.value.hint
    file.write_text("def net(): ...  # more\n")
    assert common(job) == before
