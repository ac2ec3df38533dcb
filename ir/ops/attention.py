"""Fused attention: query heads, key heads and head dimensions.

A removed key has no weight, while a key of zeros has some: keys are normalised over.
"""

from __future__ import annotations

from ..graph import Node
from ..opset import AtDead, Cost, declare, zero_after_weights


def _zero(node: Node, at_dead: AtDead) -> bool:
    """Averages over keys of values, zero where these are; a dead query, or one of a group, has averages too."""
    values, queries = node.inputs[2], len(node.output.shape or ()) - 2
    free = at_dead.free(node.output)
    return values is not None and at_dead(values) and queries not in free and at_dead.spans(values, node.output)


def _macs(cost: Cost) -> float:
    scores = cost.result() / max(1, cost("v")) * cost("s")
    return scores * (cost("d") + cost("v"))


def _in_order(node: Node) -> str:
    """Under a causal mask queries and keys are compared by their numbers."""
    return "qs" if node.attrs["causal"] else ""


def _packed_macs(cost: Cost) -> float:
    return cost.result() * (3 * cost("i") + 2 * cost("S"))


declare(
    "attention",
    "... q d, ... s! d, ... s! v, ... q s! -> ... q v",
    "Scaled dot-product attention with an explicit scale.",
    macs=_macs,
    contracts="d",
    keeps=_in_order,
    zero=_zero,
)
declare(
    "attention_grouped",
    "B (k g) q d, B k s! d, B k s! v -> B (k g) q v",
    "Scaled dot-product attention where several query heads share a key head.",
    k="kv_heads",
    macs=_macs,
    contracts="d",
    keeps=_in_order,
    zero=_zero,
)
declare(
    "attention_packed",
    "B S i, i (3 n d), (3 n d) -> B S (n d)",
    "Self-attention with its projection: query, key and value from one weight.",
    n="heads",
    macs=_packed_macs,
    contracts="i",
    zero=zero_after_weights(-1),
)
