"""How far a training is: a line on stderr for each epoch that ended.

The loop is the user's, and prints too (its own bars, or those of a framework), so each line is written once and stays:
nothing is redrawn, no stream is replaced.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch.distributed as dist

from .history import in_words

_WIDE = 20
"""Characters of the bar."""


class EpochLines:
    """Prints ``epoch 3/30 ━━━━ 0:01:12 left  loss 0.12  sparsity 41.0 %, layers 12 to 91 %`` when it is called.

    ``shown``: None for where stderr is a terminal (and not in CI), True for everywhere, False for nowhere.  Of several
    processes in one group the first prints.  ``epochs``: how many there will be; without it there is no bar.
    """

    def __init__(self, epochs: int | None = None, shown: bool | None = None) -> None:
        self.epochs, self.shown = epochs, shown
        self._start, self._ended = time.monotonic(), 0

    def begin(self, notes: Sequence[str]) -> None:
        """Print what is worth a word before the first epoch."""
        if self._wanted():
            for note in notes:
                print(f"prunec: {note}", file=sys.stderr)

    def __call__(self, entry: Mapping[str, Any], densities: Callable[[], Mapping[str, float]]) -> None:
        """The epoch of ``entry`` has ended; ``densities`` says what each layer keeps, and is asked where shown."""
        self._ended += 1
        if not self._wanted():
            return
        from rich.console import Console
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        line = Table.grid(padding=(0, 2, 0, 0))
        cells: list[Any] = [f"prunec: epoch {self._count(entry['epoch'])}"]
        if self.epochs:
            cells += [
                ProgressBar(self.epochs, min(entry["epoch"], self.epochs), width=_WIDE),
                self._left(entry["epoch"]),
            ]
        cells += [text for text in (in_words(entry), _sparsities(entry["sparsity"], densities())) if text]
        for _ in cells:
            line.add_column(no_wrap=True)
        line.add_row(*cells)
        wide = None if sys.stderr.isatty() else 200  # off a terminal nothing is cut
        Console(file=sys.stderr, width=wide, highlight=False, markup=False).print(line)

    def _wanted(self) -> bool:
        if dist.is_available() and dist.is_initialized() and dist.get_rank() != 0:
            return False
        if self.shown is None:
            return sys.stderr.isatty() and os.environ.get("CI", "").lower() in ("", "0", "false")
        return self.shown

    def _count(self, epoch: int) -> str:
        return f"{epoch:{len(str(self.epochs))}}/{self.epochs}" if self.epochs else str(epoch)

    def _left(self, epoch: int) -> str:
        """``0:01:12 left``, by the mean of the epochs of this run."""
        assert self.epochs is not None
        seconds = round((time.monotonic() - self._start) / self._ended * max(0, self.epochs - epoch))
        return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02} left"


def _sparsities(whole: float, densities: Mapping[str, float]) -> str:
    """``sparsity 41.0 %, layers 12.0 to 91.0 %``"""
    each = [1 - kept for kept in densities.values()]
    spread = f", layers {min(each):.1%} to {max(each):.1%}" if len(each) > 1 else ""
    return f"sparsity {whole:.1%}{spread}"
