"""``prunec portfolio`` and ``prunec serve``: several variants of one model, built, kept, switched between and served.

Every command is one function ``run_…``; what is slow to import is imported by those that need it.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .arguments import SOURCES, Commands, add_source, as_json, command, finite, work
from .console import Stages
from .ir.errors import EnvironmentProblem, UsageError, VerificationError

if TYPE_CHECKING:
    from .portfolios.job import Job
    from .runtime.manifest import Manifest
    from .runtime.store import Store

METHODS = "imp, oneshot, pdp or reconvene"
"""Of :data:`prunec.portfolios.METHODS`: help comes without importing it."""

_MB = 10**6


def add_portfolio(commands: Commands) -> None:
    """``prunec portfolio`` and its commands."""
    top = commands.add_parser(
        "portfolio", help="several variants of one model, to switch between",
        description="Several variants of one model: built, kept, measured, exported.",
    )  # fmt: skip
    below = top.add_subparsers(dest="portfolio_command", metavar="COMMAND", required=True)
    for add in (_add_build, _add_ls, _add_verify, _add_add, _add_rm, _add_gc, _add_measure, _add_plot, _add_export):
        add(below)


def _add_build(commands: Commands) -> None:
    c = command(commands, "build", run_build, "train and prune one model to several densities", SOURCES)
    add_source(c)
    c.add_argument("-o", "--output", required=True, metavar="DIR", help="the folder of the portfolio")
    c.add_argument("--levels", required=True, metavar="N|D,D,…", help="how many, or the densities themselves")
    c.add_argument("--keep", type=finite, default=0.8, metavar="R", help="what a level keeps of the last (default 0.8)")
    c.add_argument("--method", metavar="NAME", help=f"{METHODS} (default: imp, where it can train)")
    c.add_argument("--of", default="channels", metavar="WHAT", help="channels (the default) or elements")
    c.add_argument(
        "--rewind", type=finite, default=0.1, metavar="R",
        help="step of the dense training that survivors go back to; below 1: the share of its steps (default 0.1)",
    )  # fmt: skip
    c.add_argument("--train", metavar="FILE.py:NAME", help="the training function (default: `fit` beside the factory)")
    c.add_argument("--evaluate", metavar="FILE.py:NAME", help="model -> accuracy (default: `evaluate` beside it)")
    c.add_argument("--nested", action="store_true", help="each variant's channels are the first of the dense one's")
    c.add_argument("--jobs", type=int, default=1, metavar="N", help="processes (default 1)")
    c.add_argument("--on", default="processes", metavar="WHERE", help="processes, or ray: on several machines")
    c.add_argument("--threads", type=int, default=1, metavar="N", help="of torch in each process (default 1)")
    c.add_argument("--name", default="", metavar="NAME", help="what it is called where it is served (default: DIR's)")
    c.add_argument("--plot", metavar="FILE.svg", help="accuracy over latency (default: DIR/pareto.svg)")
    c.add_argument("--json", action="store_true", help="print the manifest as JSON")


def _add_folder(c: Any) -> None:
    c.add_argument("folder", metavar="DIR", help="the portfolio")


def _add_ls(commands: Commands) -> None:
    c = command(commands, "ls", run_ls, "list the variants: accuracy, latency, size, memory")
    _add_folder(c)
    c.add_argument("--json", action="store_true", help="print the manifest as JSON")


def _add_verify(commands: Commands) -> None:
    c = command(commands, "verify", run_verify, "check every byte of a portfolio")
    _add_folder(c)
    c.add_argument("--json", action="store_true", help="print what was found as JSON")


def _add_add(commands: Commands) -> None:
    c = command(commands, "add", run_add, "add a variant, or put another model in the place of one")
    _add_folder(c)
    c.add_argument("model", metavar="MODEL.onnx", help="a model with the inputs and outputs of the others")
    c.add_argument("--name", metavar="NAME", help="of the variant (default: the file's)")
    c.add_argument("--accuracy", type=finite, metavar="A", help="more is better (default: not known)")


def _add_rm(commands: Commands) -> None:
    c = command(commands, "rm", run_rm, "remove variants; `gc` then frees their bytes")
    _add_folder(c)
    c.add_argument("names", metavar="NAME", nargs="+", help="a variant")


def _add_gc(commands: Commands) -> None:
    c = command(commands, "gc", run_gc, "write the pack anew, without what no variant needs")
    _add_folder(c)
    c.add_argument("--this-machine", action="store_true", help="drop what is prepared for other kinds of machine")


def _add_measure(commands: Commands) -> None:
    c = command(commands, "measure", run_measure, "measure latency and memory on this machine")
    _add_folder(c)
    c.add_argument("--threads", type=int, metavar="N", help="of one run, as it will be served (default: the cores)")


def _add_plot(commands: Commands) -> None:
    c = command(commands, "plot", run_plot, "draw accuracy over latency")
    _add_folder(c)
    c.add_argument("-o", "--output", required=True, metavar="FILE", help=".svg or .png")


def _add_export(commands: Commands) -> None:
    c = command(commands, "export", run_export, "write what other servers and programs read")
    _add_folder(c)
    kind = c.add_mutually_exclusive_group(required=True)
    kind.add_argument("--triton", metavar="REPOSITORY", help="a model repository of Triton, one version a variant")
    kind.add_argument("--variant", metavar="NAME", help="one variant, as an ONNX file")
    c.add_argument("-o", "--output", metavar="OUT.onnx", help="the file for --variant")


def add_serve(commands: Commands) -> None:
    """``prunec serve``"""
    c = command(commands, "serve", run_serve, "serve a portfolio over HTTP (Open Inference Protocol, KServe v2)")
    _add_folder(c)
    c.add_argument("--slo-ms", type=finite, metavar="MS", help="what 95 of 100 requests may take at most")
    c.add_argument("--min-accuracy", type=finite, metavar="A", help="of the variants that may answer")
    c.add_argument("--host", default="127.0.0.1", help="address to listen at (default 127.0.0.1: this machine alone)")
    c.add_argument("--port", type=int, default=8000, help="(default 8000; 0: any that is free)")
    c.add_argument("--lazy", action="store_true", help="open variants when they are first needed")
    c.add_argument("--memory-mb", type=finite, metavar="MB", help="what open variants may take together")
    c.add_argument("--free-mb", type=finite, default=0.0, metavar="MB", help="memory to be left to others (default 0)")
    c.add_argument("--workers", type=int, default=1, metavar="N", help="requests that run at once (default 1)")
    c.add_argument("--threads", type=int, metavar="N", help="of one run (default: the cores)")
    c.add_argument("--queue", type=int, default=64, metavar="N", help="requests that may wait (default 64)")
    c.add_argument("--max-batch", type=int, default=128, metavar="N", help="examples of one request (default 128)")
    c.add_argument("--max-body-mb", type=finite, default=64.0, metavar="MB", help="of one request (default 64)")
    c.add_argument("--grace-s", type=finite, default=30.0, metavar="S", help="to end what is in flight (default 30)")


def run_build(args: argparse.Namespace) -> int:
    """``prunec portfolio build``"""
    job, folder = _job(args), Path(args.output)
    _check_plot(args.plot)
    with Stages(args.quiet) as stages, work(args):
        from .portfolios.from_source import build

        manifest = build(job, folder, jobs=args.jobs, on=args.on, name=args.name, plot=args.plot, tell=stages)
    _show(args, manifest)
    return 0


def _job(args: argparse.Namespace) -> Job:
    from .portfolios.job import Job, densities
    from .sources import InputShape

    return Job(
        args.source, densities(args.levels, args.keep), args.method, args.of, args.rewind, args.train, args.evaluate,
        tuple(InputShape.parse(text) for text in args.input), args.threads, args.seed, nested=args.nested,
        plugins=tuple(args.plugin),
    )  # fmt: skip


def _check_plot(path: str | None) -> None:
    if path is None:
        return
    from .files import check_writable
    from .portfolios.plot import check_kind

    check_kind(path)
    check_writable(path)


def run_ls(args: argparse.Namespace) -> int:
    """``prunec portfolio ls``"""
    from .runtime.manifest import Manifest

    _show(args, Manifest.read(Path(args.folder)))
    return 0


def _show(args: argparse.Namespace, manifest: Manifest) -> None:
    from .console import show_lines, show_table
    from .portfolios.table import HEADS, RIGHT, lines, rows

    if getattr(args, "json", False):
        print(as_json(manifest.as_dict()), end="")
        return
    show_table(f"portfolio {manifest.name}", HEADS, rows(manifest), right=RIGHT)
    show_lines(lines(manifest))


def run_verify(args: argparse.Namespace) -> int:
    """``prunec portfolio verify``"""
    from .console import show_lines
    from .runtime.store import damage

    found = damage(args.folder)
    if args.json:
        print(as_json({"ok": not found, "damage": found}), end="")
    else:
        show_lines(found or [f"{args.folder} is whole"])
    return VerificationError.exit_code if found else 0


def _change(
    args: argparse.Namespace, change: Callable[[Store], None], *, measures: bool = False, threads: int | None = None
) -> int:
    """Change a portfolio that is there, and show it."""
    from .runtime.manifest import Manifest

    Manifest.read(Path(args.folder))
    with Stages(args.quiet) as stages, work(args):
        from .portfolios.publish import committed
        from .runtime.store import writing

        with writing(args.folder) as store:
            change(store)
            manifest = committed(store, stages, threads) if measures else store.commit()
    _show(args, manifest)
    return 0


def run_add(args: argparse.Namespace) -> int:
    """``prunec portfolio add``"""

    def change(store: Store) -> None:
        from .ir.frontends.onnx_file import read_model
        from .runtime.store import Entry

        name = args.name or Path(args.model).stem
        store.add([Entry(name, read_model(args.model), args.accuracy, facts={"source": Path(args.model).name})])

    return _change(args, change, measures=True)


def run_rm(args: argparse.Namespace) -> int:
    """``prunec portfolio rm``"""

    def change(store: Store) -> None:
        from .runtime.pareto import marked

        for name in args.names:
            store.remove(name)
        store.revise(marked)

    return _change(args, change)


def run_gc(args: argparse.Namespace) -> int:
    """``prunec portfolio gc``"""
    return _change(args, lambda store: store.repack(others=not args.this_machine))


def run_measure(args: argparse.Namespace) -> int:
    """``prunec portfolio measure``"""
    return _change(args, lambda store: None, measures=True, threads=args.threads)


def run_plot(args: argparse.Namespace) -> int:
    """``prunec portfolio plot``"""
    from .portfolios.plot import plot
    from .runtime.manifest import Manifest

    _check_plot(args.output)
    plot(Manifest.read(Path(args.folder)), args.output)
    return 0


def run_export(args: argparse.Namespace) -> int:
    """``prunec portfolio export``"""
    if args.triton and args.output:
        raise UsageError("-o goes with --variant", hint="--triton names the repository itself")
    if args.variant and not args.output:
        raise UsageError("--variant needs a file to write", hint="add -o OUT.onnx")
    from .console import show_lines
    from .runtime.manifest import Manifest

    manifest = Manifest.read(Path(args.folder))
    if args.variant:
        from .files import check_suffix, write_model
        from .runtime.store import whole

        check_suffix(args.output)
        write_model(args.output, whole(manifest, args.variant))
        return 0
    from .portfolios.triton import export

    versions = export(manifest, args.triton)
    named = ", ".join(f"{number} = {name}" for number, name in enumerate(versions, 1))
    show_lines([f"{args.triton}: model {manifest.name}, versions {named}"])
    return 0


def run_serve(args: argparse.Namespace) -> int:
    """``prunec serve``"""
    from .runtime.policy import Objective
    from .runtime.portfolio import Portfolio
    from .runtime.service import Service
    from .runtime.switcher import Controller

    try:
        from .serve import Limits, serve
    except ImportError as error:
        raise EnvironmentProblem(
            f"serving needs the package {error.name}, which is not installed", hint="pip install 'prunec[serve]'"
        ) from error
    objective = Objective(args.slo_ms, args.min_accuracy, int(args.free_mb * _MB), workers=args.workers)
    with Stages(args.quiet) as stages, _logged(args):
        stages("open", args.folder)
        portfolio = Portfolio.open(
            args.folder, sessions="lazy" if args.lazy else "resident", threads=args.threads,
            memory_bytes=None if args.memory_mb is None else int(args.memory_mb * _MB),
        )  # fmt: skip
        looks = Controller(portfolio, objective)
        service = Service(portfolio, looks, workers=args.workers, most_waiting=args.queue)
        body = int(args.max_body_mb * _MB)
        limits = Limits(
            body_bytes=body,
            held_bytes=4 * body,
            json_bytes=min(body, Limits.json_bytes),
            batch=args.max_batch,
            grace_s=args.grace_s,
        )
        serve(
            service,
            host=args.host,
            port=args.port,
            limits=limits,
            started=lambda url: print(f"{portfolio.name} at {url}{_open_to_all(args.host)}", flush=True),
        )
        for line in looks.explain():
            stages("decided", line.strip())
    return 0


def _open_to_all(host: str) -> str:
    """What to be warned of where others than this machine can ask."""
    alone = host in ("localhost", "::1") or host.startswith("127.")
    return "" if alone else "; there is no authentication and no TLS: see who can reach it"


@contextlib.contextmanager
def _logged(args: argparse.Namespace) -> Iterator[None]:
    """What is decided while it serves goes to stderr."""
    log, shown = logging.getLogger("prunec"), logging.StreamHandler(sys.stderr)
    shown.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s"))
    level = log.level
    log.setLevel(logging.WARNING if args.quiet else logging.INFO)
    log.addHandler(shown)
    try:
        yield
    finally:
        log.removeHandler(shown)
        log.setLevel(level)
