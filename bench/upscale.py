"""UPSCALE's masks, exported by its own code and by prunec: latency in ONNX Runtime beside the dense model's.

``python -m bench.upscale [MODEL ...]`` prints a row for each model.  Each runs in a process of its own.  The masks are
LAMP over the input channels of all layers, each layer for itself; weights are random.

naive and upscale are ml-upscale's exports; superset16 reads everything and makes multiples of 16 channels.  prunec's
forms are ``layout{copies=forbid}``, ``cheapest`` and ``naive`` (here *picks*), by constants that are measured first
(``prunec profile``); split weighs sums of layers as well.  *free* is what picks takes without its copies: no layout can
be faster.

All forms of a model run in turns with the dense one; times are medians, over those of the dense model in the same turn.
In brackets: nodes of ONNX Runtime's optimised graph that only move data, beyond those of the dense model as the same
exporter writes it, and among them changes of layout.  *to best* is prunec's default, cheapest, over the best of naive,
upscale and superset16, turn by turn.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from prunec.passes.score.scoring import Scores, Scoring, criterion

MODELS = {
    "resnet18": 0.5,
    "resnet50": 0.5,
    "mobilenet_v2": 0.5,
    "squeezenet1_1": 0.5,
    "mnasnet1_0": 0.5,
    "efficientnet_b0": 0.5,
    "densenet121": 0.3,
}
"""The share of the input channels that is masked, by torchvision's name of the model."""

LAYOUTS = {
    "superset16": "layout{copies=forbid,align=16,restore=none},eliminate",
    "forbid": "layout{copies=forbid},eliminate",
    "cheapest": "layout{copies=cheapest},eliminate",
    "split": "layout{copies=cheapest,then=split},eliminate,split",
    "picks": "layout{copies=naive},eliminate",
}
PUBLISHED = ("naive", "upscale")
PEERS = (*PUBLISHED, "superset16")
FORMS = (*PUBLISHED, *LAYOUTS)
_PIPELINE = (
    "groups{{mode=unconstrained}},score{{method=masked_inputs,normalize=none}},plan{{ratio={ratio},align=1,floor=0}},"
    "{layout},fold"
)
"""Without verify: the weights that go are zero already, so that no mask moves the output.  The outputs are compared."""

_LIMIT_S = 3600.0
_BUDGET_S, _TURNS = 30.0, 12


@criterion("masked_inputs")
def masked_inputs(scoring: Scoring) -> Scores:
    """How many weights read each unit that are not zero: nothing for those that a mask took away."""
    scores = scoring.zeros()
    for parameter in scoring.parameters():
        if len(parameter.shape) > 1 and parameter.shape[1] > 1:
            others = (0, *range(2, len(parameter.shape)))
            scoring.add(scores, parameter, 1, np.count_nonzero(parameter.data, axis=others))
    return scores


def one(name: str, among: Sequence[str], threads: int) -> dict[str, Any]:
    """The row of a model: ``ratio`` to dense of each form ``among`` these, and what went wrong with the others."""
    import torch
    from torchvision import models

    import prunec
    from prunec.runtime.copies import moved

    torch.manual_seed(0)
    model = models.get_model(name, weights=None).eval()
    x = torch.randn(1, 3, 224, 224)
    _mask(model, MODELS.get(name, 0.5))
    dense, own = _exported(model, x), prunec.compile(model, (x,), "canonicalize", verify=False, measure=False).onnx
    forms: dict[str, Callable[[], onnx.ModelProto]] = {
        "naive": lambda: _exported(_upscaled(model, x, baseline=True), x),
        "upscale": lambda: _exported(_upscaled(model, x, baseline=False), x),
        **{form: lambda layout=layout: _pruned(model, x, layout) for form, layout in LAYOUTS.items()},  # type: ignore[misc]
    }
    row: dict[str, Any] = {"model": name, "seconds": {}, "ratio": {}, "copies": {}, "reorders": {}, "error": {}}
    models_made: dict[str, onnx.ModelProto] = {}
    share: dict[str, float] = {}
    for form, make in ((form, forms[form]) for form in among):
        start = time.perf_counter()
        try:
            made = make()
        except Exception as error:  # whatever a form cannot do is a result
            row["ratio"][form] = None
            row[form] = f"{type(error).__name__}: {error}"[:200]
            continue
        row["seconds"][form], models_made[form] = time.perf_counter() - start, made
        found = moved(dense if form in PUBLISHED else own, made)
        row["copies"][form] = found.beyond
        row["reorders"][form] = sum(n for op, n in found.more.items() if op.startswith("Reorder"))
        share[form] = sum(move.share for move in found.compact)
        row["error"][form] = _error(dense, made, x.numpy())
    times = _in_turns({"dense": dense, **models_made}, x.numpy(), threads)
    row["ratio"] |= {form: _ratio(times, form, "dense") for form in models_made}
    if {"picks", "superset16"} <= times.keys():
        idle = {form: row["ratio"][form] * share[form] for form in ("picks", "superset16")}
        row["ratio"]["free"] = row["ratio"]["picks"] - idle["picks"] + idle["superset16"]
    if "cheapest" in times and (peers := [form for form in PEERS if form in times]):
        row["ratio"]["to best"] = _ratio(times, "cheapest", min(peers, key=row["ratio"].__getitem__))
    return row


def _in_turns(
    models: Mapping[str, onnx.ModelProto], x: NDArray[np.float32], threads: int
) -> dict[str, NDArray[np.float64]]:
    """Milliseconds of each model in each turn; the order changes from turn to turn."""
    from prunec.runtime.session import Session

    sessions = {name: Session(model, threads=threads) for name, model in models.items()}
    found: dict[str, list[float]] = {name: [] for name in sessions}
    rng, until = np.random.default_rng(0), time.perf_counter() + _BUDGET_S
    while time.perf_counter() < until or len(found["dense"]) < _TURNS:
        for name in rng.permutation(list(sessions)):
            start = time.perf_counter()
            sessions[name].run({sessions[name].inputs[0].name: x})
            found[name].append(1e3 * (time.perf_counter() - start))
    return {name: np.array(times[1:]) for name, times in found.items()}


