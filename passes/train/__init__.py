"""Training methods: how weights become sparse, or few values, while a network is trained.  One method a file.

They are declared without torch; what they put on a module's weights is in ``parametrizations.py``.
"""

from . import dkm, gradual, pdp, ste, threshold

__all__ = ["dkm", "gradual", "pdp", "ste", "threshold"]
