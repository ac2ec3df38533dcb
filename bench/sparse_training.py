"""What :mod:`bench.pdp` and :mod:`bench.dkm` share: ResNet-20 trained by a method, compiled to a packed file, measured.

Every contender starts from the same weights and sees the same images in the same order, augmented alike, for the same
epochs at the same rates.  A method's masks, or clusters, are settled some epochs before the end; top-1 is taken before
that (*soft*), right after it (*hard*) and at the end (*tuned*).  One process for each core trains them, a contender at
a time on one thread; latency is measured when all are done: ONNX Runtime, one thread, batch 1, in turns with dense.
"""

from __future__ import annotations

import argparse
import copy
import gzip
import hashlib
import json
import multiprocessing
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from .cifar10 import (
    ROOT,
    Images,
    ResNet,
    Settings,
    adapted,
    cache,
    find_data,
    has_bf16,
    load,
    log,
    machine,
    published,
    top1,
    train,
)
from .onnx_export import export
from .record import command, record
from .unconstrained_accuracy import TURNS, latency

try:
    import prunec
except ImportError:  # a bare clone: the root of the repository is the package
    sys.path.insert(0, str(ROOT / ".dev"))
    import prunec

from prunec.passes.train.sparse import Sparse
from prunec.runtime.session import available_cores


@dataclass(frozen=True)
class SparseSettings(Settings):
    """Of the ``tune_epochs`` the first ``warm`` are dense; masks grow in ``rise``, and stay in the last ``settled``."""

    train_images: int = 12_800
    tune_epochs: int = 5
    warm: int = 0
    rise: int = 2
    settled: int = 2


SHORT = SparseSettings(
    adapt_epochs=1, tune_epochs=2, warm=0, rise=1, settled=1, train_images=640, test_images=500, batch=64
)

Start = Callable[[ResNet, Tensor], ResNet]


def as_it_is(model: ResNet, example: Tensor) -> ResNet:
    """A contender's start where nothing is done before training."""
    return model


@dataclass(frozen=True)
class Contender:
    """How one file comes about.

    Attributes
    ----------
    task, name
        The part of the table, and the line.
    recipe
        For ``prunec.train``, with WARM, RISE and SETTLE for the settings' epochs; None: trained like any network.
    pipeline
        For ``prunec.compile``.
    start
        What is made of a copy of the dense network first, with two images.
    trains
        Whether it is trained at all.
    """

    task: str
    name: str
    recipe: str | None = None
    pipeline: str = "pack,verify"
    start: Start = as_it_is
    trains: bool = True

    def method(self, settings: SparseSettings) -> str | None:
        """The recipe with the epochs of ``settings``."""
        if self.recipe is None:
            return None
        settle = max(1, settings.tune_epochs - settings.settled - settings.warm - 1)
        epochs = {"WARM": settings.warm, "RISE": settings.rise, "SETTLE": settle}
        return re.sub("|".join(epochs), lambda found: str(epochs[found[0]]), self.recipe)


DENSE = (Contender("dense", "as it starts", trains=False), Contender("dense", "trained as long"))
"""What the others are held against: before, and after as many epochs."""


@dataclass(frozen=True)
class Row:
    """One line of the table: top-1 in percent, ``density`` of the layers' weights, bytes, ``latency`` to dense."""

    task: str
    name: str
    recipe: str | None
    pipeline: str
    soft: float | None
    hard: float | None
    tuned: float
    density: float
    size_bytes: int
    gzip_bytes: int
    seconds: float
    latency: float = float("nan")


class Settling:
    """Steps a training object after each epoch, settles it when that is due, and keeps top-1 on both sides."""

    def __init__(self, sparse: Sparse, images: Images, settings: SparseSettings) -> None:
        self.sparse, self.images, self.settings = sparse, images, settings
        self.soft: float | None = None
        self.hard: float | None = None

    def after_epoch(self, loss: float) -> None:
        """An epoch of that mean loss has ended."""
        last = self.sparse.epoch + 1 == self.settings.tune_epochs - self.settings.settled
        if last:
            self.soft = top1(self.sparse.model, self.images, self.settings)
        self.sparse.step(loss)
        if last:
            self.sparse.harden()
            self.hard = top1(self.sparse.model, self.images, self.settings)
        self.sparse.model.train()


