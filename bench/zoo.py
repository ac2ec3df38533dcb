"""Every model of ``zoo.csv`` compiled, without a hint: exact, smaller, how fast, beside the peer's outcomes.

Run from the root of the repository::

    python -m bench.zoo                        # all of them; what an interrupted run has is not done again
    python -m bench.zoo --frontend onnx        # the same from ONNX files, of torch's present exporter
    python -m bench.zoo --frontend onnx-script # of its older one
    python -m bench.zoo timm:levit_128 x:lstm  # these alone, anew; any of timm, torchvision, or an ONNX file

Each model has a process of its own, with limits of time and memory.  The outcome of the peer (Torch-Pruning 1.6.1, with
every hint that its examples use) is what ``zoo.csv`` says.  Results are lines of JSON in ``bench/results``.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ZOO = Path(__file__).with_name("zoo.csv")
PLANNING = ("groups", "score", "plan", "eliminate")
Row = dict[str, Any]


# One model, in its own process


def compile_one(name: str, frontend: str, ratio: float, seed: int) -> Row:
    """What compiling ``name`` gives; raises whatever goes wrong."""
    import prunec

    with _as_source(name, frontend, seed) as (source, example):
        start = time.perf_counter()
        result = prunec.compile(source, example, ratio=ratio, seed=seed, measure=False)
        seconds = time.perf_counter() - start
    report = result.report
    steps = {step["name"]: step["seconds"] for step in report["passes"]}
    return {
        "outcome": "ok" if report["units"]["removed"] else "no-op",
        "error": report["verify"]["max_rel_err"],
        "params": report["params"]["ratio"],
        "macs": report["macs"]["ratio"],
        "units": report["units"]["total"],
        "removed": report["units"]["removed"],
        "pinned": report["units"]["pinned"],
        "opaque": report["opaque_ops"],
        "notes": report["notes"],
        "planning": sum(steps.get(p, 0.0) for p in PLANNING),
        "seconds": seconds,
    }


@contextlib.contextmanager
def _as_source(name: str, frontend: str, seed: int) -> Iterator[tuple[Any, Any]]:
    """What is compiled, and its example inputs."""
    if name.endswith(".onnx"):
        yield Path(name), None
        return
    from .zoo_models import build

    model, inputs = build(name, seed)
    if frontend == "fx":
        yield model, inputs
        return
    with tempfile.TemporaryDirectory(prefix="prunec-zoo-") as folder:
        path = Path(folder, "model.onnx")
        path.write_bytes(_exported(model, inputs, frontend).SerializeToString())
        yield path, None


def _exported(model: Any, inputs: Any, frontend: str) -> Any:
    """The file of one of torch's exporters; where the present one fails, the older one's."""
    from .onnx_export import export, export_script

    if frontend == "onnx":
        with contextlib.suppress(Exception):
            return export(model, *inputs)
    return export_script(model, *inputs)


def one(name: str, frontend: str, ratio: float, seed: int) -> Row:
    """:func:`compile_one`, with what went wrong in place of the figures."""
    try:
        row = compile_one(name, frontend, ratio, seed)
    except Exception as error:
        row = {"outcome": f"fails: {type(error).__name__}", "message": str(error)[:500]}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"model": name, **row, "peak_mib": peak}


# All of them


def run(name: str, options: argparse.Namespace) -> Row:
    """One model in a process of its own."""
    command = [sys.executable, "-m", "bench.zoo", "--one", name, "--frontend", options.frontend]
    command += ["--ratio", str(options.ratio), "--seed", str(options.seed)]

    def limit() -> None:
        most = int(options.memory * 2**30)
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))

    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=options.limit, preexec_fn=limit, check=False
        )
    except subprocess.TimeoutExpired:
        return {"model": name, "outcome": f"fails: over {options.limit:g} s"}
    for line in reversed(done.stdout.splitlines()):
        with contextlib.suppress(ValueError):
            row: Row = json.loads(line)
            return row
    last = done.stderr.strip().splitlines()[-1:] or [""]
    return {"model": name, "outcome": f"fails: exit {done.returncode}", "message": last[0][:500]}


def zoo() -> dict[str, Row]:
    """The models, with the peer's outcomes."""
    with ZOO.open(newline="") as file:
        return {row["model"]: dict(row) for row in csv.DictReader(file)}


