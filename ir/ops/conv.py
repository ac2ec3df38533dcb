"""Convolutions, pools and resampling: channels flow, space is kept."""

from __future__ import annotations

from ..axes import Axes, pinned
from ..opset import Cost, Fitting, Site, declare, first_carried, moves, zero_after_first, zero_after_weights


def layer_macs(cost: Cost) -> float:
    """For each result one row of the weight, the second operand, whose first axis has a row for each channel."""
    return cost.result() * cost.operand(1) / max(1, cost.sizes(1)[0])


def _transposed_macs(cost: Cost) -> float:
    return cost.operand(0) * cost.operand(1) / max(1, cost.sizes(1)[0])


declare(
    "conv",
    "B (g i) *, (g o) i *, (g o) -> B (g o) *",
    "Convolution in 1, 2 or 3 dimensions; grouped and depthwise.",
    g="groups",
    macs=layer_macs,
    contracts="i",
    zero=zero_after_weights(1),
)
declare(
    "conv_transpose",
    "B (g i) *, (g i) o *, (g o) -> B (g o) *",
    "Transposed convolution, also grouped.",
    g="groups",
    macs=_transposed_macs,
    contracts="i",
    zero=zero_after_weights(1),
)
declare(
    "pixel_shuffle",
    "B (c R S) H W -> B c (H R) (W S)",
    "Depth to space, channels outermost.",
    zero=zero_after_first,
    carries=first_carried,
    R="block",
    S="block",
)
declare(
    "depth_to_space",
    "B (R S c) H W -> B c (H R) (W S)",
    "Depth to space, channels innermost.",
    zero=zero_after_first,
    carries=first_carried,
    R="block",
    S="block",
)
declare(
    "pixel_unshuffle",
    "B c (H R) (W S) -> B (c R S) H W",
    "Space to depth, channels outermost.",
    zero=zero_after_first,
    carries=first_carried,
    R="block",
    S="block",
)
declare(
    "unfold",
    "B c H W -> B (c K) L",
    "Sliding blocks laid out as columns (im2col): K positions of each channel, L blocks.",
    zero=zero_after_first,
    K="block",
)
declare(
    "fold",
    "B (c K) L -> B c H W",
    "Columns of sliding blocks summed into an image (col2im).",
    zero=zero_after_first,
    K="block",
)
declare(
    "space_to_depth",
    "B c (H R) (W S) -> B (R S c) H W",
    "Space to depth, channels innermost.",
    zero=zero_after_first,
    carries=first_carried,
    R="block",
    S="block",
)


def _resized(fitting: Fitting) -> dict[str, object]:
    sizes = fitting.attrs.get("sizes")
    if sizes is None:
        return {}
    counts = [fitting.count(axis) for axis in fitting.site.results[0]]
    full = [len(axis) for axis in fitting.site.results[0]]
    return {"sizes": tuple(c if c != f else s for s, c, f in zip(sizes, counts, full, strict=True))}


@moves("pool", refit=_resized)
def pool(site: Site) -> list[Axes]:
    """Pools and resampling: the last ``spatial`` axes are kept, the others pass."""
    spatial = int(site.attrs["spatial"])
    lead = len(site.x) - spatial
    for axis in site.x[lead:]:
        site.pin(axis, "spatial axis")
    return [[*site.x[:lead], *(pinned(d) for d in shape[lead:])] for shape in site.shapes]
