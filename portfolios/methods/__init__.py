"""Methods: how the levels of a portfolio are made.  One method a file, which enters itself into ``METHODS``."""

from . import imp, oneshot, pdp, reconvene

__all__ = ["imp", "oneshot", "pdp", "reconvene"]
