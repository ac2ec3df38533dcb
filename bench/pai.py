"""Pruning at initialisation on CIFAR-10: top-1 of networks whose weights were chosen before they were trained.

Run from the root of the repository::

    python -m bench.pai                      # about an hour on two cores with bfloat16
    python -m bench.pai --short              # a check that it works, not a measurement: a narrow VGG, a few images
    python -m bench.pai --all                # every criterion and the checks on VGG-16 too: twice as long
    python -m bench.pai --synflow-seconds    # only how long SynFlow takes, in 100 steps; this needs no images

Three tables.  *Criteria*: networks with He's initialisation keep 10 and 2 % of the weights of their layers, by each
criterion, and are trained with the mask fixed.  *Checks*: what is left of that if the mask is shuffled in each layer,
the weights are drawn anew or the scores inverted (:mod:`.pai_checks`).  *Files*: Reconvene (``recipes/reconvene.toml``)
and PreCrop, which make a compact network, against SynFlow's mask of as many weights and against dense: the trained
networks as ONNX, packed, and their latency in ONNX Runtime, one thread, batch 1, in turns with dense.

Within a network, epochs, images, their order, augmentation, schedule and initial weights are the same for all; only
*after training* is trained twice.  One seed and a few hundred steps: differences of a point or two say nothing.

The data are in ``$PRUNEC_DATA`` or ``../shared/data`` and are no part of the project; without them nothing is done.
"""

from __future__ import annotations

import argparse
import copy
import gzip
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import onnx
import torch
from torch import Tensor, nn

from .cifar10 import ROOT, Images, ResNet, Settings, cache, find_data, has_bf16, load, log, machine, normalised, top1
from .cifar10 import train as fit
from .cifar_models import VGG
from .pai_checks import drawn, equally_dense, shuffled
from .pai_masks import FEW, METHODS, Census, Found, Method, Samples, found, held, inverted, pass_seconds
from .record import command, record
from .unconstrained_accuracy import latency

try:
    import prunec
except ImportError:  # a bare clone: the root of the repository is the package
    sys.path.insert(0, str(ROOT / ".dev"))
    import prunec

from prunec.artifact import Result
from prunec.recipe import Recipe

RESULTS = ROOT / "bench" / "results" / "pai.json"
RECONVENE = ROOT / "recipes" / "reconvene.toml"
BATCHES = 4
"""How many batches of training images criteria look at."""
TURNS = 3
"""Measurements of each latency."""


@dataclass(frozen=True)
class Plan:
    """What is run on one network: ``methods`` at all ``sparsities``.

    ``checked``: methods that are checked, at the last sparsity.
    ``files``: Reconvene and PreCrop too, at the first sparsity, of which SynFlow has to be among the methods; they cut
    to multiples of ``align`` channels, which a narrow network has too few for blocks.
    ``most_steps``: methods of more steps take so many.
    """

    make: Callable[[], nn.Module]
    settings: Settings
    methods: Sequence[str] = FEW
    sparsities: tuple[float, ...] = (0.9, 0.98)
    checked: Sequence[str] = ()
    files: bool = True
    align: int | Literal["auto"] = "auto"
    most_steps: int = 100


CHECKED = ("SNIP", "SynFlow")
COMPACT = {"Reconvene (ours)": "reconvene", "PreCrop": "precrop"}
_RESNET = Settings(adapt_epochs=2, adapt_lr=0.1, batch=64, train_images=12_800)
_VGG = replace(_RESNET, test_images=2_500)
_TINY = replace(_RESNET, adapt_epochs=1, adapt_lr=0.02, batch=32, train_images=640, test_images=500)
FULL = {"resnet20": Plan(ResNet, _RESNET, tuple(METHODS), checked=CHECKED, align=1), "vgg16": Plan(VGG, _VGG)}
ALL = FULL | {"vgg16": replace(FULL["vgg16"], methods=tuple(METHODS), checked=CHECKED)}
SHORT = {
    "resnet20": Plan(ResNet, _TINY, files=False, most_steps=5),
    "vgg16": Plan(lambda: VGG(width=16), _TINY, checked=CHECKED, most_steps=5),
}


