"""A job as it is meant: the functions beside the source found, the method chosen, and all of it checked.

Before anything slow: what cannot work is said at once.  Start at :func:`resolved`.
"""

from __future__ import annotations

from dataclasses import replace

from ..ir.errors import UsageError
from .functions import EVALUATE, FIT, beside, function_at
from .job import Job
from .method import Method, find_method

_CONVENTION = (
    f"define {FIT}(model) beside the factory of the source, or give --train FILE.py:function; it trains the model in "
    "place"
)


def resolved(job: Job) -> Job:
    """``job`` with its method and functions named.

    Raises
    ------
    UsageError
        The method is not known, or does not do what is asked; a function is missing, or takes other arguments.
    """
    train, evaluate = job.train or beside(job.source, FIT), job.evaluate or beside(job.source, EVALUATE)
    chosen = find_method(job.method or ("imp" if train else "oneshot"))
    _check(job, chosen)
    if chosen.trains == "always" and train is None:
        raise UsageError(f"building a portfolio: {chosen.name} needs a training function", hint=_CONVENTION)
    if train is not None:
        _check_training(train, chosen, job)
    if evaluate is not None:
        function_at(evaluate, "--evaluate")
    return replace(job, method=chosen.name, train=train, evaluate=evaluate)


def _check(job: Job, chosen: Method) -> None:
    if job.of not in chosen.of:
        raise UsageError(
            f"building a portfolio: {chosen.name} does not prune {job.of}", hint=f"--of {' or '.join(chosen.of)}"
        )
    if job.nested and not (chosen.nests and job.of == "channels"):
        raise UsageError(
            f"building a portfolio: levels by {chosen.name} of {job.of} are not prefixes of the dense network",
            hint="--nested goes with --method oneshot and --of channels; the levels are not trained each for itself",
        )


def _check_training(train: str, chosen: Method, job: Job) -> None:
    function = function_at(train, "--train")
    for keyword in chosen.takes:
        if keyword not in function.takes:
            raise UsageError(
                f"building a portfolio: {chosen.name} goes by epochs, and {train} does not take {keyword!r}",
                hint=f"def {train.rpartition(':')[2]}(model, {keyword}): …; call {keyword}() after each epoch",
            )
    if job.source.endswith((".onnx", ".pt2")):
        raise UsageError(
            f"building a portfolio: {job.source} cannot be trained, for it holds no torch module",
            hint="give FILE.py:factory, a function that builds the module and loads its weights; or leave --train away",
        )
