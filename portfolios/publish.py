"""From what was built to a portfolio: packed, prepared and measured on this machine, needless variants marked.

Everything becomes true at once, when the manifest is written.  Start at :func:`publish`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..ir.frontends.onnx_file import read_model
from ..passes.base import Progress
from ..runtime.manifest import Manifest
from ..runtime.measured import measured
from ..runtime.pareto import marked
from ..runtime.store import Entry, Store, writing
from .built import Built


def publish(
    folder: Path,
    built: Sequence[Built],
    *,
    name: str = "",
    facts: Mapping[str, Any] | None = None,
    example: Sequence[tuple[int, ...]] = (),
    tell: Progress,
) -> Manifest:
    """The portfolio of ``built`` in ``folder``, which holds none; ``facts`` say where it comes from.

    ``example`` are shapes of inputs to measure it on.

    Raises
    ------
    EnvironmentProblem
        The folder cannot be written.
    ModelError, VerificationError
        ONNX Runtime cannot run a variant, or prepare it.
    """
    entries = [Entry(b.name, read_model(b.model), b.accuracy, b.density, b.facts) for b in built]
    with writing(folder, name) as store:
        tell("pack", f"{len(entries)} variants")
        store.add(entries, facts, example)
        return committed(store, tell)


def committed(store: Store, tell: Progress, threads: int | None = None) -> Manifest:
    """What ``store`` holds, measured on this machine with ``threads``, with needless variants marked, made true."""
    store.prepare()
    store.revise(lambda manifest: marked(measured(manifest, threads=threads, tell=lambda what: tell("measure", what))))
    return store.commit()
