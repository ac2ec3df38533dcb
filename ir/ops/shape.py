"""Ops that move positions and compute nothing: reshape, permute, slice, select, expand, take, pad, tile, shuffle."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from ..axes import Axes, Axis, common_factors, pinned
from ..errors import Declined
from ..graph import Node
from ..opset import AtDead, Fitting, Site, all_carried, always_zero, first_carried, moves, zero_after_operands


def _shape(fitting: Fitting) -> dict[str, object]:
    """Sizes of the result: the alive count; a dynamic size is left to the runtime (-1) where it changes."""
    result, old = fitting.site.results[0], fitting.attrs["shape"]
    counts = [fitting.count(axis) for axis in result]
    dynamic = [(-1 if n != len(axis) else None) for n, axis in zip(counts, result, strict=True)]
    return {"shape": tuple(x if s is None else n for s, n, x in zip(old, counts, dynamic, strict=True))}


@moves("reshape", refit=_shape)
def reshape(site: Site) -> list[Axes]:
    """View, flatten, unflatten, squeeze: both shapes are groupings of one row-major grid of factors.

    Axes that have no such grid (``8 7 -> 7 8``) are kept; the others, before and after them, are not concerned.
    """
    return [_reshaped(site)]


def _reshaped(site: Site) -> Axes:
    x, shape = site.x, site.shape
    before = [len(axis) for axis in x]
    if not math.prod(before) or math.prod(before) != math.prod(shape):
        raise Declined(f"{before} -> {list(shape)} has no common grid")
    result: Axes = []
    for axes, sizes in _blocks(x, shape):
        result = _regrouped(site, axes, sizes) + result
    _keep_sizes_computable(site, result)
    return result


@moves("reshape_as", refit=_shape)
def reshape_as(site: Site) -> list[Axes]:
    """A reshape to the shape of a second operand: the result has that operand's axes."""
    result = _reshaped(site)
    for axis, other in zip(result, site.axes[1] or [], strict=True):
        site.atoms.unify(axis, other)
    return [result]


def _blocks(x: Axes, shape: tuple[int, ...]) -> Iterator[tuple[Axes, tuple[int, ...]]]:
    """The shortest runs of axes and of sizes that have the same number of elements, last ones first."""
    i, j = len(x), len(shape)
    while i or j:
        last, end = i, j
        i, j = max(i - 1, 0), max(j - 1, 0)
        while (m := math.prod(map(len, x[i:last]))) != (n := math.prod(shape[j:end])):
            i, j = (i - 1, j) if m < n else (i, j - 1)
        yield x[i:last], shape[j:end]


def _regrouped(site: Site, x: Axes, shape: tuple[int, ...]) -> Axes:
    before = [len(axis) for axis in x]
    factors = common_factors(before, shape)
    if factors is None:
        for axis in x:
            site.pin(axis, f"{before} -> {list(shape)} has no common grid")
        return [pinned(d) for d in shape]
    pool: Axes = []
    for axis, grid in zip(reversed(x), _grouped(before, factors), strict=True):
        pool += reversed(site.atoms.split(axis, grid[::-1])) if grid else []
    result: Axes = []
    for grid in _grouped(shape, factors):
        taken = [pool.pop(0) for _ in grid]
        result.append(site.atoms.merge(taken[::-1]) if taken else pinned(1))
    return result[::-1]


def _grouped(shape: tuple[int, ...] | list[int], factors: list[int]) -> list[list[int]]:
    """The factors (innermost first) of each axis of ``shape``, last axis first."""
    rest, groups = list(factors), []
    for size in reversed(shape):
        group, n = [], 1
        while n < size:
            group.append(rest.pop(0))
            n *= group[-1]
        groups.append(group)
    return groups


def _keep_sizes_computable(site: Site, result: Axes) -> None:
    """At most one dynamic size can be left to the runtime; further dynamic axes keep all their positions."""
    wanted = site.attrs["shape"]
    loose = [axis for axis, size in zip(result, wanted, strict=True) if size is None and axis.any()]
    for axis in loose[1:]:
        site.pin(axis, "two sizes depend on the input")


@moves("permute")
def permute(site: Site) -> list[Axes]:
    """Axes in the order ``dims``."""
    return [[site.x[d] for d in site.attrs["dims"]]]


