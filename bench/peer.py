"""Torch-Pruning 1.6.1, the peer, driven the way its own examples drive it.

Global L2 group magnitude, the classifier ignored.  Its pruner takes a channel ratio; a MAC budget is met by bisection
on that ratio, each step on a fresh copy of the model, so that the result is one shot at the original scores and never
a chain of small steps.  MACs are counted by torch itself (:func:`count_macs`), never by either tool.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

VERSION = "1.6.1"
STEPS = 12  # bisection halves the ratio's interval so often: a channel in four thousand


def count_macs(model: nn.Module, example: Tensor) -> int:
    """Multiply-accumulates of convolutions and matrix products in one forward pass, as torch counts them."""
    was_training = model.training
    model.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(example)
    model.train(was_training)
    return int(counter.get_total_flops()) // 2


def prune(
    model: nn.Module,
    example: Tensor,
    *,
    ratio: float | None = None,
    macs: float | None = None,
    round_to: int | None = None,
    ignored: Callable[[nn.Module], Sequence[nn.Module]] | None = None,
) -> nn.Module:
    """A pruned copy of ``model``: ``ratio`` of its channels dropped, or at most ``macs`` of its MACs kept.

    ``ignored`` names the layers to leave alone, given a copy of the model; by default the last linear layer, the
    classifier.  Raises :class:`ValueError` unless exactly one of ``ratio`` and ``macs`` is given, or when the MAC
    budget cannot be reached.
    """
    if (ratio is None) == (macs is None):
        raise ValueError("give one of ratio and macs")
    if ratio is not None:
        return _one_shot(model, example, ratio, round_to, ignored)
    assert macs is not None
    budget = macs * count_macs(model, example)
    low, high, best = 0.0, 1.0, None
    for _ in range(STEPS):
        middle = (low + high) / 2
        candidate = _one_shot(model, example, middle, round_to, ignored)
        if count_macs(candidate, example) <= budget:
            high, best = middle, candidate
        else:
            low = middle
    if best is None:
        raise ValueError(f"Torch-Pruning keeps more than {macs:.0%} of the MACs at any ratio")
    return best


def _one_shot(
    model: nn.Module,
    example: Tensor,
    ratio: float,
    round_to: int | None,
    ignored: Callable[[nn.Module], Sequence[nn.Module]] | None,
) -> nn.Module:
    import torch_pruning as tp

    model = copy.deepcopy(model).eval()
    pruner = tp.pruner.BasePruner(
        model,
        example,
        importance=tp.importance.GroupMagnitudeImportance(p=2),
        global_pruning=True,
        pruning_ratio=ratio,
        round_to=round_to,
        ignored_layers=list((ignored or classifier)(model)),
        in_channel_groups={},  # its defaults are dictionaries shared between pruners
        out_channel_groups={},
        num_heads={},
    )
    pruner.step()
    return model


def classifier(model: nn.Module) -> list[nn.Module]:
    """The last linear layer of ``model``, alone in a list; an empty list when there is none."""
    linear: list[nn.Module] = [m for m in model.modules() if isinstance(m, nn.Linear)]
    return linear[-1:]