def table(rows: Sequence[Row], peers: dict[str, Row]) -> str:
    """The rows as people read them, and the sums below."""
    lines = [
        f"{'model':<36}{'outcome':<24}{'error':>8}{'params':>8}{'MACs':>7}{'units':>8}{'plan s':>8}{'all s':>7}"
        f"{'MiB':>7}  {'peer':<28}opaque"
    ]
    for row in rows:
        lines.append(_line(row, peers.get(row["model"], {})))
    good = [r for r in rows if r["outcome"] == "ok"]
    peer_good = sum(peers.get(r["model"], {}).get("peer_outcome") == "ok" for r in rows)
    lines += ["", f"{len(good)} of {len(rows)} exact and smaller; the peer, given hints: {peer_good}"]
    if good:
        planning = [r["planning"] for r in good]
        lines.append(
            f"analysis + plan + eliminate: median {statistics.median(planning):.2f} s, worst {max(planning):.2f} s"
        )
    return "\n".join(lines)


def _line(row: Row, peer: Row) -> str:
    told = peer.get("peer_outcome", "")
    if told == "ok":
        told += f" {float(peer['peer_param_ratio']):.2f} {float(peer['peer_mac_ratio']):.2f}"
    head = f"{row['model']:<36}{row['outcome'][:23]:<24}"
    if "params" not in row:
        return f"{head}{'':>53}  {told:<28}{row.get('message', '')[:120]}"
    opaque = ", ".join(f"{k}: {v}" for k, v in row["opaque"].items())
    return (
        f"{head}{row['error']:>8.0e}{row['params']:>8.3f}{row['macs']:>7.3f}{row['units']:>8}{row['planning']:>8.2f}"
        f"{row['seconds']:>7.1f}{row['peak_mib']:>7.0f}  {told:<28}{opaque}"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code: 1 where a model is not exact and smaller."""
    parser = argparse.ArgumentParser(prog="python -m bench.zoo", description=str(__doc__).partition("\n")[0])
    parser.add_argument("models", nargs="*", metavar="MODEL", help="these alone, anew (default: all, resumed)")
    parser.add_argument("--frontend", choices=("fx", "onnx", "onnx-script"), default="fx")
    parser.add_argument("--ratio", type=float, default=0.5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=float, default=600, metavar="S", help="seconds for each model")
    parser.add_argument("--memory", type=float, default=8, metavar="GIB", help="memory for each model")
    parser.add_argument("--fresh", action="store_true", help="forget what an earlier run found")
    parser.add_argument("--one", metavar="MODEL", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        print(json.dumps(one(options.one, options.frontend, options.ratio, options.seed)))
        return 0
    rows = _all(options)
    print(table(rows, zoo()))
    return int(any(row["outcome"] != "ok" for row in rows))


def _all(options: argparse.Namespace) -> list[Row]:
    file = ROOT / "bench" / "results" / f"zoo-{options.frontend}.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    wanted = [str(Path(n).resolve()) if n.endswith(".onnx") else n for n in options.models] or list(zoo())
    known: dict[str, Row] = {}
    if file.exists() and not options.fresh:
        known = {row["model"]: row for row in map(json.loads, file.read_text().splitlines())}
    for name in wanted:
        if name in known and not options.models:
            continue
        print(f"{name} …", file=sys.stderr, flush=True)
        known[name] = run(name, options)
        file.write_text("".join(json.dumps(row) + "\n" for row in known.values() if row["model"] in zoo()))
    return [known[name] for name in wanted]


if __name__ == "__main__":
    sys.exit(main())
