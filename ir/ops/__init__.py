"""Op declarations, one family a file: the only place that knows what an op means.  Importing this fills ``OPS``."""

from . import attention, conv, elementwise, join, linear, norm, quantised, recurrent, reduce, shape

__all__ = ["attention", "conv", "elementwise", "join", "linear", "norm", "quantised", "recurrent", "reduce", "shape"]
