"""Imports go one way: ir <- passes <- runtime <- the root; torch and onnx stay in their rooms."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import networkx as nx
import pytest

import prunec

ROOT = Path(prunec.__file__).resolve().parent
ROOMS = ("ir", "passes", "runtime")
GRADIENTS = tuple(f"passes/score/{name}" for name in ("derivatives", "grasp", "ntk_sap", "prospr"))
TRAINED = ("passes/train/", "portfolios/")
TORCH = ("ir/frontends/fx", "ir/emit/fx", "ir/emit/torch_onnx", "ir/serial", "runtime/", *TRAINED, *GRADIENTS)
ONNX = ("ir/frontends/onnx", "ir/emit/onnx", "ir/emit/torch_onnx", "runtime/")


def sources() -> list[Path]:
    return sorted(
        [
            *ROOT.glob("*.py"),
            *(p for room in (*ROOMS, "draw", "loops", "portfolios", "serve") for p in (ROOT / room).rglob("*.py")),
        ]
    )


def name_of(path: Path) -> str:
    """``ir/solve.py`` -> ``ir.solve``; a package's ``__init__`` -> the package."""
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {name_of(p) for p in sources()}


def imports(path: Path, *, deferred: bool) -> Iterator[str]:
    """Absolute names that a file imports; at its top only, or in its functions too.  Type checking is left out."""
    package = [*name_of(path).split(".")] if path.name == "__init__.py" else name_of(path).split(".")[:-1]
    for node in _statements(ast.parse(path.read_text()), deferred):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names)
        elif node.level:
            base = ".".join([*package[: len(package) - node.level + 1], *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{base}.{alias.name}".strip(".")
                yield f"prunec.{inner if inner in NAMES else base}".rstrip(".")
        elif node.module:
            yield node.module


def _statements(tree: ast.AST, deferred: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        elif deferred or not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from _statements(node, deferred)


def room(name: str) -> int:
    """0 for ir, 1 for passes, 2 for runtime, 3 for the root."""
    first = name.removeprefix("prunec").strip(".").split(".")[0]
    return ROOMS.index(first) if first in ROOMS else len(ROOMS)


# what every room may use of the root: it imports nothing of prunec but `ir`
LEAVES = {"prunec.version", "prunec.files", "prunec.draw.markup"}


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_one_way(path: Path) -> None:
    here = room(name_of(path))
    for found in imports(path, deferred=True):
        if found.split(".")[0] == "prunec" and found not in LEAVES:
            assert room(found) <= here, f"{name_of(path)} imports {found}"


@pytest.mark.parametrize("leaf", sorted(LEAVES))
def test_what_every_room_may_use_uses_ir_alone(leaf: str) -> None:
    (path,) = (p for p in sources() if f"prunec.{name_of(p)}" == leaf)
    found = {name for name in imports(path, deferred=True) if name.split(".")[0] == "prunec"}
    assert all(name.startswith("prunec.ir.") for name in found), found


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_torch_and_onnx_stay_in_their_rooms(path: Path) -> None:
    place = str(path.relative_to(ROOT).with_suffix(""))
    for deferred in (False, True):
        roots = {found.split(".")[0] for found in imports(path, deferred=deferred)}
        if deferred and (room(name_of(path)) == 3 or place == "ir/arrays"):
            continue  # the root hands over to the frontends; arrays only meets what is torch's already
        assert "torch" not in roots or place.startswith(TORCH), place
        assert not roots & {"onnx", "onnx_graphsurgeon", "onnxruntime"} or place.startswith(ONNX), place


def test_there_are_no_import_cycles() -> None:
    graph: nx.DiGraph[str] = nx.DiGraph()
    for path in sources():
        for found in imports(path, deferred=False):
            inner = found.removeprefix("prunec.").removeprefix("prunec")
            if found.split(".")[0] == "prunec" and inner in NAMES and inner:
                graph.add_edge(name_of(path), inner)
    assert list(nx.simple_cycles(graph)) == []


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_imports_its_own_package(path: Path) -> None:
    """``__init__`` hands names on; nothing inside a package reads them there."""
    packages = {name_of(p) for p in sources() if p.name == "__init__.py"} - {""}
    own = ".".join(name_of(path).split(".")[:-1])
    if path.name != "__init__.py" and own in packages:
        assert f"prunec.{own}" not in set(imports(path, deferred=True))


_NO_TORCH = """
import contextlib, io, sys
import prunec
from prunec import cli
with contextlib.redirect_stdout(io.StringIO()):
    for arguments in (["--help"], ["compile", "--help"], ["--version"]):
        try:
            cli.main(arguments)
        except SystemExit as left:
            assert not left.code, left.code
heavy = {"torch", "onnx", "onnxruntime", "scipy", "networkx", "rich"} & set(sys.modules)
assert not heavy, heavy
"""


_COMPILE_ALONE = """
import sys
import torch, prunec
prunec.compile(torch.nn.Linear(4, 4), (torch.randn(2, 4),), "score,plan{ratio=0.5},eliminate", measure=False)
assert "onnxruntime" not in sys.modules
"""

_PASSES_ALONE = """
import sys
import prunec.passes, prunec.recipe, prunec.ir.ops, prunec.ir.solve
assert "torch" not in sys.modules and "onnx" not in sys.modules
"""


@pytest.mark.parametrize("script", [_NO_TORCH, _COMPILE_ALONE, _PASSES_ALONE], ids=["help", "compile", "passes"])
def test_what_is_not_needed_is_not_loaded(script: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(prunec.__file__).parent.parent)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
