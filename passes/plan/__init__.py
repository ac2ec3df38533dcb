"""Planners: which units go.  One planner a file."""

from . import global_plan, rectify
from .plan import Plan

__all__ = ["Plan", "global_plan", "rectify"]
