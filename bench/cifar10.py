"""ResNet-20 on CIFAR-10, pruned to half its MACs by prunec and by Torch-Pruning and fine-tuned alike: top-1 of both.

Run from the root of the repository::

    python -m bench.cifar10            # about a quarter of an hour on two cores, half of it once
    python -m bench.cifar10 --short    # a check that it works, not a measurement
    python -m bench.cifar10 --all      # with every form of the peer

The network is the published checkpoint of akamaster/pytorch_resnet_cifar10, whose shortcuts are strided slices padded
with zeros (option A).  It was trained on lossless images and our copy of the data set is JPEG, so it is adapted to
those first, once; the adapted weights are kept in ``bench/.cache``.  What follows is the same for every contender: the
same starting weights, budget, order of images, augmentation and schedule.

Torch-Pruning 1.6.1 cannot prune through the padded shortcut (``IndexError`` from its index maps), so it gets help:
*shortcut as conv* replaces each shortcut by an equal 1x1 convolution with frozen weights, and with ``--all`` there is
*blocks only* too, which leaves the residual stream alone.  prunec gets none.  Latency is measured in ONNX Runtime, one
thread, batch 1, in turns with the dense network.

The data are in ``$PRUNEC_DATA`` or ``../shared/data`` and are no part of the project; without them nothing is done.
"""

from __future__ import annotations

import argparse
import copy
import io
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from . import peer
from .onnx_export import export
from .record import command, record

try:
    import prunec
except ImportError:  # a bare clone: the root of the repository is the package
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / ".dev"))
    import prunec

from prunec.runtime import compare

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / "bench" / ".cache"
RESULTS = ROOT / "bench" / "results" / "cifar10.json"
CHECKPOINTS = {20: "resnet20-12fca82f.th", 56: "resnet56-4bfd9763.th"}
"""Files in the folder ``checkpoints`` of the data, by the network's depth."""
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
PAD = 4  # pixels a training image is shifted by, at most


@dataclass(frozen=True)
class Settings:
    """Everything that the figures depend on, apart from the machine."""

    macs: float = 0.5
    adapt_epochs: int = 2
    adapt_lr: float = 0.02
    tune_epochs: int = 2
    tune_lr: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 5e-4
    batch: int = 128
    train_images: int = 50_000
    test_images: int = 10_000
    seed: int = 0
    bf16: bool = False
    channels_last: bool = True


SHORT = Settings(adapt_epochs=1, tune_epochs=1, train_images=2_560, test_images=1_000)


# The network


class Shortcut(nn.Module):
    """Option A: every second pixel, and zeros for the channels that the input lacks."""

    def __init__(self, out_channels: int) -> None:
        super().__init__()
        self.pad = out_channels // 4

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad, self.pad))


