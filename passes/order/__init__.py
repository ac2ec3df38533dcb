"""An order of the channels in which as many readers as possible read one range.  Start at :func:`ordered`."""

from .order import Order, range_of
from .ordering import ordered
from .upscale import upscale_path

__all__ = ["Order", "ordered", "range_of", "upscale_path"]
