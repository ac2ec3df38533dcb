"""Sparse by training, in one process or several: handwritten digits to 90 % zeros with PDP, then a small file.

Trains a small convolutional network on scikit-learn's digits with soft masks, compiles what comes out, and says how
small the ONNX file is.  Under ``torchrun`` each process trains on its share of every batch, with the same masks.

Run with ``python examples/sparse_digits.py``, or ``torchrun --nproc-per-node 2 examples/sparse_digits.py``; with
``--save FILE`` the trained weights are written (of each process, its rank in the name).
"""

from __future__ import annotations

import argparse
import os

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

import prunec

RECIPE, EPOCHS, BATCH = "pdp{sparsity=0.9,warm=2,rise=5,settle=3}", 10, 128
WORLD, RANK = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))


def network() -> nn.Sequential:
    """Two convolutions and two linear layers, the same in every process."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip


def main() -> None:
    """Train, compile, and say what came of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--save", metavar="FILE", help="write the trained weights")
    parser.add_argument("--double", action="store_true", help="in float64: one process and two agree in many digits")
    save, double = vars(parser.parse_args()).values()
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64 if double else torch.float32)
    if WORLD > 1:
        dist.init_process_group("gloo")
    images, labels = (torch.tensor(x) for x in load_digits(return_X_y=True))
    images = images.to(torch.get_default_dtype()).view(-1, 1, 8, 8) / 8 - 1
    model = network()
    with prunec.train(model, RECIPE) as sparse:
        seen = nn.parallel.DistributedDataParallel(model) if WORLD > 1 else model
        optimizer = torch.optim.SGD(seen.parameters(), lr=0.05, momentum=0.9)
        for epoch in range(EPOCHS):
            order = torch.randperm(len(images) // BATCH * BATCH, generator=torch.Generator().manual_seed(epoch))
            for part in torch.split(order, BATCH):
                mine = part[RANK::WORLD]
                optimizer.zero_grad()
                loss = F.cross_entropy(seen(images[mine]), labels[mine])
                torch.autograd.backward(loss)
                optimizer.step()
            sparse.step(loss.detach())
            if RANK == 0:
                print(f"epoch {epoch + 1:2}  loss {float(loss.detach()):.3f}  zeros {sparse.sparsity():.1%}")
    if save:
        torch.save(model.state_dict(), f"{save}.{RANK}")
    if RANK == 0:
        with torch.no_grad():
            right = float((model(images).argmax(1) == labels).float().mean())
        result = prunec.compile(model.eval().float(), (images[:2].float(),), "pack,verify")
        size = result.report["size_bytes"]
        print(f"{right:.1%} of the digits right, {size['dense']:,} -> {size['compact']:,} bytes")
    if WORLD > 1:
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