@dataclass(frozen=True)
class Row:
    """One network trained with a mask: what was asked, what stays (:class:`.pai_masks.Census`), top-1 in percent."""

    name: str
    asked: float
    left: float
    sparsest: float
    empty: int
    last: int
    seconds: float
    top1: float


@dataclass(frozen=True)
class File:
    """One trained network as a file: parameters that are not zero and latency to dense, seconds to prune, top-1."""

    name: str
    params: float
    size_bytes: int
    gzip_bytes: int
    latency: float
    seconds: float
    top1: float


@dataclass(frozen=True)
class Trained:
    """A network after training, with the mask that it was held to."""

    row: Row
    mask: Found
    module: nn.Module


Grid = dict[tuple[str, float], Trained]
"""What was trained, by criterion and sparsity; ``dense`` at 0."""


@dataclass(frozen=True)
class Bed:
    """A network not yet trained, the images that it is trained and tested on, and those that criteria look at."""

    name: str
    model: nn.Module
    settings: Settings
    images: Images
    tested: Images
    samples: Samples
    most_steps: int

    @classmethod
    def of(cls, name: str, plan: Plan, data: Path) -> Bed:
        """The network of ``plan``, with weights drawn by the seed."""
        settings = replace(plan.settings, bf16=has_bf16())
        images = load(data, "train").first(settings.train_images)
        parts = [slice(k * settings.batch, (k + 1) * settings.batch) for k in range(BATCHES)]
        inputs = [normalised(images.pixels[part], settings).contiguous() for part in parts]
        samples = Samples(inputs, [images.labels[part] for part in parts], settings.seed)
        model = drawn(plan.make(), settings.seed)
        tested = load(data, "test").first(settings.test_images)
        return cls(name, model, settings, images, tested, samples, plan.most_steps)

    @property
    def example(self) -> tuple[Tensor]:
        """Two images, as the network takes them."""
        return (self.samples.inputs[0][:2],)

    def trained(self, name: str, asked: float, mask: Found, start: nn.Module | None = None) -> Trained:
        """A copy of the network, or of ``start``, after training with ``mask`` fixed."""
        module = copy.deepcopy(self.model if start is None else start)
        with held(module, mask.masks):
            self.fit(module, name)
        census, accuracy = Census.of(mask.masks), top1(module, self.tested, self.settings)
        row = Row(name, asked, **asdict(census), seconds=mask.seconds, top1=accuracy)
        log(f"{self.name}: {_line(row)}")
        return Trained(row, mask, module)

    def fit(self, module: nn.Module, name: str) -> None:
        """Train ``module`` in place."""
        epochs, lr = self.settings.adapt_epochs, self.settings.adapt_lr
        fit(module, self.images, epochs, lr, self.settings, f"{self.name}, {name}")

    def found(self, method: str, sparsity: float, model: nn.Module | None = None) -> Found:
        """The mask that ``method`` finds, for the network or for ``model``."""
        return found(self.model if model is None else model, self._method(method), sparsity, self.samples)

    def found_inverted(self, method: str, sparsity: float) -> Found:
        """The mask of what ``method`` ranks lowest."""
        with inverted(self._method(method)) as opposite:
            return found(self.model, opposite, sparsity, self.samples)

    def _method(self, name: str) -> Method:
        method = METHODS[name]
        return replace(method, steps=min(method.steps, self.most_steps))


def criteria(bed: Bed, plan: Plan) -> Grid:
    """The network trained whole, and with the mask of each criterion at each sparsity."""
    grid = {("dense", 0.0): bed.trained("dense", 0.0, Found())}
    for sparsity in plan.sparsities:
        for method in plan.methods:
            grid[method, sparsity] = bed.trained(method, sparsity, bed.found(method, sparsity))
    return grid


def checks(bed: Bed, plan: Plan, grid: Grid) -> Iterator[Row]:
    """Each mask that is checked, and what comes of it; the ceiling last."""
    sparsity, seed = plan.sparsities[-1], bed.settings.seed + 1
    for method in plan.checked:
        mask = grid[method, sparsity].mask
        yield grid[method, sparsity].row
        shuffle, random = (replace(mask, masks=change(mask.masks, seed)) for change in (shuffled, equally_dense))
        yield bed.trained(f"{method}, shuffled", sparsity, shuffle).row
        yield bed.trained(f"{method}, random as dense", sparsity, random).row
        yield bed.trained(f"{method}, weights anew", sparsity, mask, drawn(bed.model, seed)).row
        yield bed.trained(f"{method}, inverted", sparsity, bed.found_inverted(method, sparsity)).row
    if plan.checked:
        dense = grid["dense", 0.0].module
        mask = bed.found("magnitude", sparsity, dense)
        yield bed.trained("magnitude after training", sparsity, mask, dense).row


