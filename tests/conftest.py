"""What all tests share.

One thread for torch: micro networks lose more to the thread pool than they gain, above all on shared machines.  No
profile of the machine: what a plan comes to must not depend on whether somebody has measured.
"""

from __future__ import annotations

import os

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["PRUNEC_CACHE"] = os.devnull
os.environ.pop("COLUMNS", None)  # tables as wide as in a file, also under pytest-xdist


def pytest_addoption(parser: pytest.Parser) -> None:
    """How many random graphs and hostile files ``-m fuzz`` makes, and which."""
    parser.addoption("--fuzz-mutations", type=int, default=2000, help="how many hostile files `-m fuzz` compiles")
    parser.addoption("--fuzz-graphs", type=int, default=240, help="how many random graphs `-m fuzz` draws")
    parser.addoption("--fuzz-seed", type=int, default=0, help="the first seed of `-m fuzz`: other ones, other files")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests with a ``batch`` run once for each share of the random graphs."""
    if "batch" in metafunc.fixturenames:
        from .fuzz.batches import seeds

        chosen = metafunc.config.getoption
        metafunc.parametrize("batch", seeds(chosen("--fuzz-graphs"), chosen("--fuzz-seed")))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    from .fuzz.tally import TALLY

    if TALLY.graphs:
        from prunec.ir.opset import OPS

        terminalreporter.section("random graphs")
        for line in TALLY.lines(OPS):
            terminalreporter.line(line)
