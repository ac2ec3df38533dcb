"""One thread for torch: micro networks lose more to the thread pool than they gain, above all on shared machines."""

import os

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_addoption(parser: pytest.Parser) -> None:
    """How many hostile files ``-m fuzz`` makes, and which."""
    parser.addoption("--fuzz-mutations", type=int, default=2000, help="how many hostile ONNX files to compile")
    parser.addoption("--fuzz-start", type=int, default=0, help="the number of the first one")