def density(model: nn.Module) -> float:
    """The share of the weights of linear and convolution layers that is not zero."""
    weights = [m.weight for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    return sum(int(w.count_nonzero()) for w in weights) / sum(w.numel() for w in weights)


def contend(
    contender: Contender, dense: ResNet, images: Images, test: Images, settings: SparseSettings
) -> tuple[Row, bytes]:
    """Train ``contender`` from ``dense`` and compile it: its line without latency, and the ONNX file."""
    start, example = time.perf_counter(), torch.zeros(2, 3, 32, 32)
    name, recipe = f"{contender.task}, {contender.name}", contender.method(settings)
    model = contender.start(copy.deepcopy(dense), example)
    soft = hard = None
    if recipe is not None:
        with prunec.train(model, recipe, (example,)) as sparse:
            settling = Settling(sparse, test, settings)
            train(model, images, settings.tune_epochs, settings.tune_lr, settings, name, settling.after_epoch)
        soft, hard = settling.soft, settling.hard
    elif contender.trains:
        train(model, images, settings.tune_epochs, settings.tune_lr, settings, name)
    seconds = time.perf_counter() - start
    tuned = top1(model.eval(), test, settings)
    result = prunec.compile(model, (example,), contender.pipeline, seed=settings.seed, measure=False)
    file = b"".join(result.emit().serialised())
    log(f"{name}: {tuned:.2f} %, {len(file):,} bytes")
    row = Row(contender.task, contender.name, recipe, contender.pipeline, soft, hard, tuned, density(model), len(file),
              len(gzip.compress(file)), round(seconds, 1))  # fmt: skip
    return row, file


@dataclass(frozen=True)
class Kept:
    """What one contender came to, in ``folder``, so that a run that was broken off can go on."""

    folder: Path
    contender: Contender
    settings: SparseSettings

    @property
    def _stem(self) -> str:
        return re.sub(r"\W+", "-", f"{self.contender.task} {self.contender.name}")

    def read(self) -> tuple[Row, bytes] | None:
        """The line and the ONNX file; None where it is not done yet, or was by another recipe."""
        held, file = (self.folder / (self._stem + suffix) for suffix in (".json", ".onnx"))
        if not held.exists():
            return None
        row = Row(**json.loads(held.read_text()))
        same = (row.recipe, row.pipeline) == (self.contender.method(self.settings), self.contender.pipeline)
        return (row, file.read_bytes()) if same else None

    def write(self, row: Row, file: bytes) -> None:
        """Keep them."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / f"{self._stem}.onnx").write_bytes(file)
        part = self.folder / f"{self._stem}.part"
        part.write_text(json.dumps(asdict(row)))
        part.rename(self.folder / f"{self._stem}.json")


def _contend_alone(kept: Kept, data: Path) -> tuple[Row, bytes]:
    """The same in a process of its own, on one thread, unless it is done already."""
    if (done := kept.read()) is not None:
        return done
    settings = kept.settings
    torch.set_num_threads(1)
    images, test = load(data, "train").first(settings.train_images), load(data, "test").first(settings.test_images)
    made = contend(kept.contender, adapted(data, images, settings), images, test, settings)
    kept.write(*made)
    return made


def run(
    data: Path, settings: SparseSettings, contenders: Iterable[Contender], jobs: int, folder: Path
) -> dict[str, Any]:
    """Train, compile and measure all ``contenders``, ``jobs`` at a time; the result is what the JSON file holds.

    Those that ``folder`` holds are not trained again; it is gone when all are done.
    """
    chosen = [Kept(folder, contender, settings) for contender in (*DENSE, *contenders)]
    images, test = load(data, "train").first(settings.train_images), load(data, "test").first(settings.test_images)
    dense = adapted(data, images, settings)
    accuracy = {
        "published": top1(published(data), test, settings),
        "adapted": top1(dense, test, settings),
    }
    log(f"dense: {accuracy['published']:.2f} % as published, {accuracy['adapted']:.2f} % adapted")
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        found = list(pool.map(_contend_alone, chosen, [data] * len(chosen)))
    exported = export(dense, torch.zeros(2, 3, 32, 32))
    rows = [replace(row, latency=latency(exported, onnx.load_from_string(file), TURNS)) for row, file in found]
    shutil.rmtree(folder, ignore_errors=True)
    return {
        "settings": asdict(settings),
        "machine": machine(),
        "versions": {"prunec": prunec.__version__},
        "jobs": jobs,
        "seconds": round(sum(row.seconds for row in rows), 1),
        "dense": accuracy,
        "rows": [asdict(row) for row in rows],
    }


def table(result: dict[str, Any]) -> str:
    """The result as people read it, a part for each task."""
    dense, settings = result["dense"], result["settings"]
    lines = [
        f"CIFAR-10 (JPEG), ResNet-20: {dense['published']:.2f} % as published, {dense['adapted']:.2f} % adapted",
        "",
        f"{'top-1, %':<34}{'soft':>8}{'hard':>8}{'tuned':>8}{'density':>9}{'bytes':>11}{'gzip':>11}{'latency':>9}",
    ]
    for task in dict.fromkeys(row["task"] for row in result["rows"]):
        lines.append(task)
        lines += [_line(Row(**row)) for row in result["rows"] if row["task"] == task]
    lines += ["", f"{settings['tune_epochs']} epochs each on {settings['train_images']:,} images, top-1 of"
              f" {settings['test_images']:,}, seed {settings['seed']}; they trained {result['seconds']:.0f} s, "
              f"{result['jobs']} at a time: "
              f"{result['command']}"]  # fmt: skip
    return "\n".join(lines)


def _line(row: Row) -> str:
    soft, hard = ("" if x is None else f"{x:.2f}" for x in (row.soft, row.hard))
    return (
        f"  {row.name:<32}{soft:>8}{hard:>8}{row.tuned:>8.2f}{row.density:>9.3f}"
        f"{row.size_bytes:>11,}{row.gzip_bytes:>11,}{row.latency:>9.3f}"
    )


def main(
    name: str, description: str, tasks: dict[str, tuple[Contender, ...]], arguments: Sequence[str] | None = None
) -> int:
    """The command line of ``bench.NAME``, which trains the contenders of ``tasks``; returns the exit code."""
    parser = argparse.ArgumentParser(prog=f"python -m bench.{name}", description=description)
    parser.add_argument("--short", action="store_true", help="a few images and epochs: a check, not a measurement")
    parser.add_argument("--jobs", type=int, default=available_cores(), help="how many train at a time (default: cores)")
    parser.add_argument("--tasks", nargs="+", choices=tasks, default=list(tasks), help="these parts of the table alone")
    parser.add_argument(
        "--resume", action="store_true", help="go on with the last run of these settings: what it trained"
    )
    options = parser.parse_args(arguments)
    data = find_data()
    if data is None:
        return 0
    settings = replace(SHORT if options.short else SparseSettings(), bf16=has_bf16())
    contenders = [contender for task in options.tasks for contender in tasks[task]]
    folder = cache() / f"{name}-{hashlib.sha256(repr((settings, prunec.__version__)).encode()).hexdigest()[:8]}"
    if not options.resume:
        shutil.rmtree(folder, ignore_errors=True)
    result = run(data, settings, contenders, options.jobs, folder)
    result["command"] = command(f"bench.{name}", arguments)
    if not options.short:
        record(result, ROOT / "bench" / "results" / f"{name}.json")
    print(table(result))
    return 0
