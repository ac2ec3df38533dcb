"""ResNet-20 on CIFAR-10 made sparse while it trains: PDP against gradual magnitude pruning and straight-through masks.

Run from the root of the repository::

    python -m bench.pdp            # about three quarters of an hour on two cores
    python -m bench.pdp --short    # a check that it works, not a measurement

90 % of all elements, 2:4, 1:4 and 50 % of the channels; what is the same for all, and what the columns say, stands in
:mod:`bench.sparse_training`.  *bytes* are those of the ONNX file with packed weights, which runs as the dense one does.

The data are in ``$PRUNEC_DATA`` or ``../shared/data`` and are no part of the project; without them nothing is done.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from . import sparse_training
from .sparse_training import Contender

METHODS = {
    "pdp": "pdp{WHAT,warm=WARM,rise=1,settle=SETTLE}",
    "gradual": "gradual{WHAT,warm=WARM,rise=RISE}",
    "ste": "ste{WHAT,warm=WARM}",
    "sr-ste": "ste{WHAT,warm=WARM,decay=0.0002}",
}
"""Recipes, for WHAT is to become zero.  PDP's masks are soft, and ask for the whole from the first epoch on."""


def contenders(task: str, what: str, pipeline: str, *names: str) -> tuple[Contender, ...]:
    """The methods ``names`` for ``what``."""
    return tuple(Contender(task, name, METHODS[name].replace("WHAT", what), pipeline) for name in names)


ELEMENTS, HALF, QUARTER, CHANNELS = "90 % of the elements", "2:4", "1:4", "50 % of the channels"

TASKS: dict[str, tuple[Contender, ...]] = {
    ELEMENTS: contenders(ELEMENTS, "sparsity=0.9", "pack,verify", "pdp", "gradual", "ste"),
    HALF: contenders(HALF, "n=2,m=4", "pack{n=2,m=4},verify", *METHODS),
    QUARTER: contenders(QUARTER, "n=1,m=4", "pack{n=1,m=4},verify", *METHODS),
    CHANNELS: contenders(CHANNELS, "channels=0.5", "shrink,pack,verify", "pdp", "gradual", "ste"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return sparse_training.main("pdp", str(__doc__).partition("\n")[0], TASKS, arguments)


if __name__ == "__main__":
    sys.exit(main())
