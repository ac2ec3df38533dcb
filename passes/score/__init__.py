"""Criteria: how much each unit matters.  One criterion a file; every module here enters itself into ``CRITERIA``."""

from . import (
    bn_gamma,
    force,
    fpgm,
    grasp,
    hrank,
    l1,
    l2,
    lamp,
    magnitude,
    ntk_sap,
    prospr,
    random,
    snip,
    synflow,
    taylor,
)
from .scoring import CRITERIA, Scoring, criterion, element_criterion

__all__ = [
    "CRITERIA", "Scoring", "bn_gamma", "criterion", "element_criterion", "force", "fpgm", "grasp", "hrank", "l1", "l2",
    "lamp", "magnitude", "ntk_sap", "prospr", "random", "snip", "synflow", "taylor",
]  # fmt: skip
