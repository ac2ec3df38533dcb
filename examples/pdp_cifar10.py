"""PDP on CIFAR-10, in one process or several: ResNet-20 to 90 % zeros while it trains, then a small ONNX file.

Starts from the published weights where they lie beside the images (``checkpoints/``), else from random ones.  Masks are
soft, and grow, until they are settled; the epochs after that train what is left.  Under ``torchrun`` each process
trains on its share of every batch, with the same masks.

Run with ``python examples/pdp_cifar10.py [--short]``, or ``torchrun --nproc-per-node 2 examples/pdp_cifar10.py``.  The
images, ``cifar10-train.npz`` and ``cifar10-test.npz``, are read from ``$PRUNEC_DATA`` or ``../shared/data``.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import tempfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnxruntime
import torch
import torch.distributed as dist
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

import prunec

DATA = Path(os.environ.get("PRUNEC_DATA", Path(__file__).resolve().parents[1] / ".." / "shared" / "data"))
WORLD, RANK = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
BATCH, MEAN, STD = 128, torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


class Block(nn.Module):
    """Two 3x3 convolutions around a residual; where the width doubles, that is every second pixel and zeros."""

    def __init__(self, i: int, o: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(i, o, 3, o // i, 1, bias=False), nn.BatchNorm2d(o)
        self.conv2, self.bn2 = nn.Conv2d(o, o, 3, 1, 1, bias=False), nn.BatchNorm2d(o)
        self.wider = o - i

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.wider:
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.wider // 2, self.wider // 2))
        return F.relu(y + x)


class ResNet20(nn.Module):
    """ResNet-20 for 32x32 images; parameters are named as in the published checkpoint."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(Block(16, 16), Block(16, 16), Block(16, 16))
        self.layer2 = nn.Sequential(Block(16, 32), Block(32, 32), Block(32, 32))
        self.layer3 = nn.Sequential(Block(32, 64), Block(64, 64), Block(64, 64))
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer3(self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x))))))
        logits: Tensor = self.linear(x.mean((2, 3)))
        return logits


def images(split: str, limit: int | None) -> tuple[Tensor, Tensor]:
    """The first ``limit`` images (N, 3, 32, 32) of the split in a fixed random order, normalised, and their labels."""
    with np.load(DATA / f"cifar10-{split}.npz") as file:
        jpeg, label = file["jpeg"], torch.from_numpy(file["label"].astype(np.int64))
        ends = list(pairwise(file["offset"]))
    order = np.random.default_rng(0).permutation(len(label))[:limit]
    pixels = [np.asarray(Image.open(io.BytesIO(jpeg[slice(*ends[k])].tobytes())).convert("RGB")) for k in order]
    x = (torch.from_numpy(np.stack(pixels)).float() / 255 - MEAN) / STD
    return x.permute(0, 3, 1, 2).contiguous(), label[torch.from_numpy(order)]


def epoch(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor, seed: int) -> float:
    """One epoch on shifted and mirrored images, each process on its share of every batch; the loss of the last one."""
    generator, loss = torch.Generator().manual_seed(seed), torch.zeros(())
    model.train()
    for part in torch.split(torch.randperm(len(x), generator=generator), BATCH):
        top, left = torch.randint(0, 9, (2,), generator=generator).tolist()
        mirror, mine = torch.rand(len(part), generator=generator) < 0.5, slice(RANK, None, WORLD)
        seen = torch.where(mirror.view(-1, 1, 1, 1), x[part].flip(3), x[part])
        seen = F.pad(seen, (4,) * 4)[mine, :, top : top + 32, left : left + 32]
        optimizer.zero_grad()
        loss = F.cross_entropy(model(seen), y[part[mine]])
        torch.autograd.backward(loss)
        optimizer.step()
    return float(loss.detach())


def top1(outputs: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> float:
    """The share of the images that are named right."""
    with torch.no_grad():
        return float(torch.cat([outputs(part).argmax(1) for part in torch.split(x, 500)]).eq(y).float().mean())


def dense_network() -> tuple[nn.Module, str]:
    """The network in every process the same, and where its weights are from."""
    torch.manual_seed(0)
    model, file = ResNet20(), DATA / "checkpoints" / "resnet20-12fca82f.th"
    if not file.exists():
        return model, "random weights"
    state = torch.load(file, map_location="cpu", weights_only=True)["state_dict"]
    model.load_state_dict({name.removeprefix("module."): value for name, value in state.items()}, strict=False)
    return model, "published weights"


def show_file(model: nn.Module, folder: Path, x: Tensor, y: Tensor) -> None:
    """Compile ``model`` to a packed ONNX file in ``folder``, and say how small it is and what it names right."""
    result = prunec.compile(model.eval(), (x[:2],), "pack,verify")
    result.save(folder)
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    name, dense, gzip = session.get_inputs()[0].name, result.report["size_bytes"], result.report["packed"]["gzip_bytes"]
    accuracy = top1(lambda part: torch.from_numpy(session.run(None, {name: part.numpy()})[0]), x, y)
    print(f"{folder / 'model.onnx'}: {dense['dense']:,} -> {dense['compact']:,} bytes, {gzip['compact']:,} after gzip")
    print(f"the file in ONNX Runtime: top-1 {accuracy:.2%}")


def main(folder: Path, *, short: bool) -> None:
    """Train, settle the masks, and compile; the first process says what came of it."""
    epochs, warm, rise, settled = (3, 0, 1, 1) if short else (12, 1, 6, 3)
    x, y = images("train", 2560 if short else None)
    x_test, y_test = images("test", 1000 if short else None)
    model, origin = dense_network()
    if RANK == 0:
        print(f"dense, {origin}: top-1 {top1(model.eval(), x_test, y_test):.2%}")
    settle = epochs - settled - warm - rise
    with prunec.train(model, f"pdp{{sparsity=0.9,warm={warm},rise={rise},settle={settle}}}") as sparse:
        seen = nn.parallel.DistributedDataParallel(model) if WORLD > 1 else model
        optimizer = torch.optim.SGD(seen.parameters(), 0.05, momentum=0.9, weight_decay=5e-4, nesterov=True)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
        for k in range(epochs):
            if k == epochs - settled:
                sparse.harden()
            loss = epoch(seen, optimizer, x, y, seed=k)
            schedule.step()
            sparse.step(loss)
            if RANK == 0:
                accuracy = top1(model.eval(), x_test, y_test)
                zeros = sparse.sparsity()
                print(f"epoch {k + 1:2}  loss {loss:.3f}  zeros {zeros:.1%}  top-1 {accuracy:.2%}", flush=True)
    if RANK == 0:
        show_file(model, folder, x_test, y_test)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, help="where to put the artifact (default: a temporary folder)")
    parser.add_argument("--short", action="store_true", help="few images and epochs: minutes, and a worse network")
    options = parser.parse_args()
    if not (DATA / "cifar10-train.npz").exists():
        sys.exit(f"no CIFAR-10 in {DATA}: set PRUNEC_DATA to the folder that holds cifar10-{{train,test}}.npz")
    if WORLD > 1:
        dist.init_process_group("gloo")
    with tempfile.TemporaryDirectory(prefix="prunec-pdp-") as temporary:
        main(options.folder or Path(temporary) / "artifact", short=options.short)
    if WORLD > 1:
        dist.barrier()
        dist.destroy_process_group()