def _bounds(fitting: Fitting) -> dict[str, object]:
    slices = []
    for d, start, stop, step in fitting.attrs["slices"]:
        axis = fitting.x[d]
        if fitting.count(axis) != len(axis):
            start, stop = fitting.before(axis, start), fitting.before(axis, stop)
        slices.append((d, start, stop, step))
    return {"slices": tuple(slices)}


@moves("slice", refit=_bounds)
def slice_(site: Site) -> list[Axes]:
    """Runs of positions: ``slices`` holds (axis, start, stop, step); a bound that is None depends on the input."""
    result = list(site.x)
    for d, start, stop, step in site.attrs["slices"]:
        if start is None or stop is None or step != 1:
            site.pin(site.x[d], "the bounds depend on the input, or skip positions")
            result[d] = pinned(site.shape[d])
        else:
            result[d] = site.x[d][start:stop]
    return [result]


@moves("slice_scatter", refit=_bounds, zero=zero_after_operands, carries=all_carried)
def slice_scatter(site: Site) -> list[Axes]:
    """The first operand with a run of positions (``slices``, one axis) replaced by the second."""
    source = site.axes[1]
    if source is None:
        raise Declined("what is put in is of unknown rank")
    ((d, start, stop, step),) = site.attrs["slices"]
    if start is None or stop is None or step != 1:
        raise Declined("the bounds depend on the input, or skip positions")
    for k, (axis, other) in enumerate(zip(site.x, source, strict=True)):
        site.atoms.unify(axis[start:stop] if k == d else axis, other)
    return [list(site.x)]


@moves("windows")
def windows(site: Site) -> list[Axes]:
    """Sliding windows along ``dim``, laid out on a last axis of their own; both are kept."""
    d = int(site.attrs["dim"])
    site.pin(site.x[d], "windows are cut from it")
    inner = [pinned(site.shape[k]) if k == d else a for k, a in enumerate(site.x)]
    return [[*inner, pinned(site.shape[-1])]]


def _index(fitting: Fitting) -> dict[str, object]:
    d, index = int(fitting.attrs["dim"]), int(fitting.attrs["index"])
    return {"index": fitting.before(fitting.x[d], index)}


@moves("select", refit=_index)
def select(site: Site) -> list[Axes]:
    """One position of an axis, which is kept."""
    d, index = int(site.attrs["dim"]), int(site.attrs["index"])
    site.pin(site.x[d][index : index + 1], "selected by its number")
    return [[a for k, a in enumerate(site.x) if k != d]]


def _zero_along(node: Node, at_dead: AtDead) -> bool:
    """Zero where the operand is, unless it was repeated to where positions may go."""
    x = node.inputs[0]
    return x is not None and at_dead(x) and at_dead.spans(x, node.output)


@moves("expand", refit=_shape, zero=_zero_along, carries=first_carried)
def expand(site: Site) -> list[Axes]:
    """Axes of size one repeated; a repeated axis is as free as what it meets."""
    x, shape = site.x, site.shape
    lead = len(shape) - len(x)
    sizes = site.attrs["shape"]
    fresh = [pinned(n) if s is None else site.atoms.fresh(n) for n, s in zip(shape, sizes, strict=True)]
    return [[fresh[k] if k < lead or len(x[k - lead]) != n else x[k - lead] for k, n in enumerate(shape)]]


@moves("zeros", refit=_shape, zero=always_zero)
def zeros(site: Site) -> list[Axes]:
    """Zeros of ``shape``: what an initial state is; an axis of floats is as free as what it meets."""
    free = "float" in site.node.outputs[0].dtype
    sizes = zip(site.shape, site.attrs["shape"], strict=True)
    return [[site.atoms.fresh(n) if free and s is not None else pinned(n) for n, s in sizes]]


def _indices(fitting: Fitting) -> dict[str, object]:
    d, indices = int(fitting.attrs["dim"]), np.asarray(fitting.attrs["indices"], np.int64)
    axis, result = fitting.x[d], fitting.site.results[0][d]
    if fitting.count(axis) == len(axis) and fitting.count(result) == len(result):
        return {}
    wanted = indices[fitting.alive[result]]
    new = np.cumsum(fitting.alive[axis]) - 1
    return {"indices": tuple(int(i) for i in new[wanted])}


@moves("take", refit=_indices)
def take(site: Site) -> list[Axes]:
    """Positions of one axis by a constant vector of ``indices``; also what a channel shuffle becomes.

    A ``soft`` one is an edge that may be cut: its reader may do without positions that stay alive for others.
    """
    d, indices = int(site.attrs["dim"]), np.asarray(site.attrs["indices"], np.int64)
    taken = site.x[d][indices]
    if site.attrs.get("soft"):
        taken = site.atoms.read(taken)
    return [[taken if k == d else axis for k, axis in enumerate(site.x)]]


