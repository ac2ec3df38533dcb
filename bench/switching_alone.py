"""A measurement in a process of its own: what :mod:`bench.switching_worker` finds there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LIMIT_S = 300.0


def alone(what: str, **arguments: Any) -> Any:
    """What the function ``what`` of the worker returns for ``arguments``; raises RuntimeError where it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.switching_worker", what, json.dumps(arguments, default=str)],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True, text=True, check=False, timeout=LIMIT_S,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{what} {arguments} failed: {done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout)
