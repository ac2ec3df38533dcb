"""The same surroundings for each step, wherever it runs: threads, random numbers, and nothing on stdout.

The process in which it runs gets back what it had.
"""

from __future__ import annotations

import contextlib
import random
import sys
import warnings
from collections.abc import Iterator

import numpy as np
import torch

from .job import Job


@contextlib.contextmanager
def surroundings(job: Job) -> Iterator[None]:
    """Inside: the threads and the seed of ``job``; what is printed goes to stderr, and warnings nowhere."""
    threads, python, numpy = torch.get_num_threads(), random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]), contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            torch.set_num_threads(job.threads)
            seeded(job.seed)
            yield
        finally:
            torch.set_num_threads(threads)
            random.setstate(python)
            np.random.set_state(numpy)


def seeded(seed: int) -> None:
    """Start the random numbers of Python, numpy and torch anew."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
