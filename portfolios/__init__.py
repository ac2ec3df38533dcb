"""Portfolios: one source trained and pruned into several variants, of which one is chosen at run time."""

from . import methods
from .built import Built
from .executor import executor_for
from .job import Job, densities
from .levels import build_levels
from .method import METHODS

__all__ = ["METHODS", "Built", "Job", "build_levels", "densities", "executor_for", "methods"]