def files(bed: Bed, plan: Plan, grid: Grid, cut: Mapping[str, Result]) -> Iterator[File]:
    """Dense, SynFlow's mask, and the compact networks ``cut``, each trained and written."""
    dense, masked = grid["dense", 0.0], grid["SynFlow", plan.sparsities[0]]
    written = packed(dense.module, bed)
    yield file(bed, "dense", written, dense.module, written, 0.0)
    sparse = packed(masked.module, bed)
    yield file(bed, "SynFlow, unstructured", sparse, masked.module, written, masked.mask.seconds)
    for name, result in cut.items():
        assert isinstance(result.module, nn.Module)
        bed.fit(result.module, name)
        yield file(bed, name, result.onnx, result.module, written, pass_seconds(result.report))


def compact(bed: Bed, rule: str, plan: Plan) -> Result:
    """The network cut by the recipe with another ``rule`` and budget; proved, not yet trained."""
    changed: dict[str, Any] = {"rule": rule, "params": round(1 - plan.sparsities[0], 6), "align": plan.align}
    steps = [replace(step, **changed) if step.name == "rectify" else step for step in Recipe.load(RECONVENE)]
    model, recipe = copy.deepcopy(bed.model).eval(), Recipe(tuple(steps))
    return prunec.compile(model, bed.example, recipe, seed=bed.settings.seed, measure=False)


def packed(module: nn.Module, bed: Bed) -> onnx.ModelProto:
    """A trained network as an ONNX file, its weights in the smallest form; proved."""
    return prunec.compile(copy.deepcopy(module).eval(), bed.example, "pack,verify", measure=False).onnx


def file(bed: Bed, name: str, written: onnx.ModelProto, module: nn.Module, dense: onnx.ModelProto, s: float) -> File:
    """The line of a network that was trained and written."""
    nonzero = sum(int(p.count_nonzero()) for p in module.parameters())
    params = nonzero / sum(p.numel() for p in bed.model.parameters())
    data = written.SerializeToString()
    taken = latency(dense, written, TURNS)
    accuracy = top1(module, bed.tested, bed.settings)
    made = File(name, params, len(data), len(gzip.compress(data, mtime=0)), taken, s, accuracy)
    log(f"{bed.name}: {_file_line(made)}")
    return made


def run(data: Path, name: str, plan: Plan) -> dict[str, Any]:
    """Prune, train and measure one network; the result is what the JSON file holds of it."""
    start = time.perf_counter()
    bed = Bed.of(name, plan, data)
    # before what takes long: a budget may be out of reach
    cut = {name: compact(bed, rule, plan) for name, rule in COMPACT.items()} if plan.files else {}
    grid = criteria(bed, plan)
    return {
        "settings": {**asdict(bed.settings), "batches_scored": BATCHES, "most_steps": plan.most_steps},
        "parameters": sum(p.numel() for p in bed.model.parameters()),
        "methods": {name: asdict(METHODS[name]) for name in plan.methods},
        "criteria": [asdict(each.row) for each in grid.values()],
        "checks": [asdict(row) for row in checks(bed, plan, grid)],
        "recipe": str(Recipe.load(RECONVENE)),
        "files": [asdict(made) for made in files(bed, plan, grid, cut)] if plan.files else [],
        "machine": machine(),
        "versions": {"prunec": prunec.__version__},
        "seconds": round(time.perf_counter() - start, 1),
    }


