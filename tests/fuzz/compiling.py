"""The child of ``workers.py``: compiles each file whose path comes in, and answers with what became of it.

One JSON list in, one out, a line each.  Memory is limited and watched, so that a file that asks for more than it is
worth shows, instead of taking the machine down.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
import traceback
from pathlib import Path
from typing import Any

import numpy as np

import prunec
from prunec.ir.emit import onnx_run
from prunec.ir.errors import ModelError, PrunecError
from prunec.ir.frontends.onnx_file import read_model
from prunec.models import emit_onnx, feeds, read
from prunec.passes.difference import relative_error
from prunec.passes.verify import sample_inputs
from prunec.runtime.session import Session

MEMORY_BYTES = 12 << 30
GROWTH_BYTES = 5 << 30
"""What one process may map at all, and by how much one small file may make it grow: 2**30 float32 in one are legal."""


def main() -> None:
    onnx_run.LIMIT_S = 5.0
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[int(sys.argv[1]) % len(os.sched_getaffinity(0))]})
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        answers.write(json.dumps(judged(Path(json.loads(line)))) + "\n")
        answers.flush()


def judged(path: Path) -> dict[str, Any]:
    """What became of one file: ``what`` is compiled, refused, wrong or crashed."""
    before = _memory()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    found = _outcome(path)
    grown = _memory("VmHWM") - before
    if grown > GROWTH_BYTES:
        return {
            "what": "memory",
            "message": f"{grown >> 20} MiB for a file of {path.stat().st_size} bytes",
            "then": found,
        }
    return found


def _memory(kind: str = "VmRSS") -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(kind))


def _outcome(path: Path) -> dict[str, Any]:
    try:
        prunec.compile(path, ratio=0.5, measure=False)
        return _reading(path)
    except PrunecError as error:
        cause = "".join(traceback.format_exception(error)) if error.exit_code in (1, 4, 6) else ""
        return {"what": "refused", "code": error.exit_code, "message": error.message, "trace": cause}
    except Exception as error:
        return {"what": "crashed", "message": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()}


def _reading(path: Path) -> dict[str, Any]:
    """Whether the dense graph computes what ONNX Runtime computes of the file itself, where it can."""
    graph, _ = read(path)
    try:
        source = Session(read_model(path))
        given = feeds(emit_onnx(graph), graph, sample_inputs(graph, 7))
        expected = [source.run(given)[o] for o in source.outputs]
    except ModelError as error:
        return {"what": "compiled", "message": f"the runtime does not run the file itself: {error.message}"}
    dense = Session(emit_onnx(graph))
    found = [dense.run(given)[o] for o in dense.outputs]
    if not all(np.isfinite(x).all() for x in expected if x.dtype.kind == "f"):
        return {"what": "compiled", "message": "not finite"}
    by = relative_error(expected, found)
    if by > 1e-4:
        return {"what": "wrong", "message": f"the graph that was read differs from the file by {by:.2g}"}
    return {"what": "compiled", "message": "and the runtime agrees"}


if __name__ == "__main__":
    main()
