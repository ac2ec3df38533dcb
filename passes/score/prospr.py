"""ProsPR: what a connection is worth after a few steps of training."""

from __future__ import annotations

import itertools

from .derivatives import Network
from .scoring import Elements, Scoring, element_criterion

STEPS, RATE, MOMENTUM = 3, 0.5, 0.9


@element_criterion("prospr")
def prospr(scoring: Scoring) -> Elements:
    """|dL/dm| of each element's mask m, L the loss after three steps of gradient descent from the masked weights.

    Each step, and the loss at the end, is on the next batch of samples, from the first again where there are too few.
    The gradient flows through the steps (rate 0.5, momentum 0.9).

    References
    ----------
    Alizadeh et al., Prospect Pruning: Finding Trainable Weights at Initialization using Meta-Gradients, ICLR 2022,
    algorithm 1.
    """
    import torch

    network = Network(scoring, "prospr", training=True)
    batches = itertools.cycle(list(network.examples()))
    masks = network.differentiable_masks()
    weights = {n: w.detach() * masks[n] for n, w in network.weights.items()}
    speeds = {n: torch.zeros_like(w) for n, w in weights.items()}
    for _ in range(STEPS):
        inputs, loss = next(batches)
        found = network.gradients(loss(network.outputs(weights, inputs)), weights, twice=True)
        speeds = {n: MOMENTUM * speeds[n] + g * masks[n] for n, g in found.items()}
        weights = {n: w - RATE * speeds[n] for n, w in weights.items()}
    inputs, loss = next(batches)
    scores = network.gradients(loss(network.outputs(weights, inputs)), masks)
    return network.elements({n: g.abs() for n, g in scores.items()})