@moves("index")
def index(site: Site) -> list[Axes]:
    """Advanced indexing of ``dims`` by tensors: the indexed axes are kept, the others pass."""
    dims: tuple[int, ...] = tuple(site.attrs["dims"])
    for d in dims:
        site.pin(site.x[d], "indexed by a tensor")
    for axes in site.axes[1:]:
        for axis in axes or ():
            site.pin(axis, "the index itself")
    rest = [axis for d, axis in enumerate(site.x) if d not in dims]
    width = len(site.shape) - len(rest)
    adjacent = dims == tuple(range(dims[0], dims[0] + len(dims)))
    at = dims[0] if adjacent else 0
    return [[*rest[:at], *(pinned(n) for n in site.shape[at : at + width]), *rest[at:]]]


@moves("gather")
def gather(site: Site) -> list[Axes]:
    """For each element of the index one of ``dim``, which is kept; along the other axes the two go together."""
    d, index = int(site.attrs["dim"]), site.axes[1] or []
    for k, (axis, chosen) in enumerate(zip(site.x, index, strict=True)):
        if k == d or len(axis) != len(chosen):
            site.pin(axis, "gathered by a tensor" if k == d else "gathered in part")
            site.pin(chosen, "the index itself")
        else:
            site.atoms.unify(axis, chosen)
    return [list(index)]


def _pads(fitting: Fitting) -> dict[str, object]:
    pads = []
    for (before, after), axis in zip(fitting.attrs["pads"], fitting.site.results[0], strict=True):
        pads.append((fitting.count(axis[:before]), fitting.count(axis[len(axis) - after :]) if after else 0))
    return {"pads": tuple(pads)}


def _padded_with_zeros(node: Node, at_dead: AtDead) -> bool:
    return at_dead.holds(node.inputs[0], float(node.attrs.get("value", 0)))


@moves("pad", refit=_pads, zero=_padded_with_zeros, carries=first_carried)
def pad(site: Site) -> list[Axes]:
    """Padding: ``pads`` holds (before, after) for each axis; a position padded by a constant may be dropped."""
    constant = site.attrs.get("mode", "constant") == "constant"
    result: Axes = []
    for axis, size, (before, after) in zip(site.x, site.shape, site.attrs["pads"], strict=True):
        if before < 0 or after < 0:
            raise Declined("negative padding")
        if before + len(axis) + after != size:
            raise Declined(f"{len(axis)} positions padded by {before} and {after} are not {size}")
        if not constant and (before or after):
            site.pin(axis, "neighbours along this axis are repeated")
            result.append(pinned(before + len(axis) + after))
            continue
        result.append(np.concatenate([_padding(site, axis, before), axis, _padding(site, axis, after)]))
    return [result]


def _padding(site: Site, axis: Axis, size: int) -> Axis:
    if not axis.any() or size == 0:
        return pinned(size)
    site.atoms.count += size
    return np.arange(site.atoms.count - size, site.atoms.count, dtype=np.int64)


@moves("tile")
def tile(site: Site) -> list[Axes]:
    """The whole tensor repeated ``repeats`` times along each axis; None where that depends on the input's sizes."""
    repeats = site.attrs["repeats"]
    x = [pinned(1)] * (len(repeats) - len(site.x)) + list(site.x)
    for axis in (axis for axis, r in zip(x, repeats, strict=True) if r is None):
        site.pin(axis, "repeated as often as the input's sizes say")
    return [[pinned(n) if r is None else np.tile(axis, r) for axis, r, n in zip(x, repeats, site.shape, strict=True)]]


@moves("repeat_each")
def repeat_each(site: Site) -> list[Axes]:
    """Each position of axis ``dim`` repeated ``repeats`` times in place."""
    d, repeats = int(site.attrs["dim"]), int(site.attrs["repeats"])
    return [[np.repeat(axis, repeats) if k == d else axis for k, axis in enumerate(site.x)]]


@moves("flip")
def flip(site: Site) -> list[Axes]:
    """Axes ``dims`` in reverse order."""
    return [[axis[::-1].copy() if k in site.attrs["dims"] else axis for k, axis in enumerate(site.x)]]
