"""The last step of each level: a network compiled, proved, measured by the user's function, and written as ONNX."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ..notes import NOTHING
from .job import Job
from .step import FACTS, MODEL, Files, Step, facts_file, facts_of

if TYPE_CHECKING:
    from ..artifact import Result

DENSE_PIPELINE = "fold,verify"
"""What becomes of a network from which nothing goes any more."""

SPARSE_PIPELINE = "shrink,fold,verify"
"""What becomes of a network with zeros: what is empty goes."""


@dataclass(frozen=True)
class CompileVariant(Step):
    """Compile what the step before left (without one the source) by ``pipeline``; ``density`` is what was asked.

    ``prunes`` says whether the pipeline does, and not a step before it.
    """

    pipeline: str = DENSE_PIPELINE
    density: float = 1.0
    prunes: bool = False

    evaluates: ClassVar[bool] = True

    def run(self, job: Job, before: Mapping[str, Files]) -> Files:
        from ..api import compile
        from .network import opened

        (files,) = before.values() if before else ({},)
        model, inputs = opened(job, files)
        result = compile(model, inputs, self.pipeline, target=job.target, seed=job.seed, measure=False)
        data = _bytes(result)
        made = facts_of(files) if FACTS in files else {}
        facts = {**made, **_facts(result), "asked": self.density, "pipeline": self.pipeline}
        facts["notes"] = [*made.get("notes", ()), *self._notes(result)]
        return {MODEL: data, FACTS: facts_file({**facts, "accuracy": _accuracy(job, result, data)})}

    def _notes(self, result: Result) -> list[str]:
        """The compile's notes; that nothing was pruned says nothing where an earlier step did that."""
        return [note for note in result.report["notes"] if self.prunes or not note.startswith(NOTHING)]


def _bytes(result: Result) -> bytes:
    """The whole ONNX file."""
    from ..ir.emit.onnx_external import is_large
    from ..ir.errors import ModelError

    emitted = result.emit()
    if is_large(emitted):
        raise ModelError(
            "a variant is above 2 GB, which is no single ONNX file", hint="prunec compile writes two files"
        )
    return b"".join(bytes(piece) for piece in emitted.serialised())


def _facts(result: Result) -> dict[str, Any]:
    """What the compile says of the network."""
    report = result.report
    verified = report["verify"] or {}
    return {
        "params": int(report["params"]["compact"]),
        "macs": int(report["macs"]["compact"]),
        **_elements(result),
        "verify": {name: verified.get(name) for name in ("max_rel_err", "checked", "norm_tied")},
    }


def _elements(result: Result) -> dict[str, int]:
    """How many elements the weights have, all parameters of two axes or more, and how many are not zero."""
    import numpy as np

    from ..ir import arrays

    assert result.graph is not None
    elements = nonzero = 0
    for constant in result.graph.constants.values():
        if constant.role == "parameter" and len(constant.data.shape) > 1 and arrays.is_float(constant.data):
            data = arrays.to_numpy(constant.data)
            elements, nonzero = elements + data.size, nonzero + int(np.count_nonzero(data))
    return {"elements": elements, "nonzero": nonzero}


def _accuracy(job: Job, result: Result, data: bytes) -> float | None:
    """What the user's function says of the compact module, or of the ONNX file where the source was one."""
    if job.evaluate is None:
        return None
    from .functions import function_at
    from .surroundings import seeded

    function = function_at(job.evaluate, "--evaluate")
    seeded(job.seed)
    if result.module is not None:
        return function.measured(result.module.eval())
    with tempfile.TemporaryDirectory(prefix="prunec-evaluate-") as folder:
        path = Path(folder) / MODEL
        path.write_bytes(data)
        return function.measured(str(path))
