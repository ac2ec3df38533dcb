"""Forms in which a tensor takes fewer bytes on disk and is the same tensor again when it is read."""

from .bitmask import Bitmask
from .form import Form
from .nm import Pattern, Sparse
from .packing import SMALL_BYTES, Packing
from .palette import Palette

__all__ = ["SMALL_BYTES", "Bitmask", "Form", "Packing", "Palette", "Pattern", "Sparse"]