def synflow_seconds() -> str:
    """How long SynFlow takes on VGG-16 for 32x32 images, in 100 steps to 98 %."""
    zeros = Samples([torch.zeros(2, 3, 32, 32)], [torch.zeros(2, dtype=torch.int64)])
    start = time.perf_counter()
    mask = found(drawn(VGG(), 0), METHODS["SynFlow"], 0.98, zeros)
    whole, census = time.perf_counter() - start, Census.of(mask.masks)
    return (
        f"SynFlow, 100 steps, VGG-16 for 32x32 to {1 - census.left:.2%}: {mask.seconds:.1f} s, {whole:.1f} s with "
        f"reading the model; {census.empty + census.last} layers with one weight or none"
    )


# What people read

_HEAD = f"{'':<28}{'asked':>7}{'left':>9}{'sparsest':>10}{'empty':>7}{'last':>6}{'prune':>9}{'top-1':>10}"
_FILE_HEAD = f"{'':<28}{'params':>8}{'file':>12}{'gzip':>12}{'latency':>9}{'prune':>9}{'top-1':>10}"


def table(networks: Mapping[str, Any]) -> str:
    """The result as people read it: up to three tables for each network."""
    lines = ["left, sparsest: share of all weights, of the sparsest layer's; empty, last: layers with none, with one"]
    for name, network in networks.items():
        settings = network["settings"]
        images, steps = settings["train_images"], settings["train_images"] // settings["batch"]
        lines += [
            "",
            f"{name}, {network['parameters'] / 1e6:.2f} M parameters: {settings['adapt_epochs']} epochs of {images:,} "
            f"images in {steps} steps, tested on {settings['test_images']:,}, seed {settings['seed']}",
        ]
        for part in ("criteria", "checks"):
            if network[part]:
                lines += ["", f"{part:<28}{_HEAD[28:]}", *(_line(Row(**row)) for row in network[part])]
        if network["files"]:
            lines += ["", f"{'files':<28}{_FILE_HEAD[28:]}", *(_file_line(File(**made)) for made in network["files"])]
        lines += ["", f"{network['seconds']:.0f} s: {network['command']}"]
    return "\n".join(lines)


def _line(row: Row) -> str:
    return (
        f"{row.name:<28}{row.asked:>7.2f}{row.left:>9.4f}{row.sparsest:>10.5f}{row.empty:>7}{row.last:>6}"
        f"{row.seconds:>7.1f} s{row.top1:>8.2f} %"
    )


def _file_line(made: File) -> str:
    return (
        f"{made.name:<28}{made.params:>8.4f}{made.size_bytes:>12,}{made.gzip_bytes:>12,}{made.latency:>9.3f}"
        f"{made.seconds:>7.1f} s{made.top1:>8.2f} %"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.pai", description=str(__doc__).partition("\n")[0])
    parser.add_argument("--short", action="store_true", help="a few images, a narrow VGG: a check, not a measurement")
    parser.add_argument("--all", action="store_true", help="every criterion and the checks on VGG-16 too")
    parser.add_argument("--models", nargs="+", choices=FULL, default=list(FULL), help="these networks alone")
    parser.add_argument("--epochs", type=int, help="train each network so long")
    parser.add_argument("--images", type=int, help="train on so many images")
    parser.add_argument("--threads", type=int, help="threads of torch (default: all cores)")
    parser.add_argument("--synflow-seconds", action="store_true", help="measure how long SynFlow takes, and stop")
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.synflow_seconds:
        print(synflow_seconds())
        return 0
    chosen = SHORT if options.short else ALL if options.all else FULL
    given = {"adapt_epochs": options.epochs, "train_images": options.images}
    changed = {name: value for name, value in given.items() if value is not None}
    plans = {name: replace(chosen[name], settings=replace(chosen[name].settings, **changed)) for name in options.models}
    for settings in (plan.settings for plan in plans.values()):
        least = BATCHES * settings.batch
        if settings.adapt_epochs < 1 or settings.train_images < least:
            parser.error(f"--epochs is 1 or more, and --images {least} or more, which criteria look at")
    data = find_data()
    if data is None:
        return 0
    path = cache() / "pai-short.json" if options.short else RESULTS
    networks = {}
    for name, plan in plans.items():  # each is written when it is done, beside those of other runs
        networks[name] = run(data, name, plan) | {"command": command("bench.pai", arguments)}
        record((json.loads(path.read_text()) if path.exists() else {}) | networks, path)
    print(table(networks))
    return 0


if __name__ == "__main__":
    sys.exit(main())
