"""What the command prints: progress on stderr while it works, tables on stdout at the end.

Tables are for people; machines read ``--json``.  Off a terminal there are no colours, no cursor movements, and no line
is cut.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .ir.words import counted
from .wording import layer_of, opaque_lines, pin_text, places_text, quantity, spread_text

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

MEASURES = (
    ("params", "parameters"),
    ("macs", "MACs"),
    ("size_bytes", "size"),
    ("latency_ms", "latency"),
)


WORDS = (
    "an atom stands for positions of axes that live and die together; "
    "a unit is the smallest set of atoms that can be removed alone"
)
MANY = 20
"""Reasons for pins that are shown one by one."""


class Stages:
    """Progress: a spinner with the time elapsed on a terminal, one line a stage elsewhere, nothing when quiet.

    Call it with the name of the stage and a detail.  It is quiet in CI (``CI`` set in the environment) too.
    """

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet or os.environ.get("CI", "").lower() not in ("", "0", "false")
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Stages:
        if not self.quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

            columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
            console = Console(file=sys.stderr)  # the stream as it is now: libraries are silenced by replacing it
            self._bar = Progress(*columns, console=console, transient=True, redirect_stdout=False)
            self._task = self._bar.add_task("starting", total=None)
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, stage: str, detail: str = "") -> None:
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, description=f"{stage} {detail}".strip())
        elif not self.quiet:
            print(f"prunec: {stage} {detail}".rstrip(), file=sys.stderr, flush=True)


def show_report(report: Mapping[str, Any], title: str) -> None:
    """The table at the end of a compile or a benchmark: measures, units, verification, notes."""
    console = _stdout()
    _line(console, title)
    console.print(_measures_table(report))
    if rectified := (report.get("values") or {}).get("rectify"):
        _show_rectified(rectified)
    for line in _facts(report):
        _line(console, line)


def show_analysis(found: Mapping[str, Any], source: str) -> None:
    """Groups as a table; then units, what holds those that cannot go, and ops that are not understood."""
    heads = ("group, with its layers:axes", "units", f"scores ({found['criterion']})", "MACs a unit", "of MACs")
    show_table(f"groups of {source}", heads, map(_group_row, found["groups"]), right=(1, 2, 3, 4), folded=(0,))
    show_lines(_analysis_lines(found))


def _group_row(group: Mapping[str, Any]) -> tuple[str, ...]:
    scores, cost = group["scores"], group["cost"]
    layers = list(dict.fromkeys((layer_of(name), axis) for name, axis in group["parameters"]))
    lines = [group["name"], f"  in {places_text(layers)}", *([f"  {_reasons(group['pins'])}"] if group["pins"] else [])]
    return (
        "\n".join(lines), f"{group['units']:,}", "-" if scores is None else spread_text(scores),
        quantity("macs", cost["unit_macs"]), f"{cost['macs_share']:.1%}",
    )  # fmt: skip


def _reasons(pins: Sequence[int]) -> str:
    """``pinned beside it: reasons 1, 4``, by the numbers that the list of reasons has."""
    return f"pinned beside it: reason{'s' if len(pins) > 1 else ''} {', '.join(str(k + 1) for k in pins)}"


def show_table(
    title: str,
    heads: Sequence[str],
    rows: Iterable[Sequence[str]],
    right: Iterable[int] = (),
    folded: Iterable[int] = (),
) -> None:
    """A plain table on stdout; columns in ``right`` are numbers.

    The first column and numbers do not wrap; columns in ``folded`` do, where they must.
    """
    from rich.table import Table
    from rich.text import Text

    right = set(right)
    table, stiff = Table(), {0, *right} - set(folded)
    for k, head in enumerate(heads):
        table.add_column(head, justify="right" if k in right else "left", no_wrap=k in stiff, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console = _stdout()
    _line(console, title)
    console.print(table)


def show_lines(lines: Iterable[str]) -> None:
    """Lines on stdout as they are: no markup, no wrapping."""
    console = _stdout()
    for line in lines:
        _line(console, line)


def _analysis_lines(found: Mapping[str, Any]) -> Iterator[str]:
    yield "scores   least / median / greatest; of MACs: the share that goes with the whole group"
    yield f"units    {found['units']:,} can be removed"
    yield f"atoms    {found['atoms']:,}"
    yield f"words    {WORDS}"
    yield f"pinned   {counted(found['pinned'], 'unit')}{', for these reasons:' if found['pins'] else ''}"
    yield from (f"pinned   {k}. {pin_text(pin)}" for k, pin in enumerate(found["pins"][:MANY], 1))
    if rest := found["pins"][MANY:]:
        more = counted(sum(pin["units"] for pin in rest), "unit")
        yield f"pinned   {more}: {counted(len(rest), 'other reason')} (--json lists all)"
    if found["conflicts"]:
        yield f"pinned   {counted(found['conflicts'], 'set')} of atoms: their factorisations disagree"
    yield from opaque_lines(found["opaque"])
    yield from (f"note     {note}" for note in found["notes"])
    yield f"seconds  {found['seconds']:.2f}"


def _stdout() -> Console:
    from rich.console import Console

    class Stdout(Console):
        def on_broken_pipe(self) -> None:
            raise  # rich would end the program; main knows what it means that the reader has left

    return Stdout(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else _file_width())


def _file_width() -> int:
    """Columns where there is no terminal: COLUMNS when it is a number, else enough that nothing is cut."""
    columns = os.environ.get("COLUMNS", "")
    return int(columns) if columns.isdigit() and int(columns) > 0 else 120


def _line(console: Console, text: str) -> None:
    console.print(text, markup=False, soft_wrap=True)


def _measures_table(report: Mapping[str, Any]) -> Any:
    from rich.table import Table

    table = Table()
    table.add_column("")
    for head in ("dense", "compact", "ratio"):
        table.add_column(head, justify="right", no_wrap=True)
    for key, label in MEASURES:
        measure = report.get(key)
        if isinstance(measure, Mapping) and any(measure.get(k) is not None for k in ("dense", "compact")):
            ratio = measure.get("ratio")
            table.add_row(
                label, quantity(key, measure.get("dense")), quantity(key, measure.get("compact")),
                "-" if ratio is None else f"{ratio:.3f}",
            )  # fmt: skip
    return table


def _facts(report: Mapping[str, Any]) -> Iterable[str]:
    units = report.get("units") or {}
    if units:
        pinned = f", {units['pinned']:,} pinned" if units.get("pinned") else ""
        yield f"units    {units.get('removed', 0):,} of {units.get('total', 0):,} removed{pinned}"
    yield from _weights_lines(report)
    if "verify" in report:
        yield f"verify   {verify_text(report['verify'])}"
        yield from _norm_tied_lines(report["verify"] or {})
    if report.get("copies") is not None:
        yield f"copies   {counted(report['copies'], 'node')} only moving data, beyond the dense model's"
    if moved := report.get("moves"):
        yield from (f"moves    {_moves_text(name, moved[name])}" for name in ("dense", "compact"))
    costs = report.get("opaque_ops") or {}
    yield from (f"opaque   {op}: not understood, {counted(cost, 'unit')} pinned" for op, cost in costs.items() if cost)
    if any(costs.values()):
        yield "opaque   `prunec analyze` says why"
    if free := [op for op, cost in costs.items() if not cost]:
        yield f"opaque   not understood, costing nothing: {', '.join(free)}"
    for note in report.get("notes") or ():
        yield f"note     {note}"


def _show_rectified(found: Mapping[str, Any]) -> None:
    """What a cut to its density would cost each group, and what it keeps: the least sensitive first."""
    order = sorted(found, key=lambda name: math.inf if (s := found[name]["sensitivity"]) is None else s)
    rows = [_rectified_row(name, found[name]) for name in order]
    heads = ("group, least sensitive first", "units", "kept", "", "density", "flow lost", "sensitivity")
    show_table("groups at their density, each alone", heads, rows[:MANY], right=(1, 2, 4, 5, 6))
    if rest := [found[name] for name in order[MANY:]]:
        whole = sum(g["kept"] == g["units"] for g in rest)
        show_lines([f"groups   {len(rest)} more sensitive ones, {whole} of them whole (--report FILE.json has all)"])


def _rectified_row(name: str, group: Mapping[str, Any]) -> tuple[str, ...]:
    nothing = group["sensitivity"] is None  # at its density it stays as wide as it is
    return (
        name, f"{group['units']:,}", f"{group['kept']:,}", "cut" if group["kept"] < group["units"] else "whole",
        f"{group['density']:.3f}", "-" if nothing else f"{group['flow_lost']:.2%}",
        "-" if nothing else f"{group['sensitivity']:.3g}",
    )  # fmt: skip


def _weights_lines(report: Mapping[str, Any]) -> Iterator[str]:
    """What was done to the numbers of weights, and how they are held."""
    values = report.get("values") or {}
    if mask := values.get("mask"):
        yield f"mask     {mask['sparsity']:.2%} of the elements of {counted(len(mask['density']), 'weight')} are zero"
    if palette := values.get("palette"):
        worst = max(palette["relative_error"].values())
        yield f"palette  {palette['bits']:g} bits an element, relative error of a weight up to {worst:.2g}"
    if packed := report.get("packed"):
        forms = ", ".join(f"{name} {n}" for name, n in packed["forms"].items() if n)
        yield f"packed   {forms or 'nothing'}{_zipped(packed)}"
        if torch := packed["torch"]:
            yield f"         torch weights: {_arrow(torch['size_bytes'])}{_zipped(torch)}"


def _zipped(files: Mapping[str, Any]) -> str:
    return f"; gzip {_arrow(files['gzip_bytes'])}" if files["gzip_bytes"] else ""


def _arrow(sizes: Mapping[str, float]) -> str:
    """``46.7 MB -> 12 MB``"""
    return " -> ".join(quantity("size_bytes", sizes[k]) for k in ("dense", "compact"))


def _moves_text(name: str, found: Mapping[str, Any]) -> str:
    """``compact: Concat 4, Slice 2 (1.2 MB, 3.1% of the time)``"""
    nodes = ", ".join(f"{op} {n}" for op, n in found["nodes"].items()) or "none"
    return f"{name}: {nodes} ({quantity('size_bytes', found['bytes'])}, {found['share']:.1%} of the time)"


def show_moves(moved: Mapping[str, Any]) -> None:
    """Each node that only moves data, of both models."""
    fed = ", ".join(f"{name} {list(shape)}" for name, shape in moved["inputs"].items())
    for name in ("dense", "compact"):
        rows = [
            (m["op"], m["name"], quantity("size_bytes", m["bytes"]), f"{m['share']:.2%}") for m in moved[name]["each"]
        ]
        show_table(f"what {name} moves on {fed}", ("op", "node", "bytes", "of the time"), rows)


def _norm_tied_lines(verify: Mapping[str, Any]) -> Iterator[str]:
    if tied := verify.get("norm_tied"):
        yield (
            f"verify   units under norms, softmax or means over channels: {tied:,}, kept ones too; removing is not "
            "zeroing there, so the masked model's statistics are those of what survives"
        )


def verify_text(found: Mapping[str, Any] | None) -> str:
    """One line on a verification: ``ok, max relative error 2.1e-07``."""
    if not found or found.get("max_rel_err") is None:
        return "not run"
    verdict = "FAILED" if found.get("ok") is False else "ok"
    checked = found.get("checked")
    where = f" ({', '.join(map(str, checked))})" if isinstance(checked, (list, tuple)) and checked else ""
    rounding = ", which rounding explains" if found.get("rounding") else ""
    return f"{verdict}, max relative error {found['max_rel_err']:.1e}{rounding}{where}"
