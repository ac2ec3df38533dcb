"""The ``prunec`` command.

stdout is for results: a table for people, or with ``--json`` one JSON document and nothing else.  stderr is for
progress and messages.  torch, onnx and rich are imported by the commands that need them, so that help comes at once.
Start reading at :func:`main`; every command is one function ``run_…`` that gets the parsed arguments.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shlex
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .arguments import SOURCES, Commands, add_source, as_json, command, load, work
from .cli_portfolio import add_portfolio, add_serve
from .console import Stages
from .ir.errors import EnvironmentProblem, PassError, PrunecError, UsageError, VerificationError, first_line
from .ir.words import did_you_mean
from .plugins import load as load_plugins
from .version import __version__, versions

if TYPE_CHECKING:
    from .recipe import Recipe

INTERRUPTED = 130
CRASHED = PassError.exit_code
EXIT_CODES = """\
exit codes: 0 ok, 2 usage, 3 unsupported or unreadable model, 4 verification failed, 5 budget missed, 6 a pass crashed
(a reproducer is written), 7 environment
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    args, unknown = parser().parse_known_args(arguments)
    try:
        _check_known(args.command_parser, unknown)
        load_plugins(args.plugin)
        run: Callable[[argparse.Namespace], int] = args.run
        return run(args)
    except PrunecError as error:
        return _report_error(error, args, arguments)
    except KeyboardInterrupt:
        print("prunec: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader has left: nothing more to say
        return 0
    except Exception as error:
        return _report_crash(error, args, arguments)


def _check_known(command: argparse.ArgumentParser, unknown: Sequence[str]) -> None:
    """Refuse arguments that the command does not take."""
    if unknown:
        options, first = re.findall(r"--[\w-]+", command.format_usage()), unknown[0].partition("=")[0]
        hint = did_you_mean(first, options, f"`{command.prog} --help` lists the options")
        raise UsageError(
            f"unknown arguments: {' '.join(unknown)}",
            hint=f"put {first} behind the command: {command.prog} … {first}" if first in options else hint,
        )


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    top = argparse.ArgumentParser(
        prog="prunec",
        description="A compiler for pruning: a network goes in, a smaller and faster one comes out.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"prunec {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for add in (_add_compile, _add_analyze, _add_verify, _add_bench, _add_profile):
        add(commands)
    for add in (add_portfolio, add_serve, _add_passes, _add_explain):
        add(commands)
    return top


def _add_compile(commands: Commands) -> None:
    c = command(commands, "compile", run_compile, "prune a model, verify it, measure it and write it as ONNX", SOURCES)
    add_source(c)
    c.add_argument("-o", "--output", required=True, metavar="OUT.onnx", help="the file to write")
    budget = c.add_mutually_exclusive_group()
    budget.add_argument("--ratio", type=float, metavar="R", help="fraction of the prunable units to drop, in [0, 1)")
    for name, what in (("macs", "MACs"), ("params", "parameters"), ("latency", "measured latency")):
        budget.add_argument(f"--{name}", type=float, metavar="R", help=f"{what} to keep, compact/dense, in (0, 1]")
    budget.add_argument(
        "-p", "--pipeline", metavar="TEXT", help="e.g. 'score{method=l2},plan{ratio=0.5},eliminate,verify'"
    )
    budget.add_argument("--recipe", metavar="FILE", help="a recipe in TOML")
    c.add_argument("--target", default="ort-cpu", metavar="T", help="runtime and processor (default ort-cpu)")
    c.add_argument("--opset", type=int, metavar="N", help="ONNX opset of the output")
    c.add_argument("--strict", action="store_true", help="an op that is not known is an error")
    c.add_argument("--no-verify", action="store_true", help="skip the proof that compact equals masked dense")
    c.add_argument("--no-measure", action="store_true", help="skip the measurement of latency")
    c.add_argument("--report", metavar="FILE.json", help="write the report as JSON")
    c.add_argument("--save", metavar="DIR", help="write the whole artifact: graph, plan, report, provenance")
    c.add_argument("--json", action="store_true", help="print the report as JSON instead of a table")
    c.add_argument("--verify-each", action="store_true", help="verify after each pass that rewrites")
    c.add_argument("--time-passes", action="store_true", help="print the seconds of each pass on stderr")
    c.add_argument(
        "--print-after", action="append", default=[], metavar="PASS", help="print the graph after PASS, or after 'all'"
    )


def _add_analyze(commands: Commands) -> None:
    c = command(commands, "analyze", run_analyze, "show groups, units, pinned axes and ops that are not known", SOURCES)
    add_source(c)
    c.add_argument("--score", metavar="METHOD", help="describe the scores of this criterion (default lamp)")
    c.add_argument("--graph", metavar="FILE.html", help="draw the groups; FILE.svg for a picture alone")
    c.add_argument("--json", action="store_true", help="print everything as JSON")


def _add_pair(command: Any) -> None:
    command.add_argument("dense", metavar="DENSE", help="the ONNX file before")
    command.add_argument("compact", metavar="COMPACT", help="the ONNX file after")
    command.add_argument("--json", action="store_true", help="print the result as JSON")
    command.add_argument("--report", metavar="FILE.json", help="write the result as JSON")


def _add_verify(commands: Commands) -> None:
    _add_pair(command(commands, "verify", run_verify, "check that COMPACT equals DENSE with its dropped units masked"))


def _add_bench(commands: Commands) -> None:
    c = command(commands, "bench", run_bench, "measure DENSE and COMPACT in turns: latency, size, parameters, MACs")
    _add_pair(c)
    c.add_argument("--copies", action="store_true", help="list each node that only moves data at run time")


def _add_profile(commands: Commands) -> None:
    c = command(
        commands, "profile", run_profile,
        "measure what a target's cost model goes by on this machine, and keep it for later compiles",
    )  # fmt: skip
    c.add_argument("--target", default="ort-cpu", metavar="T", help="runtime and processor (default ort-cpu)")
    c.add_argument("--json", action="store_true", help="print the constants as JSON")


def _add_passes(commands: Commands) -> None:
    c = command(commands, "passes", run_passes, "list the passes and their options")
    c.add_argument("--json", action="store_true", help="print the list as JSON")
    c.add_argument("--schema", action="store_true", help="print the JSON Schema of recipes")


def _add_explain(commands: Commands) -> None:
    c = command(
        commands, "explain", run_explain,
        "explain a pass, a criterion, a target, a method, an op, an ONNX or ATen op, or recipe",
    )  # fmt: skip
    c.add_argument("name", metavar="NAME")


def run_compile(args: argparse.Namespace) -> int:
    """``prunec compile``"""
    from .files import write_model, write_whole

    budget: dict[str, Any] = checked_budget(args)
    pipeline = _pipeline(args)
    _check_target(args.target)
    _check_files(args)
    with Stages(args.quiet) as stages, work(args):
        model, inputs = load(args, stages)
        _check_data_files(args, model)
        from . import api

        result = api.compile(
            model, inputs, pipeline=pipeline, **budget, target=args.target, seed=args.seed, verify=not args.no_verify,
            opset=args.opset, strict=args.strict, verify_each=args.verify_each, print_after=tuple(args.print_after),
            progress=stages, source_name=args.source, measure=not args.no_measure,
        )  # fmt: skip
        stages("write", args.output)
        write_model(args.output, result.emit())
        if args.save:
            result.save(args.save)
        if args.report:
            write_whole(args.report, as_json(result.report))
    if args.time_passes:
        _print_times(result.report)
    _show(args, result.report, f"{args.source} -> {args.output}")
    return 0


def run_analyze(args: argparse.Namespace) -> int:
    """``prunec analyze``"""
    _check_drawing(args)
    with Stages(args.quiet) as stages, work(args):
        model, inputs = load(args, stages)
        from . import api

        stages("analyze", args.source)
        found: dict[str, Any] = api.analyze(
            model, inputs, score=args.score, graph=args.graph, seed=args.seed, source_name=args.source
        )
    if args.json:
        print(as_json(found))
    else:
        from .console import show_analysis

        show_analysis(found, args.source)
    return 0


def run_verify(args: argparse.Namespace) -> int:
    """``prunec verify``"""
    from .console import show_lines, verify_text

    _check_pair(args)
    with Stages(args.quiet) as stages, work(args):
        from . import api

        stages("verify", args.compact)
        found: dict[str, Any] = api.verify(args.dense, args.compact)
    _write_report(args, found)
    if args.json:
        print(as_json(found))
    else:
        show_lines([f"verify   {verify_text(found)}", *(f"note     {note}" for note in found.get("notes") or ())])
    return 0 if found.get("ok") else VerificationError.exit_code


def run_bench(args: argparse.Namespace) -> int:
    """``prunec bench``"""
    _check_pair(args)
    with Stages(args.quiet) as stages, work(args):
        from . import api

        stages("measure", f"{args.dense} against {args.compact}")
        found: dict[str, Any] = api.bench(args.dense, args.compact, copies=args.copies)
    _write_report(args, found)
    _show(args, found, f"{args.dense} -> {args.compact}")
    if args.copies and not args.json:
        from .console import show_moves

        show_moves(found["moves"])
    return 0


def run_profile(args: argparse.Namespace) -> int:
    """``prunec profile``"""
    from .passes.target import find_target

    target = find_target(args.target)
    with Stages(args.quiet) as stages, work(args):
        from .profiles import profile

        stages("profile", target.name)
        found = profile(target)
    if args.json:
        print(as_json(found), end="")
        return 0
    from .console import show_table

    rows = [(name, f"{value:.4g}" if isinstance(value, float) else str(value)) for name, value in found.items()]
    show_table(f"target {target.name}", ("constant", "measured"), rows)
    return 0


def run_passes(args: argparse.Namespace) -> int:
    """``prunec passes``"""
    from .console import show_lines, show_table
    from .explain import described_passes, registered
    from .recipe import Recipe

    if args.schema:
        print(as_json(Recipe.schema()))
        return 0
    found = described_passes()
    if args.json:
        print(as_json(found))
        return 0
    rows = [(p["name"], p["kind"], p["help"].split("\n")[0], ", ".join(o["name"] for o in p["options"])) for p in found]
    show_table("passes", ("name", "kind", "what it does", "options"), rows)
    show_lines([f"{what:<9}{', '.join(names)}" for what, names in registered().items()])
    return 0


def run_explain(args: argparse.Namespace) -> int:
    """``prunec explain``"""
    from .console import show_lines
    from .explain import explain

    show_lines(explain(args.name))
    return 0


def checked_budget(args: argparse.Namespace) -> dict[str, Any]:
    """The budget that was given, checked; empty when there is none."""
    if args.ratio is not None and not 0 <= args.ratio < 1:
        raise UsageError(f"--ratio {args.ratio:g} is not in [0, 1)", hint="0.5 drops half of the prunable units")
    for name in ("macs", "params", "latency"):
        value = getattr(args, name)
        if value is not None and not 0 < value <= 1:
            raise UsageError(
                f"--{name} {value:g} is not in (0, 1]", hint=f"--{name} 0.5 keeps half: it is compact/dense"
            )
    return {n: getattr(args, n) for n in ("ratio", "macs", "params", "latency") if getattr(args, n) is not None}


def _pipeline(args: argparse.Namespace) -> Recipe | None:
    """The recipe that was given, read before anything slow happens; pass names to print after are checked too."""
    from .recipe import Recipe

    recipe = Recipe.load(args.pipeline) if args.pipeline is not None else None
    if args.recipe is not None:
        recipe = Recipe.from_toml(args.recipe)
    if args.print_after:
        from .explain import known_pass

        for name in args.print_after:
            known_pass(name)
    return recipe


def _check_target(name: str) -> None:
    from .passes.target import find_target

    find_target(name)


def _check_files(args: argparse.Namespace) -> None:
    """What is written can be written, and overwrites nothing that is read."""
    from .files import check_apart, check_folder, check_outside, check_suffix, check_writable
    from .sources import source_file

    read = _given({"SOURCE": source_file(args.source), "--recipe": args.recipe})
    read |= {f"--plugin {home}": home for home in args.plugin}
    written = _written(args)
    check_apart(read, written)
    for path in _given({"--output": args.output, "--report": args.report}).values():
        check_writable(path)
    check_suffix(args.output)
    if args.save:
        check_outside(args.save, {**read, **written})
        check_folder(args.save)


def _check_drawing(args: argparse.Namespace) -> None:
    """The criterion is known, and the drawing can be written and overwrites nothing that is read."""
    from .draw.drawing import check_suffix
    from .files import check_apart, check_writable
    from .sources import data_files_of, source_file

    if args.score is not None:
        from .passes.score.scoring import find_criterion

        find_criterion(args.score)
    if args.graph is not None:
        check_suffix(args.graph)
        check_apart(_given({"SOURCE": source_file(args.source), **data_files_of(args.source)}), {"--graph": args.graph})
        check_writable(args.graph)


def _check_data_files(args: argparse.Namespace, model: Any) -> None:
    """The same for the tensors that lie beside the source, which it names once it is parsed."""
    from .files import check_apart, check_outside
    from .sources import data_files

    check_apart(data_files(model), _written(args))
    if args.save:
        check_outside(args.save, data_files(model))


def _written(args: argparse.Namespace) -> dict[str, str]:
    files = {"--output": args.output, "--report": args.report}
    return _given({**files, "the data file of --output": f"{args.output}.data"})


def _given(paths: Mapping[str, str | None]) -> dict[str, str]:
    return {argument: path for argument, path in paths.items() if path}


def _check_pair(args: argparse.Namespace) -> None:
    from .files import check_apart, check_writable
    from .sources import check_file, data_files_of

    read = {"DENSE": args.dense, "COMPACT": args.compact}
    for path in read.values():
        check_file(path)
    if args.report:
        read |= data_files_of(args.dense) | data_files_of(args.compact)
        check_apart(read, {"--report": args.report})
        check_writable(args.report)


def _write_report(args: argparse.Namespace, found: Mapping[str, Any]) -> None:
    if args.report:
        from .files import write_whole

        write_whole(args.report, as_json(found))


def _show(args: argparse.Namespace, report: Mapping[str, Any], title: str) -> None:
    from .console import show_report

    if args.json:
        print(as_json(report))
        for note in report.get("notes") or ():
            print(f"prunec: note: {note}", file=sys.stderr)
    else:
        show_report(report, title)


def _print_times(report: Mapping[str, Any]) -> None:
    for step in report.get("passes") or ():
        print(f"prunec: {step['seconds']:9.3f} s  {step['name']}", file=sys.stderr)


def _report_error(error: PrunecError, args: argparse.Namespace, arguments: Sequence[str]) -> int:
    if args.debug:
        traceback.print_exception(error)
    print(f"prunec: error: {error.message}", file=sys.stderr)
    if error.hint:
        print(f"hint: {error.hint}", file=sys.stderr)
    if isinstance(error, PassError):
        _print_reproducer(error, arguments)
    return error.exit_code


def _report_crash(error: Exception, args: argparse.Namespace, arguments: Sequence[str]) -> int:
    if args.debug:
        traceback.print_exception(error)
    print(f"prunec: error: internal error: {type(error).__name__}: {first_line(error)}", file=sys.stderr)
    _print_reproducer(error, arguments)
    return CRASHED


def _print_reproducer(error: BaseException, arguments: Sequence[str]) -> None:
    """Name the file that was written; where none can be, say so: the exit code is that of the crash."""
    try:
        print(f"reproducer: {write_reproducer(error, arguments)}", file=sys.stderr)
    except EnvironmentProblem as problem:
        print(f"reproducer: none: {problem.message}", file=sys.stderr)


def write_reproducer(error: BaseException, arguments: Sequence[str]) -> Path:
    """Write what is needed to see a crash again, and return the file: ``prunec-crash-<n>.txt``.

    It lies in the current folder, or in the one for temporary files where that cannot be written.
    """
    known = ", ".join(f"{name} {version}" for name, version in versions().items())
    text = "".join([
        f"command: {shlex.join(['prunec', *arguments])}\n", f"folder: {Path.cwd()}\n", f"versions: {known}\n",
        f"data: {getattr(error, 'data', {})}\n\n", *traceback.format_exception(error),
    ])  # fmt: skip
    for folder in (Path.cwd(), Path(tempfile.gettempdir())):
        with contextlib.suppress(OSError):
            return _write_numbered(folder, text)
    raise EnvironmentProblem("cannot write a reproducer", hint="make the current folder writable") from error


def _write_numbered(folder: Path, text: str) -> Path:
    number = 1
    while True:
        path = folder / f"prunec-crash-{number}.txt"
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
            return path
        except FileExistsError:
            number += 1


if __name__ == "__main__":
    sys.exit(main())