class Block(nn.Module):
    """Two 3x3 convolutions around a residual; ``stride`` 2 doubles the channels."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Module = Shortcut(out_channels) if stride != 1 else nn.Sequential()

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class ResNet(nn.Module):
    """ResNet-20, or of another ``depth`` 6n + 2, for 32x32 images; parameters are named as in the checkpoints."""

    def __init__(self, depth: int = 20, classes: int = 10) -> None:
        super().__init__()
        more = range((depth - 2) // 6 - 1)
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(Block(16, 16, 1), *(Block(16, 16, 1) for _ in more))
        self.layer2 = nn.Sequential(Block(16, 32, 2), *(Block(32, 32, 1) for _ in more))
        self.layer3 = nn.Sequential(Block(32, 64, 2), *(Block(64, 64, 1) for _ in more))
        self.linear = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.linear(F.adaptive_avg_pool2d(x, 1).flatten(1))
        return logits


def published(data: Path, depth: int = 20) -> ResNet:
    """The network of that depth with the published weights."""
    file = data / "checkpoints" / CHECKPOINTS[depth]
    state = torch.load(file, map_location="cpu", weights_only=True)["state_dict"]
    model = ResNet(depth)
    found = model.load_state_dict({name.removeprefix("module."): value for name, value in state.items()}, strict=False)
    assert not found.unexpected_keys, found
    assert all(key.endswith("num_batches_tracked") for key in found.missing_keys), found
    return model.eval()


def with_shortcut_as_conv(model: ResNet) -> ResNet:
    """An equal network whose shortcuts are 1x1 convolutions with frozen weights, for tools that cannot follow a pad."""
    model = copy.deepcopy(model)
    for block in model.modules():
        if isinstance(block, Block) and isinstance(block.shortcut, Shortcut):
            c = block.conv1.in_channels
            conv = nn.Conv2d(c, block.conv1.out_channels, 1, 2, bias=False)
            weight = torch.zeros_like(conv.weight)
            weight[block.shortcut.pad + torch.arange(c), torch.arange(c)] = 1.0
            conv.weight = nn.Parameter(weight, requires_grad=False)
            block.shortcut = conv
    return model


# The images


def find_data() -> Path | None:
    """The folder with the images and checkpoints; None, with a word on stderr, where there is none."""
    data = Path(os.environ.get("PRUNEC_DATA", ROOT / ".." / "shared" / "data"))
    if (data / "cifar10-train.npz").exists():
        return data
    log(f"no CIFAR-10 in {data}: nothing to do (set PRUNEC_DATA to the folder that holds cifar10-train.npz)")
    return None


@dataclass(frozen=True)
class Images:
    """``pixels``: uint8 (N, 3, 32, 32); ``labels``: int64 (N)."""

    pixels: Tensor
    labels: Tensor

    def first(self, n: int) -> Images:
        return Images(self.pixels[:n], self.labels[:n])


def load(data: Path, split: str) -> Images:
    """One split, decoded once and then read from the cache."""
    with np.load(data / f"cifar10-{split}.npz") as archive:
        labels = torch.from_numpy(archive["label"].astype(np.int64))
        decoded = cache() / f"cifar10-{split}.npy"
        if not decoded.exists():
            np.save(decoded, _decode(archive["jpeg"], archive["offset"]))
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(labels)))  # the files are sorted by class
    return Images(torch.from_numpy(np.load(decoded))[order], labels[order])


def _decode(jpeg: NDArray[np.uint8], offset: NDArray[np.int64]) -> NDArray[np.uint8]:
    from PIL import Image

    pixels = np.empty((len(offset) - 1, 3, 32, 32), np.uint8)
    for i, (start, stop) in enumerate(pairwise(offset)):
        with Image.open(io.BytesIO(jpeg[start:stop].tobytes())) as image:
            pixels[i] = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    return pixels


def cache() -> Path:
    """The folder for what can be made again; it keeps itself out of git."""
    CACHE.mkdir(parents=True, exist_ok=True)
    (CACHE / ".gitignore").write_text("*\n")
    return CACHE


def normalised(pixels: Tensor, settings: Settings) -> Tensor:
    """uint8 (B, 3, H, W) as the network wants it."""
    x = (pixels.float() / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    return x.contiguous(memory_format=torch.channels_last) if settings.channels_last else x


def augmented(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Each image shifted by up to :data:`PAD` pixels, half of them mirrored."""
    n, channels, height, width = pixels.shape
    padded = F.pad(pixels, (PAD,) * 4)
    top, left = torch.randint(0, 2 * PAD + 1, (2, n, 1), generator=generator)
    rows, columns = top + torch.arange(height), left + torch.arange(width)
    mirror = torch.rand(n, generator=generator) < 0.5
    columns[mirror] = columns[mirror].flip(1)
    image, channel = torch.arange(n).view(n, 1, 1, 1), torch.arange(channels).view(1, channels, 1, 1)
    return padded[image, channel, rows.view(n, 1, height, 1), columns.view(n, 1, 1, width)]


# Training and top-1, the same for everybody


