"""Switching between variants: what a swap costs, what a cold start, what memory, and what it does for a changing load.

Run from the root of the repository, with ``pip install -e '.[bench]'``::

    python -m bench.switching                 # five to seven minutes on two cores
    python -m bench.switching --short         # a check that it works, not a measurement
    python -m bench.switching --only trace    # one of swap, memory, cold, trace

*swap*, *memory* and *cold* are of five variants of ResNet-50 (:mod:`bench.switching_variants`), against ONNX Runtime's
default sessions of the same models as plain files.  *trace* plays a load that changes to a smaller portfolio, whose
answers are right or wrong (:mod:`bench.switching_trace`).  Times are medians; the machine's noise is in them.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnxruntime as ort

from .cifar10 import ROOT, log, machine
from .record import command, record
from .switching_load import PHASES, scaled
from .switching_variants import Variants
from .switching_verdict import Verdict

RESULTS = ROOT / "bench" / "results" / "switching.json"
FIGURE = RESULTS.with_suffix(".svg")
PARTS = ("swap", "memory", "cold", "trace")


@dataclass(frozen=True)
class Settings:
    """What the figures depend on, apart from the machine."""

    seed: int = 0
    switches: int = 10_000
    rounds: int = 40
    repeats: int = 5
    cold: tuple[int, ...] = (0, 1, 2, 3, 4)
    measure: bool = True
    macs: tuple[float, ...] = (0.4, 0.15, 0.06, 0.03)
    epochs: int = 2
    fixed: tuple[int, ...] = (0, 1, -1)
    scale: float = 1.0


SHORT = Settings(
    switches=2000, rounds=5, repeats=3, cold=(0, -1), measure=False,
    macs=(0.15, 0.03), epochs=1, fixed=(0, -1), scale=0.3,
)  # fmt: skip


@dataclass(frozen=True)
class Part:
    """A part of the bench: what it found, as figures, as people read them, and held against what is promised."""

    found: dict[str, Any]
    table: str
    verdicts: list[Verdict]


def swap(variants: Variants, settings: Settings) -> Part:
    """Swaps between open variants."""
    from . import switching_swap as part

    found = part.swaps(variants, switches=settings.switches, rounds=settings.rounds, seed=settings.seed)
    return Part(found, part.table(found), part.verdicts(found))


def memory(variants: Variants, settings: Settings) -> Part:
    """Memory of variants that are all open."""
    from . import switching_memory as part

    found = part.memories(variants)
    return Part(found, part.table(found), part.verdicts(found))


def cold(variants: Variants, settings: Settings) -> Part:
    """Creation and first runs."""
    from prunec.runtime.session import available_cores

    from . import switching_cold as part

    names = [variants.names[k] for k in settings.cold]
    found = part.colds(variants, names, repeats=settings.repeats, threads=available_cores())
    return Part(found, part.table(found), part.verdicts(found))


def trace(folder: Path, settings: Settings) -> Part:
    """A load that changes."""
    from . import switching_digits as digits
    from . import switching_trace as part

    held = digits.images(settings.seed)
    variants = digits.portfolio(folder, held, settings.seed, epochs=settings.epochs, macs=settings.macs)
    asked = digits.asked(variants, held, settings.seed)
    fixed = tuple(dict.fromkeys(variants.names[k] for k in settings.fixed if k < len(variants.names)))
    found = part.traces(variants, asked, fixed, seed=settings.seed, phases=scaled(PHASES, settings.scale))
    return Part(found, part.table(found), part.verdicts(found))


OF_RESNET50: Mapping[str, Callable[[Variants, Settings], Part]] = {"swap": swap, "memory": memory, "cold": cold}


def measured(parts: Sequence[str], settings: Settings) -> dict[str, Part]:
    """The parts, each told of on stdout as soon as it is there."""
    from .switching_variants import resnet50

    done: dict[str, Part] = {}
    with tempfile.TemporaryDirectory(prefix="prunec-switching-") as folder:
        variants = None
        for name in parts:
            log(f"{name} …")
            if name == "trace":
                done[name] = trace(Path(folder, "digits"), settings)
            else:
                variants = variants or resnet50(Path(folder, "resnet50"), settings.seed, measure=settings.measure)
                done[name] = OF_RESNET50[name](variants, settings)
            print(done[name].table, end="\n\n", flush=True)
    return done


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.switching", description=str(__doc__).partition("\n")[0])
    parser.add_argument("--short", action="store_true", help="a check that it works, in two minutes")
    parser.add_argument("--seed", type=int, default=0, help="of weights, arrivals and requests (default 0)")
    parser.add_argument(
        "--plot",
        type=Path,
        metavar="FILE.svg",
        help="draw the trace here, not in bench/results or (--short) the folder for temporary files",
    )
    parser.add_argument("--only", choices=PARTS, help="one part")
    options = parser.parse_args(arguments)
    settings = Settings(**{**asdict(SHORT if options.short else Settings()), "seed": options.seed})
    parts = (options.only,) if options.only else PARTS
    start = time.perf_counter()
    done = measured(parts, settings)
    verdicts = [v for part in done.values() for v in part.verdicts]
    print(*verdicts, sep="\n")
    seconds, line = time.perf_counter() - start, command("bench.switching", arguments)
    print(f"{seconds:.0f} s: {line}")
    whole = not options.short and not options.only
    if whole:
        result = {
            "command": line,
            "machine": {**machine(), "onnxruntime": ort.__version__},
            "settings": asdict(settings),
            "seconds": seconds,
        }
        record(
            {
                **result,
                "promised": [{**asdict(v), "holds": v.holds} for v in verdicts],
                **{name: part.found for name, part in done.items()},
            },
            RESULTS,
        )
    if "trace" in done:
        from .switching_plot import draw

        path = options.plot or (FIGURE if whole else Path(tempfile.gettempdir(), FIGURE.name))
        draw(done["trace"].found, path)
        print(f"plot: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
