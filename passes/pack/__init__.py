"""Packed weights: passes that make files smaller, and say how tensors are held in them."""

from . import pack, palette

__all__ = ["pack", "palette"]