def _ratio(times: Mapping[str, NDArray[np.float64]], form: str, over: str) -> float:
    return float(np.median(times[form] / times[over]))


def _mask(model: Any, amount: float) -> None:
    """Zero this share of all layers' input channels, by LAMP; ml-upscale's own code for it needs CUDA."""
    import torch
    from torch import nn

    kinds = (nn.Conv2d, nn.Linear)
    layers = [m for m in model.modules() if isinstance(m, kinds) and m.weight.shape[1] > 3]
    scores = [_lamp(m.weight.detach().transpose(0, 1).flatten(1).square().sum(1).numpy()) for m in layers]
    limit = np.quantile(np.concatenate(scores), amount)
    for layer, score in zip(layers, scores, strict=True):
        score[score.argmax()] = np.inf
        with torch.no_grad():
            layer.weight[:, torch.from_numpy(score < limit)] = 0


def _lamp(squares: NDArray[np.float32]) -> NDArray[np.float64]:
    """Each over the sum of those not smaller."""
    order = np.argsort(squares)
    found = np.empty(squares.size)
    found[order] = squares[order] / np.cumsum(squares[order][::-1].astype(np.float64))[::-1]
    return found


def _upscaled(model: Any, x: Any, *, baseline: bool) -> Any:
    import copy

    from upscale import PruningManager

    own = copy.deepcopy(model)
    PruningManager(own).compute([x]).prune(baseline=baseline)
    return own


def _pruned(model: Any, x: Any, layout: str) -> onnx.ModelProto:
    import prunec
    from prunec.models import read
    from prunec.passes.base import State
    from prunec.passes.canonicalize import canonical
    from prunec.passes.groups import groups_of
    from prunec.passes.target import find_target

    graph = canonical(read(model, (x,))[0])
    groups = groups_of(graph, "unconstrained")
    scores = masked_inputs(Scoring(groups, State(graph, graph, find_target("ort-cpu"))))[groups.prunable]
    pipeline = _PIPELINE.format(ratio=float((scores == 0).mean()), layout=layout)
    return prunec.compile(model, (x,), pipeline, verify=False, measure=False).onnx


def _exported(model: Any, x: Any) -> onnx.ModelProto:
    """By torch's older exporter, for what ml-upscale makes is no program that the newer one could trace."""
    import torch

    with TemporaryDirectory(prefix="prunec-") as folder:
        path = Path(folder, "model.onnx")
        torch.onnx.export(model.eval(), (x,), path, dynamo=False, opset_version=17, input_names=["x"])
        return onnx.load(path)


def _error(dense: onnx.ModelProto, compact: onnx.ModelProto, x: NDArray[np.float32]) -> float:
    """The largest difference of the outputs, relative to the largest of the masked model's."""
    from prunec.passes.difference import relative_error
    from prunec.runtime.session import Session

    sessions = [Session(model) for model in (dense, compact)]
    found = [[np.asarray(y) for y in s.run({s.inputs[0].name: x}).values()] for s in sessions]
    return relative_error(*found)


def table(rows: Sequence[dict[str, Any]], forms: Sequence[str]) -> str:
    """A line for each model: ratios to dense; in brackets what moves data, and changes of layout among that."""
    columns = [*forms, "free", "to best"]
    lines = [f"{'model':18}" + "".join(f"{column:>18}" for column in columns)]
    for row in rows:
        cells = [_cell(row, column) for column in columns]
        lines.append(f"{row['model']:18}" + "".join(f"{cell:>18}" for cell in cells))
    best = [row["ratio"]["to best"] for row in rows if "to best" in row["ratio"]]
    return "\n".join([*lines, f"median of cheapest to the best peer: {np.median(best):.3f}" if best else ""])


def _cell(row: dict[str, Any], form: str) -> str:
    ratio = row["ratio"].get(form)
    if ratio is None:
        return "fails" if form in FORMS else ""
    return f"{ratio:.3f}" + (f" ({row['copies'][form]}, {row['reorders'][form]})" if form in row["copies"] else "")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("models", nargs="*", metavar="MODEL", help="torchvision's names (default: all of the paper's)")
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=FORMS, help="those alone")
    parser.add_argument("--threads", type=int, default=2, help="of ONNX Runtime (default: %(default)s)")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        warnings.simplefilter("ignore")
        print(json.dumps(one(options.one, options.forms, options.threads)))
        return 0
    with TemporaryDirectory(prefix="prunec-") as cache:
        os.environ["PRUNEC_CACHE"] = cache
        print(json.dumps(_profile()), file=sys.stderr)
        rows = []
        for name in options.models or MODELS:
            rows.append(_row(name, options.forms, options.threads))
            print(json.dumps(rows[-1]), file=sys.stderr)
    print(table(rows, options.forms))
    return 0


def _profile() -> dict[str, Any]:
    """The constants of this machine, measured for the processes that follow."""
    from prunec.passes.target import find_target
    from prunec.profiles import profile

    return profile(find_target("ort-cpu"))


def _row(name: str, forms: Sequence[str], threads: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.upscale", "--one", name, "--threads", str(threads), "--forms", *forms]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT_S, check=False)
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (subprocess.TimeoutExpired, IndexError, json.JSONDecodeError) as error:
        return {"model": name, "ratio": {}, "copies": {}, "error": str(error)[:200]}
    return found


if __name__ == "__main__":
    sys.exit(main())
