"""Writing down what a bench found, with the command that finds it again."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def command(module: str, arguments: Sequence[str] | None) -> str:
    """The command line that runs ``module`` with ``arguments``; None are those of this process."""
    return " ".join([f"python -m {module}", *(sys.argv[1:] if arguments is None else arguments)])


def record(result: dict[str, Any], path: Path) -> None:
    """Write ``result`` to ``path``, as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
