"""A portfolio from a source: its levels are built, then packed, measured and published; what is done is not done again.

What is finished of a build that broke off lies in ``.build`` in the folder, until the portfolio stands.
Start at :func:`build`.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from ..ir.errors import EnvironmentProblem, UsageError
from ..passes.base import Progress
from ..runtime.manifest import MANIFEST, UNFINISHED, Manifest
from .executor import On, executor_for
from .identity import identity
from .job import Job
from .levels import build_levels
from .plot import plot as draw
from .publish import publish
from .resolve import resolved


def build(
    job: Job,
    folder: str | Path,
    *,
    jobs: int = 1,
    on: On = "processes",
    name: str = "",
    plot: str | Path | None = None,
    tell: Progress = lambda stage, detail: None,
) -> Manifest:
    """The portfolio of ``job`` in ``folder``; where it stands already nothing is done.

    Parameters
    ----------
    jobs, on
        Processes that build at the same time, on this machine or (``ray``) on several.
    name
        What the portfolio is called where it is served; the folder's name, if empty.
    plot
        Where accuracy over latency is drawn; None: ``pareto.svg`` in the folder, where matplotlib is installed.

    Raises
    ------
    UsageError
        The folder holds another portfolio, or an option makes no sense.
    ModelError, VerificationError, PassError, EnvironmentProblem
        A step failed; what is finished is kept, and a second call goes on from there.
    """
    path, job = Path(folder), resolved(job)
    known = f"{identity(job, evaluates=True)} {list(job.densities)}"
    facts = {"job": known, "source": job.source, "method": job.method, "of": job.of}
    standing = Manifest.read(path) if (path / MANIFEST).exists() else None
    if standing is not None and standing.facts.get("job") != facts["job"]:
        source = standing.facts.get("source", standing.name)
        raise UsageError(
            f"{folder} holds another portfolio: of {source}, with other options or other files",
            hint="give another folder, or remove this one",
        )
    if standing is None:
        built = build_levels(job, path / UNFINISHED, executor_for(on, jobs, job.threads), tell)
        example = [tuple(item.shape) for item in job.inputs]
        standing = publish(path, built, name=name, facts=facts, example=example, tell=tell)
    else:
        tell("build", f"{folder} stands already")
    shutil.rmtree(path / UNFINISHED, ignore_errors=True)
    _drawn(standing, path, plot, tell)
    return standing


def _drawn(manifest: Manifest, folder: Path, plot: str | Path | None, tell: Progress) -> None:
    """The plot; without matplotlib that is only an error where the plot was asked for."""
    try:
        draw(manifest, plot or folder / "pareto.svg")
    except EnvironmentProblem as error:
        if plot is not None:
            raise
        tell("plot", f"none: {error.message} ({error.hint})")
