"""Reading ``.pt2`` files (``torch.export.save``) without ever unpickling objects.

torch's loader trusts the file: it falls back to full unpickling for example inputs, loads custom objects and "opaque"
constants as pickles, evaluates symbolic sizes as Python expressions and looks node targets up in the ``torch`` module.
So an archive is checked first, through the reader that torch itself uses: only the layout that ``torch.export.save``
writes for plain tensors passes, and torch is told to load weights only.  What is left out on purpose: archives with
compiled code (AOTInductor), custom objects or tensor subclasses.
"""

from __future__ import annotations

import ast
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .ir.errors import ModelError, first_line

if TYPE_CHECKING:
    from torch.export import ExportedProgram

_RECORD = re.compile(
    r"archive_format|archive_version|byteorder|version|\.format_version|\.storage_alignment|\.data/\w+"
    r"|models/[^/]+\.json|data/weights/(weight_\d+|[^/]+\.json)|data/constants/(tensor_\d+|[^/]+\.json)"
    r"|data/sample_inputs/[^/]+\.pt|extra/.+"
)
_TARGET = re.compile(r"torch\.ops\.\w+(\.\w+)+|torch\._?sym_\w+|_operator\.\w+|math\.\w+")
_SYMPY = re.compile(
    r"Symbol|Integer|Rational|Float|Add|Mul|Pow|Max|Min|Abs|Mod|floor|ceiling|And|Or|Not|Eq|Ne|Lt|Le|Gt|Ge|"
    r"Equality|Unequality|StrictLessThan|StrictGreaterThan|LessThan|GreaterThan|FloorDiv|ModularIndexing|Where|"
    r"PythonMod|CleanDiv|CeilToInt|FloorToInt|CeilDiv|LShift|RShift|PowByNatural|FloatPow|FloatTrueDiv|"
    r"IntTrueDiv|TruncToFloat|TruncToInt|IsNonOverlappingAndDenseIndicator|RoundToInt|RoundDecimal|ToFloat|"
    r"Identity"
)
_PLAIN = (
    ast.Expression, ast.Call, ast.keyword, ast.Name, ast.Load, ast.Constant, ast.BinOp, ast.UnaryOp, ast.operator,
    ast.unaryop, ast.Compare, ast.cmpop,
)  # fmt: skip
_SAVE_AGAIN = "save it again with torch.export.save, in this version of torch"


def load_program(path: str | Path) -> ExportedProgram:
    """The exported program in a ``.pt2`` file; :class:`ModelError` when it is not one or holds more than tensors."""
    import torch

    _check_archive(str(path))
    try:
        with _weights_only():
            program: ExportedProgram = torch.export.load(str(path))
    except Exception as error:
        raise ModelError(
            f"{path}: torch cannot load this exported program: {first_line(error)}", hint=_SAVE_AGAIN
        ) from error
    program._guards_code = []  # source text that `program.module()` would run
    return program


def _check_archive(path: str) -> None:
    """Raise :class:`ModelError` unless ``path`` is an archive of plain tensors and a graph."""
    from torch.export.pt2_archive import PT2ArchiveReader

    try:
        reader = PT2ArchiveReader(path)
        names = reader.get_file_names()
    except Exception as error:
        raise ModelError(
            f"{path} is no archive that torch.export.save wrote: {first_line(error)}",
            hint="write it with torch.export.save(torch.export.export(model, inputs), path); "
            "pickled checkpoints are never loaded",
        ) from error
    for name in names:
        if not _RECORD.fullmatch(name):
            _refuse(path, f"it holds {name!r}, which is no plain tensor and no graph")
    try:
        for name in names:
            if name.endswith(".json") and not name.startswith("extra/"):
                _check_json(path, name, json.loads(reader.read_bytes(name)))
    except ValueError as error:
        raise ModelError(f"{path}: {name} is not valid JSON: {first_line(error)}", hint=_SAVE_AGAIN) from error


def _check_json(path: str, record: str, tree: Any) -> None:
    for key, item in _leaves(tree):
        if key == "use_pickle" and item:
            _refuse(path, f"{record} stores a tensor as a pickle")
        if key == "expr_str" and not _is_plain(item):
            _refuse(path, f"{record} has the symbolic size {item!r}")
        if key == "target" and record.startswith("models/") and not _TARGET.fullmatch(str(item)):
            _refuse(path, f"{record} calls {item!r}, which is no operator")
        if key in ("in_spec", "out_spec") and re.search("default_factory_module|__enum__", str(item)):
            _refuse(path, f"{record} has inputs or outputs that would import a module")


def _leaves(tree: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, dict):
        for k, item in tree.items():
            yield from _leaves(item, k)
    elif isinstance(tree, list):
        for item in tree:
            yield from _leaves(item, key)
    else:
        yield key, tree


def _is_plain(text: Any) -> bool:
    """True for arithmetic over symbols and numbers: what torch prints for a symbolic size."""
    try:
        tree = ast.parse(str(text), mode="eval")
    except SyntaxError:
        return False
    return all(_is_plain_node(node) for node in ast.walk(tree))


def _is_plain_node(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and _SYMPY.fullmatch(node.func.id) is not None
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return re.fullmatch(r"\w+", node.value) is not None and "__" not in node.value
    return isinstance(node, _PLAIN) and not (isinstance(node, ast.Name) and node.id.startswith("_"))


@contextmanager
def _weights_only() -> Iterator[None]:
    """Make every ``torch.load`` inside refuse objects other than tensors, whatever its caller asks for."""
    names = ("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD")
    before = {name: os.environ.pop(name, None) for name in names}
    os.environ[names[0]] = "1"
    try:
        yield
    finally:
        del os.environ[names[0]]
        os.environ.update({name: value for name, value in before.items() if value is not None})


def _refuse(path: str, found: str) -> None:
    raise ModelError(
        f"{path} is not loaded: {found}",
        hint="pickles and code in model files are never run; export the model to ONNX, or give package.module:factory",
    )
