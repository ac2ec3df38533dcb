"""Passes over the graph: scores, groups, plans, rewrites, verification.  Importing this fills the registry."""

from . import (
    canonicalize,
    eliminate,
    fold,
    groups,
    initialise,
    layout,
    mask,
    pack,
    permute,
    plan,
    rank,
    reorder,
    score,
    shrink,
    split,
    train,
    verify,
)

__all__ = [
    "canonicalize", "eliminate", "fold", "groups", "initialise", "layout", "mask", "pack", "permute", "plan", "rank",
    "reorder", "score", "shrink", "split", "train", "verify",
]  # fmt: skip
