"""Orders of channels.

One in which as many readers as possible read one range: start at :func:`ordered`.  One in which patterns N:M keep more
of the scores: start at :func:`~prunec.passes.order.swaps.raised`.
"""

from .order import Order, range_of
from .ordering import ordered
from .upscale import upscale_path

__all__ = ["Order", "ordered", "range_of", "upscale_path"]
