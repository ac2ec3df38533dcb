"""Normalisations.  ``c!`` says that removing a position is not the same as zeroing it."""

from __future__ import annotations

from collections.abc import Mapping

from ..axes import Axes, pinned
from ..graph import Node
from ..opset import AtDead, Fitting, Site, always_zero, declare, moves, zero_after_operands, zero_after_weights


def _zero(node: Node, at_dead: AtDead) -> bool:
    """With a weight and a bias, zero where these are; without, where the input and the statistics are."""
    affine = len(node.inputs) > 1 and node.inputs[1] is not None
    rule = zero_after_weights(1) if affine else zero_after_operands
    return rule(node, at_dead)


declare(
    "batch_norm", "B c *, c, c, c, c -> B c *", "Batch and instance normalisation: one statistic a channel.", zero=_zero
)
declare("group_norm", "B (g c!) *, (g c), (g c) -> B (g c) *", "Group normalisation.", zero=_zero, g="groups")
declare("local_response_norm", "B C * -> B C *", "Local response normalisation: neighbours matter, so channels stay.")


def _trailing(node: Node) -> Mapping[int, tuple[int, ...]]:
    """The last ``rank`` axes of the input, and all axes of weight and bias."""
    rank, x = int(node.attrs["rank"]), node.inputs[0]
    assert x is not None and x.shape is not None
    last = tuple(range(len(x.shape) - rank, len(x.shape)))
    return {0: last} | {k: tuple(range(rank)) for k, v in enumerate(node.inputs) if k and v is not None}


def _shape(fitting: Fitting) -> dict[str, object]:
    if "shape" not in fitting.attrs:
        return {}
    rank = int(fitting.attrs["rank"])
    return {"shape": tuple(fitting.count(axis) for axis in fitting.x[len(fitting.x) - rank :])}


def _trailing_zero(node: Node, at_dead: AtDead) -> bool:
    """Zero beside the survivors of the normalised axes; along the others where the input is, unless there is a bias."""
    rank = len(node.output.shape or ()) - int(node.attrs["rank"])
    biased = any(v is not None for v in node.inputs[2:3])
    return all(d >= rank for d in at_dead.free(node.output)) or (not biased and at_dead(node.inputs[0]))


@moves("layer_norm", refit=_shape, normalises=_trailing, zero=_trailing_zero)
def layer_norm(site: Site) -> list[Axes]:
    """Layer and RMS normalisation over the last ``rank`` axes (``... c!, c, c -> ... c``)."""
    tail = site.x[len(site.x) - int(site.attrs["rank"]) :]
    for axes in site.axes[1:]:
        for axis, parameter in zip(tail, axes or (), strict=False):
            site.atoms.unify(axis, parameter)
    return [list(site.x) for _ in site.shapes[:1]] + [_kept_statistics(site, shape) for shape in site.shapes[1:]]


def _kept_statistics(site: Site, shape: tuple[int, ...]) -> Axes:
    lead = len(shape) - int(site.attrs["rank"])
    return [*site.x[:lead], *(site.atoms.fresh(1) for _ in shape[lead:])]


def _every_axis(node: Node) -> Mapping[int, tuple[int, ...]]:
    return {k: tuple(range(len(v.shape or ()))) for k, v in enumerate(node.inputs) if v is not None}


@moves("weight_norm", normalises=_every_axis, zero=always_zero)
def weight_norm(site: Site) -> list[Axes]:
    """A weight as direction and magnitude: ``g v / |v|``, one magnitude for each position of ``dim``."""
    direction, magnitude = site.x, site.axes[1] or []
    site.atoms.unify(direction[int(site.attrs["dim"])], magnitude[int(site.attrs["dim"])])
    return [list(direction)]


def _all_but_channels(node: Node) -> Mapping[int, tuple[int, ...]]:
    """All axes of the input but its second."""
    rank = len(node.output.shape or ())
    return {0: tuple(d for d in range(rank) if d != 1)}


def _zero_channels(node: Node, at_dead: AtDead) -> bool:
    """Zero beside the survivors of the normalised axes; along channels where the input is, unless there is a bias."""
    unbiased = all(at_dead(v) for v in node.inputs[2:3] if v is not None)
    return 1 not in at_dead.free(node.output) or (unbiased and at_dead(node.inputs[0]))


@moves("batch_statistics", normalises=_all_but_channels, zero=_zero_channels)
def batch_statistics(site: Site) -> list[Axes]:
    """Batch normalisation by statistics of the batch itself (``B! c *!, c, c -> B c *``): of standardised weights."""
    for axes in site.axes[1:]:
        if axes:
            site.atoms.unify(site.x[1], axes[0])
    return [list(site.x)]


def _last(node: Node) -> Mapping[int, tuple[int, ...]]:
    """The last axis of every operand."""
    shapes = [None if v is None else v.shape for v in node.inputs]
    return {k: (len(shape) - 1,) for k, shape in enumerate(shapes) if shape}


_SUM = 3
"""The result that is the sum itself; those before it, but for the first, are statistics."""


def _zero_last(node: Node, at_dead: AtDead) -> bool:
    """Zero beside the survivors of the normalised axis; along others the bias is not."""
    return all(d == len(node.output.shape or ()) - 1 for d in at_dead.free(node.output))


@moves("layer_norm_of_sum", normalises=_last, zero=_zero_last)
def layer_norm_of_sum(site: Site) -> list[Axes]:
    """Layer norm of a sum, and the sum itself (``... c!, ... c!, c!, c!, c! -> ... c, ...``); ``results`` are there."""
    for axes in site.axes[1:]:
        for a, b in zip(reversed(site.x), reversed(axes or [])):
            site.atoms.unify(a, b)
    results = zip(site.attrs["results"], site.shapes, strict=True)
    return [list(site.x) if k in (0, _SUM) else _kept_statistics(site, shape) for k, shape in results]


@moves("layer_norm_of_tables", normalises=_last, zero=always_zero)
def layer_norm_of_tables(site: Site) -> list[Axes]:
    """Layer norm of rows of tables that are looked up and summed (``V c!, P c!, T c!, c!, c! -> B L c``)."""
    for axes in site.axes:
        for axis in (axes or [])[:-1]:
            site.pin(axis, "indexed by a tensor")
        if axes:
            site.atoms.unify(site.x[-1], axes[-1])
    results = zip(site.attrs["results"], site.shapes, strict=True)
    return [[*map(pinned, shape[:-1]), site.x[-1]] if k != 1 else [*map(pinned, shape)] for k, shape in results]
