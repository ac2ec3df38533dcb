"""The same surroundings for each step, wherever it runs: threads, random numbers, and nothing on stdout.

The process in which it runs gets back what it had: threads, random numbers, the folder, and what torch goes by.
"""

from __future__ import annotations

import contextlib
import os
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
    with _restored(), torch.enable_grad(), contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.set_num_threads(job.threads)
        seeded(job.seed)
        yield


@contextlib.contextmanager
def _restored() -> Iterator[None]:
    threads, python, numpy = torch.get_num_threads(), random.getstate(), np.random.get_state()
    folder, path, dtype = os.getcwd(), list(sys.path), torch.get_default_dtype()
    exact, warns = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(exact, warn_only=warns)
            torch.set_default_dtype(dtype)
            torch.set_num_threads(threads)
            random.setstate(python)
            np.random.set_state(numpy)
            sys.path[:] = path
            os.chdir(folder)


def seeded(seed: int) -> None:
    """Start the random numbers of Python, numpy and torch anew."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
