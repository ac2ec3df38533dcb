"""What a trained model is told of how its weights may be packed, for compiles of it."""

from __future__ import annotations

from torch import nn

from ...ir import arrays
from ...ir.packing.packing import PACKING, Packing


def tell(model: nn.Module, packing: Packing) -> bool:
    """Keep ``packing`` in the model's ``meta``, beside what was known before of weights that are as they were.

    False where ``meta`` is something else than a dict: it is the model's own.
    """
    meta = getattr(model, "meta", None)
    if not (meta is None or isinstance(meta, dict)):
        return False
    known = {} if meta is None else meta
    held = known.get(PACKING)
    if isinstance(held, Packing):
        packing = packing.with_others(held.that_holds([arrays.native(p) for p in model.parameters()]))
    known[PACKING] = packing
    object.__setattr__(model, "meta", known)
    return True
