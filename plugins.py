"""Loading plugins: modules of the user's own that declare ops, criteria and passes.

A program that imports such a module has loaded it.  The command loads those that ``--plugin`` names, before them those
of installed packages that have an entry point in the group ``prunec.plugins``.  What a plugin itself imports stands in
``plugin.py``.  Start at :func:`load`.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import metadata

from .ir.errors import EnvironmentProblem, UsageError, first_line
from .ir.modules import load_module

GROUP = "prunec.plugins"


def load(homes: Iterable[str]) -> None:
    """Load the plugins of installed packages, then ``homes``: module names, or files (``path/file.py``).

    Raises
    ------
    EnvironmentProblem
        An installed plugin cannot be loaded.
    UsageError
        One of ``homes`` cannot be loaded, or declares what is declared already.
    """
    for entry in sorted(metadata.entry_points(group=GROUP), key=lambda e: e.name):
        try:
            entry.load()
        except (Exception, SystemExit) as error:
            raise EnvironmentProblem(
                f"the installed plugin {entry.name!r} ({entry.value}) cannot be loaded: {_said(error)}",
                hint="upgrade or uninstall the package that it belongs to; --debug shows where it fails",
                plugin=entry.name,
            ) from error
    for home in homes:
        try:
            load_module(home)
        except (Exception, SystemExit) as error:
            raise UsageError(
                f"--plugin {home} cannot be loaded: {_said(error)}",
                hint="give package.module or path/file.py, as found from the current folder; --debug shows where it "
                "fails",
                plugin=home,
            ) from error


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {first_line(error)}"
