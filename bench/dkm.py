"""ResNet-20 on CIFAR-10 with 16, 4 and 2 values for the weights of a layer: DKM, in training, against k-means after it.

Run from the root of the repository::

    python -m bench.dkm            # about a quarter of an hour on two cores
    python -m bench.dkm --short    # a check that it works, not a measurement

*k-means* clusters the weights that all start from, and trains nothing; *k-means, rest trained* goes on with these
weights fixed, and trains batch norms, biases and the small layers that stay as they are.  What is the same for all, and
what the columns say, stands in :mod:`bench.sparse_training`.

The data are in ``$PRUNEC_DATA`` or ``../shared/data`` and are no part of the project; without them nothing is done.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial

from torch import Tensor

from . import sparse_training
from .cifar10 import ROOT, ResNet
from .sparse_training import Contender

try:
    import prunec
except ImportError:  # a bare clone: the root of the repository is the package
    sys.path.insert(0, str(ROOT / ".dev"))
    import prunec


def clustered(model: ResNet, example: Tensor, bits: int) -> ResNet:
    """``model`` with each large weight clustered by k-means, and these weights fixed."""
    pipeline = f"palette{{bits={bits},method=kmeans}}"
    result = prunec.compile(model, (example,), pipeline, verify=False, measure=False)
    assert result.module is not None
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    model.load_state_dict(result.module.state_dict())
    for name, weight in model.named_parameters():
        weight.requires_grad_(bool((weight == before[name]).all()))
    return model


def contenders(bits: int) -> tuple[Contender, ...]:
    """DKM and k-means at so many bits for a weight."""
    task, start = f"{bits} bits" if bits > 1 else "1 bit", partial(clustered, bits=bits)
    return (
        Contender(task, "dkm", f"dkm{{bits={bits}}}"),
        Contender(task, "k-means", start=start, trains=False),
        Contender(task, "k-means, rest trained", start=start),
    )


TASKS = {found[0].task: found for found in map(contenders, (4, 2, 1))}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return sparse_training.main("dkm", str(__doc__).partition("\n")[0], TASKS, arguments)


if __name__ == "__main__":
    sys.exit(main())