def train(
    model: nn.Module,
    images: Images,
    epochs: int,
    lr: float,
    settings: Settings,
    name: str,
    after_epoch: Callable[[float], None] | None = None,
) -> nn.Module:
    """``model`` after ``epochs`` of SGD with a one-cycle schedule; one seed, the same batches to any model.

    ``after_epoch`` is told the mean loss of each epoch.
    """
    generator = torch.Generator().manual_seed(settings.seed)
    if settings.channels_last:
        model = model.to(memory_format=torch.channels_last)
    model.train()
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(weights, lr, settings.momentum, weight_decay=settings.weight_decay, nesterov=True)
    steps = epochs * (len(images.labels) // settings.batch)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _one_cycle(step / steps))
    for epoch in range(epochs):
        start, total = time.perf_counter(), 0.0
        order = torch.randperm(len(images.labels), generator=generator)
        batches = order[: len(order) // settings.batch * settings.batch].view(-1, settings.batch)
        for batch in batches:
            x = normalised(augmented(images.pixels[batch], generator), settings)
            with torch.autocast("cpu", torch.bfloat16, enabled=settings.bf16):
                loss = F.cross_entropy(model(x), images.labels[batch])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            total += loss.item()
        seconds = time.perf_counter() - start
        log(f"{name}: epoch {epoch + 1}/{epochs}, loss {total / len(batches):.3f}, {seconds:.0f} s")
        if after_epoch is not None:
            after_epoch(total / len(batches))
    return model.eval()


def _one_cycle(progress: float, warmup: float = 0.1) -> float:
    """Factor of the learning rate: up to 1 in a line, then down to 0 in a line."""
    return min((progress + 0.01) / (warmup + 0.01), (1 - progress) / (1 - warmup))


@torch.no_grad()
def top1(model: nn.Module, images: Images, settings: Settings) -> float:
    """Percent of ``images`` that ``model`` names right."""
    model.eval()
    right = 0
    for start in range(0, len(images.labels), 500):
        x = normalised(images.pixels[start : start + 500], settings)
        right += int((model(x).argmax(1) == images.labels[start : start + 500]).sum())
    return 100 * right / len(images.labels)


def adapted(data: Path, images: Images, settings: Settings, depth: int = 20) -> ResNet:
    """The network adapted to the JPEG images: from the cache, or trained now."""
    model = published(data, depth)
    fit(model, f"resnet{depth}-jpeg", images, settings)
    return model


def fit(model: nn.Module, name: str, images: Images, settings: Settings) -> None:
    """Train ``model`` by ``adapt_epochs`` and ``adapt_lr`` on ``images``, once: then its weights are in the cache."""
    key = f"{settings.train_images}x{settings.adapt_epochs}-lr{settings.adapt_lr}-seed{settings.seed}"
    file = cache() / f"{name}-{key}.pt"
    if not file.exists():
        log(f"training {name}, once")
        train(model, images, settings.adapt_epochs, settings.adapt_lr, settings, name)
        torch.save(model.state_dict(), file)
    model.load_state_dict(torch.load(file, weights_only=True))
    model.eval()


# The contenders


def by_prunec(model: ResNet, example: Tensor, settings: Settings, **options: Any) -> nn.Module:
    """prunec, with no hint at all."""
    result = prunec.compile(model, (example,), macs=settings.macs, seed=settings.seed, **options)
    assert isinstance(result.module, nn.Module)
    return result.module


def by_prunec_unaligned(model: ResNet, example: Tensor, settings: Settings) -> nn.Module:
    """prunec for accuracy alone: scores per MAC, counts not aligned (a net so narrow has few blocks to choose from)."""
    text = f"score{{normalize=none,per=macs}},plan{{macs={settings.macs},align=1}},eliminate,fold,verify"
    result = prunec.compile(model, (example,), pipeline=text, seed=settings.seed)
    assert isinstance(result.module, nn.Module)
    return result.module


def by_peer_blocks(model: ResNet, example: Tensor, settings: Settings) -> nn.Module:
    """Torch-Pruning, told to leave the residual stream alone."""

    def stream(copied: nn.Module) -> Sequence[nn.Module]:
        assert isinstance(copied, ResNet)
        return [copied.conv1, copied.linear, *(b.conv2 for b in copied.modules() if isinstance(b, Block))]

    return peer.prune(model, example, macs=settings.macs, ignored=stream)


def by_peer_rewritten(model: ResNet, example: Tensor, settings: Settings) -> nn.Module:
    """Torch-Pruning, on an equal network whose shortcuts are convolutions."""
    budget = settings.macs * peer.count_macs(model, example)
    rewritten = with_shortcut_as_conv(model)
    return peer.prune(rewritten, example, macs=budget / peer.count_macs(rewritten, example))


Contender = Callable[[ResNet, Tensor, Settings], nn.Module]
CONTENDERS: dict[str, Contender] = {
    "prunec": by_prunec,
    "prunec, per MAC, not aligned": by_prunec_unaligned,
    "Torch-Pruning, shortcut as conv": by_peer_rewritten,
}
MORE_CONTENDERS: dict[str, Contender] = {"Torch-Pruning, blocks only": by_peer_blocks}


@dataclass(frozen=True)
class Row:
    """One line of the table; ``macs``, ``params`` and ``latency`` are ratios to dense, top-1 in percent."""

    name: str
    macs: float
    params: float
    latency: float
    top1_pruned: float
    top1_tuned: float


def run(data: Path, settings: Settings, contenders: dict[str, Contender]) -> dict[str, Any]:
    """Adapt, prune, fine-tune and measure; the result is what the JSON file holds."""
    start = time.perf_counter()
    train_images = load(data, "train").first(settings.train_images)
    test_images = load(data, "test").first(settings.test_images)
    dense = adapted(data, train_images, settings)
    example = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(settings.seed))
    accuracy = {
        "published": top1(published(data), test_images, settings),
        "adapted": top1(dense, test_images, settings),
    }
    log(f"dense: {accuracy['published']:.2f} % as published, {accuracy['adapted']:.2f} % adapted")
    size = (peer.count_macs(dense, example), _count_params(dense))
    dense_onnx, rows = export(dense, example), []
    for name, contend in contenders.items():
        module = contend(copy.deepcopy(dense), example, settings)
        ratios = (peer.count_macs(module, example) / size[0], _count_params(module) / size[1])
        latency = compare(dense_onnx, export(module, example)).ratio
        before = top1(module, test_images, settings)
        log(f"{name}: MACs {ratios[0]:.3f}, latency {latency:.3f}, {before:.2f} % before fine-tuning")
        module = train(module, train_images, settings.tune_epochs, settings.tune_lr, settings, name)
        rows.append(Row(name, *ratios, latency, before, top1(module, test_images, settings)))
    return {
        "settings": asdict(settings),
        "machine": machine(),
        "versions": {"prunec": prunec.__version__, "torch-pruning": peer.VERSION},
        "seconds": round(time.perf_counter() - start, 1),
        "dense": {**accuracy, "macs": size[0] // len(example), "params": size[1]},
        "rows": [asdict(row) for row in rows],
    }


def _count_params(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def machine() -> dict[str, Any]:
    """What figures depend on besides the settings."""
    return {"processor": _processor(), "threads": torch.get_num_threads(), "torch": torch.__version__}


def has_bf16() -> bool:
    """Whether the processor multiplies in bfloat16 faster than in float32."""
    return any(flag in _cpu_info() for flag in ("amx_bf16", "avx512_bf16"))


def _cpu_info() -> str:
    path = Path("/proc/cpuinfo")
    return path.read_text() if path.exists() else ""


def _processor() -> str:
    names = [line.partition(":")[2].strip() for line in _cpu_info().splitlines() if line.startswith("model name")]
    return names[0] if names else platform.processor()


def table(result: dict[str, Any]) -> str:
    """The result as people read it."""
    dense = result["dense"]
    lines = [
        f"CIFAR-10 (JPEG), ResNet-20: {dense['published']:.2f} % as published, {dense['adapted']:.2f} % adapted,"
        f" {dense['macs'] / 1e6:.1f} M MACs, {dense['params'] / 1e3:.0f} k parameters",
        "",
        f"{'':<34}{'MACs':>8}{'params':>8}{'latency':>9}{'top-1 pruned':>14}{'top-1 tuned':>13}",
    ]
    for row in result["rows"]:
        lines.append(
            f"{row['name']:<34}{row['macs']:>8.3f}{row['params']:>8.3f}{row['latency']:>9.3f}"
            f"{row['top1_pruned']:>12.2f} %{row['top1_tuned']:>11.2f} %"
        )
    settings = result["settings"]
    lines += ["", f"{settings['tune_epochs']} epochs each, seed {settings['seed']}, {result['seconds']:.0f} s: "
              f"{result['command']}"]  # fmt: skip
    return "\n".join(lines)


def log(line: str) -> None:
    """Progress, on stderr; stdout is for the table."""
    print(line, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.cifar10", description=str(__doc__).partition("\n")[0])
    parser.add_argument("--short", action="store_true", help="a few images and one epoch: a check, not a measurement")
    parser.add_argument("--all", action="store_true", help="every form of the peer: half as long again")
    parser.add_argument("--threads", type=int, help="threads of torch (default: all cores)")
    parser.add_argument("--adapt-only", action="store_true", help="make the adapted weights and stop")
    options = parser.parse_args(arguments)
    data = find_data()
    if data is None:
        return 0
    if options.threads:
        torch.set_num_threads(options.threads)
    settings = replace(SHORT if options.short else Settings(), bf16=has_bf16())
    if options.adapt_only:
        images = load(data, "train").first(settings.train_images)
        dense = adapted(data, images, settings)
        print(f"adapted: {top1(dense, load(data, 'test').first(settings.test_images), settings):.2f} %")
        return 0
    result = run(data, settings, CONTENDERS | MORE_CONTENDERS if options.all else CONTENDERS)
    result["command"] = command("bench.cifar10", arguments)
    if not options.short:
        record(result, RESULTS)
    print(table(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
