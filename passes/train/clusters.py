"""Clusters: what stands between a parameter and its layer while DKM trains it.

A weight of more elements than there are 16-bit numbers is clustered by its 16-bit values: elements that share one are
as near to each centre, and what is as long as the weight times the centres is never made.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...ir import arrays
from ...ir.packing.palette import Palette

_VALUES = 1 << 16
"""How many 16-bit numbers there are."""

_LIMIT = 4.0
"""How many times the largest gradient of what layers see an element of the weight may get."""


class Clusters(nn.Module):
    """DKM: each vector of a weight is a mean of the centres, weighted by softmax(-distance² / τ).

    The centres (g, k, d), of g groups of rows, are found by a few rounds of soft k-means from those of the last step,
    and gradients go through the rounds.  τ is ``tau`` times the variance of the weight.  ``hard``: each vector is its
    nearest centre.  What is zero at first stays zero and has no part in the centres, so that a network can be pruned
    and then clustered.  Where it is ``scaled`` each row is divided by its largest magnitude first.  Gradients are
    limited (ours): halfway between centres far apart a narrow softmax is a step, and its slope has no bound.

    References
    ----------
    Cho et al., eDKM: An Efficient and Accurate Train-time Weight Clustering for Large Language Models, 2023, section 2
    (unique values; the first-order term that gives equal values their own gradients is ours).
    """

    centres: Tensor
    stays: Tensor
    hard: Tensor
    scale: Tensor

    def __init__(self, weight: Tensor, centres: Tensor, tau: float, rounds: int, *, scaled: bool = False) -> None:
        super().__init__()
        self.tau, self.rounds, self.scaled = tau, rounds, scaled
        self.register_buffer("scale", row_scale(weight) if scaled else weight.new_ones(()).detach())
        self.register_buffer("centres", centres)
        self.register_buffer("stays", weight.detach() != 0)
        self.register_buffer("hard", torch.zeros((), dtype=torch.bool, device=weight.device))

    def forward(self, weight: Tensor) -> Tensor:
        with torch.autocast(weight.device.type, enabled=False):  # distances are differences of squares
            inner = weight.view_as(weight)  # hooks on a parameter would stay
            found = self.clustered(inner)
            if found.requires_grad:
                _limit_gradient(inner, found)
            return found

    def clustered(self, weight: Tensor) -> Tensor:
        """What layers see, with gradients as they are."""
        groups, _, dim = self.centres.shape
        scale = self._scale(weight)
        even = weight / scale if self.scaled else weight
        vectors = even.reshape(groups, -1, dim)
        if self.hard:
            found = self.nearest(vectors)
        elif groups == dim == 1 and weight.numel() > _VALUES:
            found = self._by_values(vectors, self.width(even))
        else:
            width = self.width(even)
            centres = self._moved(vectors, self._live().to(vectors.dtype), width)
            found = torch.softmax(-_distances(vectors, centres) / width, -1) @ centres
        found = torch.where(self.stays, found.reshape(weight.shape), 0)
        return found * scale if self.scaled else found

    def _scale(self, weight: Tensor) -> Tensor:
        """The scale of each row, anew where it trains; a copy, for a second forward may change it before backward."""
        if self.scaled and self.training and not self.hard:
            self.scale.copy_(row_scale(weight))
        return self.scale.clone()

    def palette(self, weight: Tensor) -> Palette | None:
        """The hard weight as a palette; None where zeros are only a part of a vector."""
        groups, k, dim = self.centres.shape
        live = self._live()
        if not torch.equal(live[..., None].expand(*live.shape, dim), self.stays.reshape(*live.shape, dim)):
            return None
        even = weight.detach() / self.scale if self.scaled else weight.detach()
        chosen = torch.where(live, self._nearest(even.reshape(groups, -1, dim)), k)
        zero = self.centres.new_zeros(groups, 0 if bool(live.all()) else 1, dim)
        table = arrays.native(torch.cat([self.centres, zero], 1))
        scale = arrays.to_numpy(self.scale) if self.scaled else None
        return Palette.of(tuple(weight.shape), chosen.cpu().numpy(), table, scale)

    def _live(self) -> Tensor:
        """Whether a vector has an element that is not held at zero (g, n)."""
        groups, _, dim = self.centres.shape
        return self.stays.reshape(groups, -1, dim).any(-1)

    def _moved(self, vectors: Tensor, counts: Tensor, width: Tensor) -> Tensor:
        """The centres after the rounds, of ``vectors`` (g, n, d) that count ``counts`` (g, n) times each."""
        centres = self.centres.to(vectors.dtype, copy=True)
        for _ in range(self.rounds):
            near = torch.softmax(-_distances(vectors, centres) / width, -1) * counts[..., None]
            centres = (near.mT @ vectors) / near.sum(1)[..., None].clamp_min(1e-12)
        if self.training:
            self.centres.copy_(centres.detach())
        return centres

    def _by_values(self, vectors: Tensor, width: Tensor) -> Tensor:
        """The same for numbers (1, n, 1), with centres and softmax of the 16-bit values among them alone.

        A number next to its value u is f(u) + f'(u) (w - u), f' = 2 / τ times the variance of the centres under the
        softmax: the gradient of each is its own.
        """
        flat = vectors.flatten()
        key = flat.detach().half().view(torch.int16).to(torch.int64) + _VALUES // 2
        there = torch.bincount(key, minlength=_VALUES) > 0
        which = (there.cumsum(0) - 1)[key]
        count = torch.zeros(int(there.sum()), dtype=flat.dtype, device=flat.device)
        each = count.index_add(0, which, torch.ones_like(flat))
        live = count.index_add(0, which, self._live().flatten().to(flat.dtype))
        value = (count.index_add(0, which, flat) / each)[None, :, None]
        centres = self._moved(value, live[None], width)
        fixed = value.detach()
        near = torch.softmax(-_distances(fixed, centres) / width, -1)
        mean = near @ centres
        with torch.no_grad():
            slope = 2 / width * (near @ centres.square() - mean.square())
        return mean.flatten()[which] + slope.flatten()[which] * (flat - fixed.flatten()[which])

    def width(self, weight: Tensor) -> Tensor:
        """How soft the choice is, a squared distance."""
        there = weight.detach()[self.stays]
        spread = there.var(correction=0) if there.numel() else there.new_zeros(())
        return (self.tau * spread).clamp_min(torch.finfo(weight.dtype).tiny)

    def nearest(self, vectors: Tensor) -> Tensor:
        """The centre of its group that each of ``vectors`` (g, n, d) is nearest to."""
        centres = self.centres.to(vectors.dtype)
        return torch.stack([c[k] for c, k in zip(centres, self._nearest(vectors), strict=True)])

    def _nearest(self, vectors: Tensor) -> Tensor:
        """Which centre of its group that is (g, n)."""
        centres = self.centres.to(vectors.dtype)
        return torch.stack([_distances(v, c).argmin(-1) for v, c in zip(vectors, centres, strict=True)])


def _limit_gradient(weight: Tensor, found: Tensor) -> None:
    """No element of ``weight`` gets more than :data:`_LIMIT` times the largest gradient that ``found`` gets."""
    largest: list[Tensor] = []
    found.register_hook(lambda gradient: largest.append(_LIMIT * gradient.abs().max()))  # type: ignore[no-untyped-call]
    weight.register_hook(lambda gradient: gradient.clamp(-largest[-1], largest[-1]))  # type: ignore[no-untyped-call]


def row_scale(weight: Tensor) -> Tensor:
    """The largest magnitude of each row (o, 1, …), 1 where it is zero."""
    found = weight.detach().abs().amax(tuple(range(1, weight.dim())), keepdim=True)
    return torch.where(found == 0, torch.ones_like(found), found)


def _distances(vectors: Tensor, centres: Tensor) -> Tensor:
    """Squared distances (…, n, k)."""
    lengths = centres.square().sum(-1)[..., None, :]
    return vectors.square().sum(-1, keepdim=True) - 2 * vectors @ centres.mT + lengths
