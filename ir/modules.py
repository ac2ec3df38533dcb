"""Importing a user's own module: by its name, as found from the current folder, or from a file.

Start at :func:`load_module`.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType


def load_module(home: str) -> ModuleType:
    """The module called ``home``, or the one in the file ``home`` (``path/file.py``), which is run.

    Raises
    ------
    ImportError
        There is no such module or file.
    Exception
        Whatever the module itself raises.
    """
    return _from_file(home) if home.endswith(".py") else _by_name(home)


def _by_name(name: str) -> ModuleType:
    _look_in(Path.cwd())  # an installed command does not look there
    return importlib.import_module(name)


def _from_file(text: str) -> ModuleType:
    """The module in a file, run once: what it registers must not be registered twice."""
    path = Path(text).resolve()
    name = _free_name(path)
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ImportError(f"there is no file {text}", path=text)
    _look_in(path.parent)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _free_name(path: Path) -> str:
    """The file's own name, unless another module has it: dataclasses look their module up by its name."""
    known = sys.modules.get(path.stem)
    mine = known is None or getattr(known, "__file__", None) == str(path)
    return path.stem if mine else f"{path.stem}@{path}"


def _look_in(folder: Path) -> None:
    if str(folder) not in sys.path and not (folder == Path.cwd() and "" in sys.path):
        sys.path.insert(0, str(folder))
