"""Fused attention: query heads, key heads and head dimensions."""

from __future__ import annotations

from ..graph import Node
from ..opset import AtDead, Cost, declare


def _zero(node: Node, at_dead: AtDead) -> bool:
    """Weights are averages over keys, of values that are zero where heads or head dimensions are dead."""
    return at_dead(node.inputs[2])


def _macs(cost: Cost) -> float:
    scores = cost.result() / max(1, cost("v")) * cost("s")
    return scores * (cost("d") + cost("v"))


declare(
    "attention",
    "... q d, ... s d, ... s v, ... q s -> ... q v",
    "Scaled dot-product attention with an explicit scale.",
    macs=_macs,
    contracts="d",
    zero=_zero,
)
declare(
    "attention_grouped",
    "B (k g) q d, B k s d, B k s v -> B (k g) q v",
    "Scaled dot-product attention where several query heads share a key head.",
    k="kv_heads",
    macs=_macs,
    contracts="d",
    zero=_zero,
)
