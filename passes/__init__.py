"""Passes over the graph: scores, groups, plans, rewrites, verification.  Importing this fills the registry."""

from . import canonicalize, eliminate, fold, groups, layout, plan, reorder, score, split, verify

__all__ = ["canonicalize", "eliminate", "fold", "groups", "layout", "plan", "reorder", "score", "split", "verify"]
