"""Two ONNX files, dense and compact: is the second the masked first, and how do they compare?

A file that prunec wrote says in its metadata which plan made it.  The plan is applied to the dense file again, by the
same analysis, and the masked dense model is run beside the compact one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .ir.errors import ModelError, VerificationError
from .ir.graph import Graph
from .passes import verify as verification
from .passes.canonicalize import canonical
from .passes.difference import relative_error, run
from .passes.groups import Groups, Mode, groups_of
from .passes.plan.plan import Plan
from .proofs import onnx_difference
from .report import Sizes, batch, copies, file_bytes, pair

if TYPE_CHECKING:
    import onnx

PLAN_KEY, VALUES_KEY = "prunec.plan", "prunec.values"
_FAINT = 1e-2


def stamp(model: onnx.ModelProto, plan: Plan | None, values: Iterable[str] = ()) -> onnx.ModelProto:
    """Write the plan into the metadata of ``model`` (in place), for that of the compile which made its source.

    ``values`` are the passes that gave weights other numbers.
    """
    held = [entry for entry in model.metadata_props if entry.key not in (PLAN_KEY, VALUES_KEY)]
    del model.metadata_props[:]
    model.metadata_props.extend(held)
    text = "" if plan is None else json.dumps(plan.to_json(), sort_keys=True, separators=(",", ":"))
    for key, value in ((PLAN_KEY, text), (VALUES_KEY, ", ".join(values))):
        if value:
            entry = model.metadata_props.add()
            entry.key, entry.value = key, value
    return model


def stamped(model: onnx.ModelProto) -> Plan | None:
    """The plan in the metadata of ``model``, None where there is none."""
    for entry in model.metadata_props:
        if entry.key == PLAN_KEY:
            try:
                return Plan.from_json(json.loads(entry.value))
            except (ValueError, KeyError, TypeError, AttributeError):
                return None
    return None


def verify_pair(dense: str | Path, compact: str | Path) -> dict[str, Any]:
    """Verify a compact ONNX file against its dense one.

    The dict holds ``ok``, ``max_rel_err``, ``tolerance``, ``rounding`` (it explains an error above that), ``checked``
    (how many numbers were compared) and ``notes``.

    Raises
    ------
    ModelError
        A file cannot be read, or the compact one does not say which plan made it, or holds masked or clustered weights.
    VerificationError
        The plan does not fit the dense file.
    """
    from .ir.frontends.onnx_file import read_model

    small = read_model(str(compact))
    if changed := next((entry.value for entry in small.metadata_props if entry.key == VALUES_KEY), ""):
        raise ModelError(
            f"verifying {compact}: its weights hold other numbers than those of {dense}, by {changed}",
            hint="the compile that wrote it proved it beside the dense network with these numbers: see its report",
        )
    plan = stamped(small)
    if plan is None:
        raise ModelError(
            f"verifying {compact}: the file carries no plan, so prunec did not write it, or something changed it since",
            hint="give DENSE first and then the file that `prunec compile` wrote",
        )
    groups = _groups(dense, plan.mode)
    _check_fit(plan, groups, f"verifying {compact}: its plan is not for {dense}")
    return _compared(groups, plan, small)


def _check_fit(plan: Plan, groups: Groups, what: str) -> None:
    sizes = {g.name: len(g) for g in groups.groups}
    for name in sizes | plan.sizes:
        n = plan.sizes.get(name, -1)
        if sizes.get(name) != n or not all(0 <= k < n for k in plan.dropped[name]):
            raise VerificationError(
                f"{what} (group {name!r} differs)",
                hint="give the file that was compiled; a model compiled from torch has another dense form",
            )


def _compared(groups: Groups, plan: Plan, compact: onnx.ModelProto) -> dict[str, Any]:
    """The masked dense graph beside the compact model, on two sets of random inputs."""
    graph, tolerance = groups.analysis.graph, verification.Verify().tolerance
    alive = groups.alive(plan.units(groups))
    samples = [verification.sample_inputs(graph, seed) for seed in (0, 1)]
    differences, checked = [], 0
    for inputs in samples:
        by, numbers = onnx_difference(compact, groups, alive, inputs, "the compact model", tolerance)
        differences.append(by)
        checked += numbers
    return {
        "ok": checked > 0 and all(d.within(tolerance) for d in differences),
        "max_rel_err": max(d.error for d in differences),
        "rounding": any(d.rounding for d in differences),
        "checked": checked,
        "tolerance": tolerance,
        "notes": list(_faint(graph, samples)),
    }


def _faint(graph: Graph, samples: list[list[Any]]) -> Iterator[str]:
    """A note where other inputs hardly change an output: what comes of mistakes is then as small."""
    one, other = (run(graph, inputs) for inputs in samples)
    answers = (relative_error([a], [b]) for a, b in zip(one, other, strict=True) if a.dtype.kind == "f")
    least = min((answer for answer in answers if answer), default=1.0)  # one of 0 is a constant
    if least < _FAINT:
        yield (
            f"other inputs change an output by {least:.1g} of its size only, so mistakes show as little: a network "
            "that is not trained yet says nothing of a file that was changed since"
        )


def bench_pair(dense: str | Path, compact: str | Path, *, each: bool = False) -> dict[str, Any]:
    """Parameters, MACs, bytes and latency (measured in turns) of two ONNX files, and what they move at run time.

    With ``each`` the nodes that move data are listed one by one.
    """
    from .ir.emit.onnx_external import Emitted
    from .ir.frontends.onnx_file import read_model
    from .runtime.copies import moved
    from .runtime.profile import compare

    models = [read_model(str(path)) for path in (dense, compact)]
    costs = []
    for model in models:
        groups = _groups(model)
        alive = groups.all_alive()
        costs.append(
            (groups.cost.params(alive), groups.cost.macs(alive) / batch(groups), groups.cost.size_bytes(alive))
        )
    sizes = Sizes(Emitted(models[1]), Emitted(models[0]))
    both = moved(models[0], models[1])
    return {
        "params": pair(costs[0][0], costs[1][0]),
        "macs": pair(costs[0][1], costs[1][1]),
        "size_bytes": file_bytes(sizes, costs[0][2], costs[1][2]),
        "latency_ms": compare(models[0], models[1]).as_dict(),
        "copies": copies(sizes, both),
        "moves": both.as_dict(each=each),
    }


def _groups(model: onnx.ModelProto | str | Path, mode: Mode = "constrained") -> Groups:
    from .ir.frontends.onnx import from_onnx

    return groups_of(canonical(from_onnx(model, None)), mode)
