"""Criteria: how much each unit matters.  One criterion a file; every module here enters itself into ``CRITERIA``."""

from . import bn_gamma, fpgm, hrank, l1, l2, lamp, random, taylor
from .scoring import CRITERIA, Scoring, criterion

__all__ = ["CRITERIA", "Scoring", "bn_gamma", "criterion", "fpgm", "hrank", "l1", "l2", "lamp", "random", "taylor"]
