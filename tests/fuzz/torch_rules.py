"""One rule for each thing that a torch network can do to a value; see ``torch_program.py``.

``g`` is the maker, ``x`` the value that the rule reads.  ``g.step(lambda net, t: ..., x)`` appends a step.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .program import IMAGE, SEQUENCE, VECTOR, Unfit
from .torch_program import Maker, Val, rule

# ---------------------------------------------------------------------- layers


@rule(IMAGE)
def conv2d(g: Maker, x: Val) -> None:
    o, k = g.width(), g.pick((1, 3))
    padding, stride = g.pick((0, k // 2, "same")) if min(x.shape[2:]) >= k else k // 2, g.pick((1, 1, 1, 2))
    layer = nn.Conv2d(
        x.width, o, k, 1 if padding == "same" else stride, padding, groups=g.divisor(x.width, o), bias=g.chance(0.7),
        padding_mode=g.pick(("zeros", "zeros", "zeros", "replicate")),
    )  # fmt: skip
    name = g.layer(layer)
    g.step(lambda net, t: net[name](t), x)


@rule(IMAGE)
def depthwise(g: Maker, x: Val) -> None:
    name = g.layer(nn.Conv2d(x.width, x.width * g.pick((1, 1, 2)), 3, padding=1, groups=x.width, dilation=1))
    g.step(lambda net, t: net[name](t), x)


@rule(IMAGE)
def conv_of_computed_weights(g: Maker, x: Val) -> None:
    """Standardised, or gated, weights."""
    name, gated = g.parameter(g.width(), x.width, 1, 1), g.chance(0.5)

    def run(net: nn.Module, t: Tensor) -> Tensor:
        w = net[name]  # type: ignore[index]
        return F.conv2d(t, torch.sigmoid(w) if gated else w - w.mean((1, 2, 3), keepdim=True))

    g.step(run, x)


@rule(IMAGE)
def conv_transpose2d(g: Maker, x: Val) -> None:
    o = g.width()
    name = g.layer(nn.ConvTranspose2d(x.width, o, 2, g.pick((1, 2)), groups=g.divisor(x.width, o)))
    g.step(lambda net, t: net[name](t), x)


@rule(SEQUENCE)
def conv1d(g: Maker, x: Val) -> None:
    o = g.width()
    name = g.layer(nn.Conv1d(x.width, o, 3, padding=1, groups=g.divisor(x.width, o)))
    g.step(lambda net, t: net[name](t.transpose(1, 2)).transpose(1, 2), x)


@rule(SEQUENCE)
def conv_transpose1d(g: Maker, x: Val) -> None:
    name = g.layer(nn.ConvTranspose1d(x.width, g.width(), 2))
    g.step(lambda net, t: net[name](t.mT).mT, x)


@rule(IMAGE)
def conv3d(g: Maker, x: Val) -> None:
    """Features as depth for a moment."""
    name = g.layer(nn.Conv3d(x.width, g.width(), (1, 3, 3), padding=(0, 1, 1)))
    pool = g.pick((nn.MaxPool3d((1, 2, 2), 1), nn.AvgPool3d((1, 2, 2), 1), nn.Identity()))
    g.step(lambda net, t: pool(net[name](t.unsqueeze(2))).squeeze(2), x)


@rule()
def linear(g: Maker, x: Val) -> None:
    name, d = g.layer(nn.Linear(x.width, g.width(), bias=g.chance(0.7))), x.feature
    g.step(lambda net, t: net[name](t.movedim(d, -1)).movedim(-1, d), x)


@rule(SEQUENCE)
def linear_over_steps(g: Maker, x: Val) -> None:
    name = g.layer(nn.Linear(x.shape[1], g.pick((4, 5, 6))))
    g.step(lambda net, t: net[name](t.transpose(1, 2)).transpose(1, 2), x)


@rule(VECTOR)
def addmm(g: Maker, x: Val) -> None:
    o = g.width()
    w, b = g.parameter(x.width, o), g.parameter(o)
    g.step(lambda net, t: torch.addmm(net[b], t, net[w]), x)


@rule(VECTOR)
def linear_of_gated_weights(g: Maker, x: Val) -> None:
    w = g.parameter(g.width(), x.width)
    g.step(lambda net, t: F.linear(t, torch.sigmoid(net[w])), x)


@rule(VECTOR)
def linear_of_normalised_weights(g: Maker, x: Val) -> None:
    o = g.width()
    v, m = g.parameter(o, x.width), g.parameter(o, 1)
    g.step(lambda net, t: F.linear(t, torch._weight_norm(net[v], net[m], 0)), x)


@rule(VECTOR)
def linear_of_standardised_weights(g: Maker, x: Val) -> None:
    """Each row of a weight normalised by its own mean and variance, as a batch of one."""
    o = g.width()
    w, m = g.parameter(o, x.width), g.parameter(o)

    def rows(net: Any) -> Tensor:
        return F.batch_norm(net[w][None], None, None, net[m], training=True)[0]

    g.step(lambda net, t: F.linear(t, rows(net)), x)


@rule(IMAGE)
def unfolded(g: Maker, x: Val) -> None:
    """Sliding blocks as columns, through a layer or put back."""
    if min(x.shape[2:]) < 3:
        raise Unfit("too small")
    size, back = x.shape[2:], g.chance(0.5)

    def run(net: nn.Module, t: Tensor) -> Tensor:
        columns = F.unfold(t, 2)
        return F.fold(torch.relu(columns), size, 2) if back else columns.transpose(1, 2)

    g.step(run, x)


@rule()
def windowed(g: Maker, x: Val) -> None:
    d = g.integer(1, x.tensor.ndim - 1)
    if x.shape[d] < 2:
        raise Unfit("too small")
    g.step(lambda net, t: t.unfold(d, 2, 1).mean(-1), x)


@rule()
def gathered(g: Maker, x: Val) -> None:
    d = g.integer(1, x.tensor.ndim - 1)
    g.step(lambda net, t: t.gather(d, (t > 0).long()), x)


@rule()
def converted(g: Maker, x: Val) -> None:
    g.step(lambda net, t: (t > 0).type_as(t) * t, x)


@rule(VECTOR)
def linear_of_two_factors(g: Maker, x: Val) -> None:
    """A weight of low rank, multiplied out."""
    r = g.pick((2, 3, 4))
    a, b = g.parameter(g.width(), r), g.parameter(r, x.width)
    g.step(lambda net, t: F.linear(t, net[a] @ net[b]), x)


@rule(VECTOR)
def matvec(g: Maker, x: Val) -> None:
    v = g.parameter(x.width)
    g.step(lambda net, t: t * torch.mv(t, net[v]).unsqueeze(1), x)


@rule(SEQUENCE)
def baddbmm(g: Maker, x: Val) -> None:
    y = g.partner(x, lambda v: v.shape == x.shape)
    g.step(lambda net, a, b: torch.baddbmm(a, torch.bmm(a, b.mT), b), x, y)


@rule(SEQUENCE)
def einsum(g: Maker, x: Val) -> None:
    equation, shape = g.pick((
        ("btd,hdk->bthk", (2, x.width, 3)),
        ("btd,de->bte", (x.width, 5)),
        ("b t d, t e d -> b t e", (x.shape[1], 4, x.width)),
    ))  # fmt: skip
    w = g.parameter(*shape)
    g.step(lambda net, t: torch.einsum(equation, torch.tanh(t), net[w]).flatten(2), x)


@rule(VECTOR)
def einsum_of_two(g: Maker, x: Val) -> None:
    y = g.partner(x, lambda v: v.tensor.ndim == VECTOR)
    equation = g.pick(("bi,bj->bij", "bi,bj->bi", "bi,bj->bj"))
    inner = g.pick((torch.tanh, torch.sigmoid, torch.cos))
    g.step(lambda net, a, b: torch.einsum(equation, inner(a), inner(b)), x, y)


@rule(VECTOR)
def embedding(g: Maker, x: Val) -> None:
    """Classes of the values looked up, and joined to them."""
    name = g.layer(nn.Embedding(3, g.width()))
    g.step(lambda net, t: net[name]((t > 0).long()).mean(1), x)


@rule(SEQUENCE)
def recurrent(g: Maker, x: Val) -> None:
    kind, h = g.pick((nn.LSTM, nn.GRU, nn.RNN)), g.pick((3, 4))
    options = {"num_layers": g.pick((1, 1, 2)), "bidirectional": g.chance(0.3), "bias": g.chance(0.7)}
    if kind is nn.LSTM and g.chance(0.3):
        options["proj_size"] = 2
    name, last = g.layer(kind(x.width, h, batch_first=True, **options)), g.chance(0.3)

    def run(net: nn.Module, t: Tensor) -> Tensor:
        steps, state = net[name](t)  # type: ignore[index]
        found: Tensor = (state[0] if isinstance(state, tuple) else state).transpose(0, 1) if last else steps
        return found

    g.step(run, x)


@rule(VECTOR)
def cell(g: Maker, x: Val) -> None:
    h, kind = g.pick((3, 4)), g.pick((nn.GRUCell, nn.RNNCell, nn.LSTMCell))
    name = g.layer(kind(x.width, h))
    g.step(lambda net, t: net[name](t), x) if kind is not nn.LSTMCell else g.steps(lambda net, t: net[name](t), x)


# ---------------------------------------------------------------------- norms


@rule(IMAGE, VECTOR)
def batch_norm(g: Maker, x: Val) -> None:
    kind = nn.BatchNorm2d if x.tensor.ndim == IMAGE else nn.BatchNorm1d
    name = g.layer(kind(x.width, affine=g.chance(0.8)))
    g.step(lambda net, t: net[name](t), x)


@rule(IMAGE)
def instance_norm(g: Maker, x: Val) -> None:
    name = g.layer(nn.InstanceNorm2d(x.width, affine=g.chance(0.5)))
    if min(x.shape[2:]) < 2:
        raise Unfit("one position has no variance")
    g.step(lambda net, t: net[name](t), x)


@rule(IMAGE)
def group_norm(g: Maker, x: Val) -> None:
    if min(x.shape[2:]) < 2:
        raise Unfit("one position has no variance")
    name = g.layer(nn.GroupNorm(g.divisor(x.width), x.width, affine=g.chance(0.8)))
    g.step(lambda net, t: net[name](t), x)


@rule(SEQUENCE, VECTOR)
def layer_norm(g: Maker, x: Val) -> None:
    kind = g.pick((nn.LayerNorm, nn.LayerNorm, nn.RMSNorm))
    name = g.layer(kind(x.width, eps=0.1))
    g.step(lambda net, t: net[name](t), x)


@rule(IMAGE)
def layer_norm_of_images(g: Maker, x: Val) -> None:
    if g.chance(0.5):
        name = g.layer(nn.LayerNorm(x.shape[1:], eps=0.1))
        g.step(lambda net, t: net[name](t), x)
    else:
        name = g.layer(nn.LayerNorm(x.width, eps=0.1, bias=g.chance(0.7)))
        g.step(lambda net, t: net[name](t.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), x)


@rule(IMAGE)
def local_response_norm(g: Maker, x: Val) -> None:
    g.step(lambda net, t: F.local_response_norm(t, 3), x)


@rule(IMAGE)
def global_response_norm(g: Maker, x: Val) -> None:
    gamma = g.parameter(1, x.width, 1, 1)

    def run(net: nn.Module, t: Tensor) -> Tensor:
        n = torch.linalg.vector_norm(t, dim=(2, 3), keepdim=True)
        return net[gamma] * (t * (n / (n.mean(1, keepdim=True) + 0.1))) + t  # type: ignore[index, no-any-return]

    g.step(run, x)


@rule()
def normalised(g: Maker, x: Val) -> None:
    """Softmax, a norm of length one, or a deviation from the mean, over some axis."""
    d = g.integer(1, x.tensor.ndim - 1)
    run = g.pick((
        lambda net, t: torch.softmax(t, d),
        lambda net, t: torch.log_softmax(t, d),
        lambda net, t: t / (1 + torch.linalg.vector_norm(t, dim=d, keepdim=True)),
        lambda net, t: F.normalize(t, dim=d, eps=0.1),
        lambda net, t: t - t.mean(d, keepdim=True),
        lambda net, t: t / (1 + t.var(d, keepdim=True, correction=0)),
    ))  # fmt: skip
    g.step(run, x)


# ---------------------------------------------------------------------- functions of elements


_FUNCTIONS = (
    torch.relu, torch.tanh, torch.sigmoid, F.gelu, F.silu, F.elu, F.softplus, F.hardswish, torch.cos, torch.exp,
    torch.abs, torch.square, torch.sin, F.leaky_relu, F.mish, F.selu, F.hardsigmoid, F.relu6, torch.erf, F.celu,
)  # fmt: skip


@rule()
def function(g: Maker, x: Val) -> None:
    f = g.pick(_FUNCTIONS)
    g.step(lambda net, t: f(t), x)


@rule()
def number(g: Maker, x: Val) -> None:
    """Arithmetic with a plain number."""
    c = g.pick((0.5, -1.5, 2.0))
    run = g.pick((
        lambda net, t: t + c,
        lambda net, t: c - t,
        lambda net, t: t * c,
        lambda net, t: t / c,
        lambda net, t: t.clamp(min=-1.0, max=c + 2),
        lambda net, t: (t.abs() + 1) ** c,
        lambda net, t: t.masked_fill(t > c, c),
    ))  # fmt: skip
    g.step(run, x)


@rule()
def gain(g: Maker, x: Val) -> None:
    """A learned number: one, one for each feature, or one for each element."""
    shape = [1] * (x.tensor.ndim - 1)
    if (form := g.pick(("one", "feature", "element"))) == "feature":
        shape[x.feature - 1] = x.width
    elif form == "element":
        shape = list(x.shape[1:])
    name, adds = g.parameter(*shape), g.chance(0.5)
    g.step(lambda net, t: t + net[name] if adds else t * net[name], x)


@rule()
def fixed(g: Maker, x: Val) -> None:
    """A buffer, or numbers made on the way."""
    d, n = x.feature, x.width
    form = [1] * x.tensor.ndim
    form[d] = n
    held = g.buffer(torch.linspace(-1, 1, n, dtype=torch.float64).view(form))
    run = g.pick((
        lambda net, t: t + net[held],
        lambda net, t: t * net[held],
        lambda net, t: t + torch.arange(n, dtype=t.dtype).view(form),
        lambda net, t: torch.where(net[held] > 0, t, 0.5),
        lambda net, t: t.masked_fill(net[held] > 0, 0.0),
        lambda net, t: t * torch.ones_like(t) + torch.full((n,), 0.5, dtype=t.dtype).view(form),
    ))  # fmt: skip
    g.step(run, x)


@rule()
def sized(g: Maker, x: Val) -> None:
    """Numbers made from sizes of the input, whatever its batch."""
    run = g.pick((
        lambda net, t: t / t.shape[0],
        lambda net, t: t + torch.arange(t.shape[0], dtype=t.dtype).view(-1, *[1] * (t.ndim - 1)),
        lambda net, t: t * torch.ones(t.shape[0], *[1] * (t.ndim - 1), dtype=t.dtype),
        lambda net, t: torch.cat([t, t.new_zeros(t.shape)], t.ndim - 1),
    ))  # fmt: skip
    g.step(run, x)


@rule(IMAGE, VECTOR)
def prelu(g: Maker, x: Val) -> None:
    name = g.layer(nn.PReLU(x.width if g.chance(0.7) else 1))
    g.step(lambda net, t: net[name](t), x)


@rule()
def glu(g: Maker, x: Val) -> None:
    d = x.feature
    if x.width % 2:
        raise Unfit("odd")
    g.step(lambda net, t: F.glu(t, d), x)


@rule()
def dropout(g: Maker, x: Val) -> None:
    name = g.layer(nn.Dropout2d(0.5) if x.tensor.ndim == IMAGE else nn.Dropout(0.5))
    g.step(lambda net, t: net[name](t), x)


@rule()
def with_another(g: Maker, x: Val) -> None:
    """Arithmetic with another value of the same shape, or one that is broadcast."""
    y = g.partner(x, lambda v: _broadcasts(v.shape, x.shape))
    run = g.pick((
        lambda net, a, b: a + b,
        lambda net, a, b: a - b,
        lambda net, a, b: a * torch.sigmoid(b),
        lambda net, a, b: torch.maximum(a, b),
        lambda net, a, b: torch.where(a > b, a, b),
        lambda net, a, b: torch.lerp(a, b, 0.3),
        lambda net, a, b: a / (1 + b.abs()),
    ))  # fmt: skip
    g.step(run, x, y)


def _broadcasts(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    return len(a) == len(b) and all(m in (1, n) for m, n in zip(a, b, strict=True))


@rule()
def residual(g: Maker, x: Val) -> None:
    """A layer added to what goes in."""
    name, d = g.layer(nn.Linear(x.width, x.width)), x.feature
    g.step(lambda net, t: t + torch.tanh(net[name](t.movedim(d, -1)).movedim(-1, d)), x)


@rule()
def triangle(g: Maker, x: Val) -> None:
    """What lies below a diagonal of the last two axes."""
    f = g.pick((torch.tril, torch.triu))
    g.step(lambda net, t: f(t), x)


@rule()
def in_place(g: Maker, x: Val) -> None:
    d, k = x.feature, g.integer(1, x.width)
    run = g.pick((
        lambda net, t: t.clone().add_(1.0).mul_(0.5),
        lambda net, t: _changed(t, d, k),
        lambda net, t: _changed_by_view(t),
        lambda net, t: torch.relu_(t.clone()),
    ))  # fmt: skip
    g.step(run, x)


def _changed(t: Tensor, d: int, k: int) -> Tensor:
    t = t.clone()
    t.narrow(d, 0, k).mul_(0.5)
    return t


def _changed_by_view(t: Tensor) -> Tensor:
    t = t.clone()
    t.movedim(1, -1).flatten(0, 1).mul_(0.5)
    return t


# ---------------------------------------------------------------------- joins and parts


@rule()
def cat(g: Maker, x: Val) -> None:
    d = x.feature
    y = g.partner(x, lambda v: v.tensor.ndim == x.tensor.ndim and _alike(v.shape, x.shape, d))
    parts = [x, y, *([x] if g.chance(0.2) else [])]
    g.step(lambda net, *ts: torch.cat(ts, d), *parts)


def _alike(a: tuple[int, ...], b: tuple[int, ...], besides: int) -> bool:
    return all(m == n for k, (m, n) in enumerate(zip(a, b, strict=True)) if k != besides)


@rule()
def stack(g: Maker, x: Val) -> None:
    y, d = g.partner(x, lambda v: v.shape == x.shape), g.integer(1, x.tensor.ndim)
    k = g.pick((0, 1))
    run = g.pick((
        lambda net, a, b: torch.stack([a, b], d).sum(d),
        lambda net, a, b: torch.stack([a, b], d).unbind(d)[k],
        lambda net, a, b: torch.stack([a, b], d).select(d, k) + a,
        lambda net, a, b: torch.stack([a, b], d).flatten(d - 1, d) if d > 1 else a + b,
    ))  # fmt: skip
    g.step(run, x, y)


@rule()
def split(g: Maker, x: Val) -> None:
    """An axis in pieces, which all stay values of the program."""
    d, n = x.feature, x.width
    if n < 3:
        raise Unfit("too narrow")
    a = g.integer(1, n - 1)
    run = g.pick((
        lambda net, t: t.chunk(2, d),
        lambda net, t: t.split([a, n - a], d),
        lambda net, t: t.tensor_split(2, d),
        lambda net, t: torch.split(t, max(1, n // 2), d),
        lambda net, t: (t.narrow(d, 0, a), t.narrow(d, a, n - a)),
    ))  # fmt: skip
    g.steps(run, x)


@rule()
def swapped_parts(g: Maker, x: Val) -> None:
    d, k = x.feature, g.integer(1, max(1, x.width - 1))
    g.step(lambda net, t: torch.cat([torch.relu(t.narrow(d, k, t.shape[d] - k)), t.narrow(d, 0, k)], d), x)


@rule()
def slice_(g: Maker, x: Val) -> None:
    d = g.integer(1, x.tensor.ndim - 1)
    n = x.shape[d]
    a = g.integer(0, max(0, n - 2))
    b, step = g.integer(a + 1, n), g.pick((1, 1, 1, 2))
    index = (slice(None),) * d + (g.pick((slice(a, b, step), slice(a - n, b, step), slice(a, None), slice(None, b))),)
    g.step(lambda net, t: t[index], x)


@rule()
def select(g: Maker, x: Val) -> None:
    d = g.integer(1, x.tensor.ndim - 1)
    k = g.integer(-x.shape[d], x.shape[d] - 1)
    keep = g.chance(0.5) or x.tensor.ndim == VECTOR
    g.step(lambda net, t: t.select(d, k).unsqueeze(d) * t if keep else t.select(d, k), x)


@rule()
def picked(g: Maker, x: Val) -> None:
    """Positions by an index that is a constant."""
    d = g.integer(1, x.tensor.ndim - 1)
    order = g.buffer(torch.randint(0, x.shape[d], (g.pick((3, 4, 5)),)))
    index = (slice(None),) * d
    run = g.pick((
        lambda net, t: t.index_select(d, net[order]),
        lambda net, t: t[(*index, net[order])],
        lambda net, t: torch.gather(t, d, net[order].view([-1 if k == d else 1 for k in range(t.ndim)]).expand(
            [-1 if k == d else n for k, n in enumerate(t.shape)])),
    ))  # fmt: skip
    g.step(run, x)


@rule()
def ranked(g: Maker, x: Val) -> None:
    d = g.integer(1, x.tensor.ndim - 1)
    k = g.integer(1, x.shape[d])
    run = g.pick((
        lambda net, t: t.topk(k, d).values,
        lambda net, t: t.sort(d).values,
        lambda net, t: t.cumsum(d),
        lambda net, t: t + t.max(d, keepdim=True).values,
        lambda net, t: t + t.argmax(d, keepdim=True),
        lambda net, t: t.cumprod(d),
    ))  # fmt: skip
    g.step(run, x)


@rule()
def reordered(g: Maker, x: Val) -> None:
    d, by = g.integer(1, x.tensor.ndim - 1), g.integer(1, 3)
    run = g.pick((
        lambda net, t: t.flip(d),
        lambda net, t: torch.roll(t, by, d),
        lambda net, t: t.flip(tuple(range(1, t.ndim))),
    ))  # fmt: skip
    g.step(run, x)


@rule()
def repeated(g: Maker, x: Val) -> None:
    d = x.feature
    counts = [2 if k == d else 1 for k in range(x.tensor.ndim)]
    run = g.pick((
        lambda net, t: t.repeat(counts),
        lambda net, t: torch.tile(t, counts),
        lambda net, t: torch.repeat_interleave(t, 2, dim=d),
        lambda net, t: t.unsqueeze(d).expand([-1] * d + [2] + [-1] * (t.ndim - d)).flatten(d, d + 1),
        lambda net, t: t.mean(d, keepdim=True).expand_as(t),
    ))  # fmt: skip
    g.step(run, x)


@rule()
def pad(g: Maker, x: Val) -> None:
    d, a, b = g.integer(1, x.tensor.ndim - 1), g.integer(0, 2), g.integer(0, 2)
    pads = [0, 0] * (x.tensor.ndim - 1 - d) + [a, b]
    value = g.pick((0.0, 1.0))
    run = g.pick((
        lambda net, t: F.pad(t, pads, value=value),
        lambda net, t: torch.cat([t.new_zeros([3 if k == d else n for k, n in enumerate(t.shape)]), t], d),
    ))  # fmt: skip
    g.step(run, x)


@rule()
def reduced(g: Maker, x: Val) -> None:
    d, keep = g.integer(1, x.tensor.ndim - 1), g.chance(0.5) or x.tensor.ndim == VECTOR
    f = g.pick((torch.mean, torch.sum, torch.amax, torch.amin, torch.logsumexp, torch.prod, torch.std))
    g.step(lambda net, t: t + f(t, d, keepdim=True) if keep else f(t, d), x)


# ---------------------------------------------------------------------- shapes


@rule(IMAGE, SEQUENCE)
def flatten(g: Maker, x: Val) -> None:
    run = g.pick((
        lambda net, t: t.flatten(1),
        lambda net, t: t.reshape(t.shape[0], -1),
        lambda net, t: t.movedim(1, -1).flatten(1),
    ))  # fmt: skip
    g.step(run, x)


@rule()
def regrouped(g: Maker, x: Val) -> None:
    """Features as groups for a moment, or for good: shuffles, heads, and grids that fit nothing."""
    d, n = x.feature, x.width
    k = g.divisor(n)
    if k == 1:
        raise Unfit("one group")
    run = g.pick((
        lambda net, t: t.unflatten(d, (k, n // k)).transpose(d, d + 1).flatten(d, d + 1),
        lambda net, t: torch.relu(t.unflatten(d, (k, n // k)).transpose(d, d + 1)).flatten(d, d + 1),
        lambda net, t: t.unflatten(d, (k, n // k)).sum(d),
        lambda net, t: t.unflatten(d, (k, -1)).softmax(d + 1).flatten(d, d + 1),
        lambda net, t: t.unflatten(d, (-1, k))[(slice(None),) * (d + 1) + (0,)],
        lambda net, t: t + t.unflatten(d, (k, n // k)).mean(d + 1, keepdim=True).expand(
            [-1] * (d + 1) + [n // k] + [-1] * (t.ndim - d - 1)).flatten(d, d + 1),
    ))  # fmt: skip
    g.step(run, x)


@rule(SEQUENCE)
def reshaped(g: Maker, x: Val) -> None:
    """Steps and features read in another order."""
    t, d = x.shape[1:]
    run = g.pick((
        lambda net, v: v.reshape(v.shape[0], d, t),
        lambda net, v: v.transpose(1, 2),
        lambda net, v: v.transpose(1, 2).reshape(v.shape),
        lambda net, v: v.reshape_as(v.transpose(1, 2)),
    ))  # fmt: skip
    g.step(run, x)


@rule(IMAGE, SEQUENCE)
def there_and_back(g: Maker, x: Val) -> None:
    """Flat for a moment, then as before."""
    run = g.pick((
        lambda net, t: torch.tanh(t.flatten(1)).reshape_as(t),
        lambda net, t: torch.tanh(t.flatten(1)).view_as(t),
        lambda net, t: torch.tanh(t.flatten(1)).view(t.shape),
    ))  # fmt: skip
    g.step(run, x)


@rule(IMAGE)
def to_sequence(g: Maker, x: Val) -> None:
    g.step(lambda net, t: t.flatten(2).transpose(1, 2), x)


@rule(SEQUENCE)
def to_image(g: Maker, x: Val) -> None:
    h = next((h for h in (2, 3, 4, 5, 6) if h * h == x.shape[1]), None)
    if h is None:
        raise Unfit("no square")
    g.step(lambda net, t: t.mT.unflatten(2, (h, h)), x)


@rule(VECTOR)
def to_sequence_of_parts(g: Maker, x: Val) -> None:
    k = g.divisor(x.width)
    g.step(lambda net, t: t.view(t.shape[0], k, -1), x)


@rule(SEQUENCE)
def to_vector(g: Maker, x: Val) -> None:
    f = g.pick((lambda t: t.mean(1), lambda t: t[:, -1], lambda t: t[:, 0], lambda t: t.amax(1)))
    g.step(lambda net, t: f(t), x)


@rule(IMAGE)
def to_vector_by_pooling(g: Maker, x: Val) -> None:
    f = g.pick((
        lambda t: t.mean((2, 3)),
        lambda t: F.adaptive_avg_pool2d(t, 1).flatten(1),
        lambda t: F.adaptive_max_pool2d(t, 1).squeeze(-1).squeeze(-1),
        lambda t: F.adaptive_avg_pool2d(t, 2).flatten(1),
    ))  # fmt: skip
    g.step(lambda net, t: f(t), x)


@rule(IMAGE)
def pool(g: Maker, x: Val) -> None:
    if min(x.shape[2:]) < 3:
        raise Unfit("too small")
    f = g.pick((
        lambda t: F.max_pool2d(t, 2),
        lambda t: F.avg_pool2d(t, 3, 1, 1),
        lambda t: F.lp_pool2d(t, 2, 2),
        lambda t: F.max_pool2d(t, 3, 1, 1),
        lambda t: F.adaptive_avg_pool2d(t, (2, 3)),
    ))  # fmt: skip
    g.step(lambda net, t: f(t), x)


@rule(IMAGE)
def resized(g: Maker, x: Val) -> None:
    if max(x.shape[2:]) > 8:
        raise Unfit("too large")
    f = g.pick((
        lambda t: F.interpolate(t, scale_factor=2),
        lambda t: F.interpolate(t, (5, 4), mode="bilinear"),
        lambda t: F.interpolate(t, (5, 4), mode="bicubic"),
        lambda t: F.pad(t, (1, 1, 1, 1), mode="replicate"),
        lambda t: F.pad(t, (1, 0, 0, 1), mode="reflect") if min(t.shape[2:]) > 1 else t,
        lambda t: F.pad(t, (1, 0, 0, 1), mode="circular"),
    ))  # fmt: skip
    g.step(lambda net, t: f(t), x)


@rule(IMAGE)
def pixel_shuffle(g: Maker, x: Val) -> None:
    if x.width % 4 == 0 and max(x.shape[2:]) < 6:
        g.step(lambda net, t: F.pixel_shuffle(t, 2), x)
    elif x.shape[2] % 2 == 0 and x.shape[3] % 2 == 0:
        g.step(lambda net, t: F.pixel_unshuffle(t, 2), x)
    else:
        raise Unfit("sizes are odd")


@rule(IMAGE)
def windows(g: Maker, x: Val) -> None:
    _, c, h, w = x.shape
    if h % 2 or w % 2:
        raise Unfit("sizes are odd")
    back = g.chance(0.6)

    def run(net: nn.Module, t: Tensor) -> Tensor:
        t = t.view(t.shape[0], c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 3, 5, 1).reshape(-1, 4, c)
        if not back:
            return t.reshape(-1, h * w, c)
        t = torch.softmax(t @ t.mT, -1) @ t
        return t.view(-1, h // 2, w // 2, 2, 2, c).permute(0, 5, 1, 3, 2, 4).reshape(-1, c, h, w)

    g.step(run, x)


# ---------------------------------------------------------------------- blocks


@rule(SEQUENCE)
def attention(g: Maker, x: Val) -> None:
    """Packed projections, several heads; masks and norms of queries now and then."""
    heads, k, v = g.pick((1, 2, 3)), g.pick((2, 4)), g.pick((2, 3))
    q_name, k_name = (g.layer(nn.Linear(x.width, heads * k, bias=g.chance(0.5))) for _ in range(2))
    v_name = g.layer(nn.Linear(x.width, heads * v))
    norm = g.layer(nn.LayerNorm(k, eps=0.1)) if g.chance(0.3) else None
    bias = g.parameter(heads, x.shape[1], x.shape[1]) if g.chance(0.3) else None
    causal, fused = bias is None and g.chance(0.3), g.chance(0.6)
    y = g.partner(x, lambda o: o.shape == x.shape) if g.chance(0.3) else x

    def run(net: nn.Module, a: Tensor, b: Tensor) -> Tensor:
        q, kk = net[q_name](a), net[k_name](b)  # type: ignore[index]
        q, kk, vv = (t.unflatten(2, (heads, -1)).transpose(1, 2) for t in (q, kk, net[v_name](b)))  # type: ignore[index]
        if norm is not None:
            q = net[norm](q)  # type: ignore[index]
        mask = net[bias] if bias is not None else None  # type: ignore[index]
        if fused:
            found = F.scaled_dot_product_attention(q, kk, vv, attn_mask=mask, is_causal=causal)
        else:
            scores = q @ kk.mT / math.sqrt(k)
            found = torch.softmax(scores if mask is None else scores + mask, -1) @ vv
        return found.transpose(1, 2).flatten(2)

    g.step(run, x, y)


@rule(SEQUENCE)
def packed_attention(g: Maker, x: Val) -> None:
    heads, d = g.pick((1, 2, 3)), g.pick((2, 4))
    name = g.layer(nn.Linear(x.width, 3 * heads * d))

    def run(net: nn.Module, t: Tensor) -> Tensor:
        q, k, v = net[name](t).unflatten(2, (3, heads, d)).permute(2, 0, 3, 1, 4).unbind(0)  # type: ignore[index]
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(t.shape[0], -1, heads * d)

    g.step(run, x)


@rule(SEQUENCE)
def grouped_attention(g: Maker, x: Val) -> None:
    k, times, d = g.pick((1, 2)), g.pick((2, 3)), g.pick((2, 3))
    q_name = g.layer(nn.Linear(x.width, k * times * d))
    k_name, v_name = (g.layer(nn.Linear(x.width, k * d)) for _ in range(2))
    repeats = g.chance(0.5)

    def run(net: nn.Module, t: Tensor) -> Tensor:
        q, kk, v = (net[n](t).unflatten(2, (-1, d)).transpose(1, 2) for n in (q_name, k_name, v_name))  # type: ignore[index]
        if repeats:
            kk, v = (y.repeat_interleave(times, dim=1) for y in (kk, v))
        found = F.scaled_dot_product_attention(q, kk, v, enable_gqa=not repeats)
        return found.transpose(1, 2).flatten(2)

    g.step(run, x)


@rule(SEQUENCE)
def multihead_attention(g: Maker, x: Val) -> None:
    if x.width % 2:
        raise Unfit("odd")
    name = g.layer(nn.MultiheadAttention(x.width, 2, batch_first=True))
    g.step(lambda net, t: net[name](t, t, t, need_weights=False)[0], x)


@rule(SEQUENCE)
def linear_attention(g: Maker, x: Val) -> None:
    y = g.partner(x, lambda v: v.shape == x.shape)
    f = g.pick((lambda t: F.elu(t) + 1, torch.relu, torch.tanh))
    g.step(lambda net, a, b: f(a) @ (f(b).mT @ a), x, y)


@rule(SEQUENCE)
def learned_steps(g: Maker, x: Val) -> None:
    """Learned steps before those of the input, and a learned position for each."""
    n = g.pick((1, 2, 3))
    tokens, positions = g.parameter(1, n, x.width), g.parameter(1, n + x.shape[1], x.width)
    g.step(lambda net, t: torch.cat([net[tokens].expand(t.shape[0], -1, -1), t], 1) + net[positions], x)


@rule(SEQUENCE)
def learned_queries(g: Maker, x: Val) -> None:
    """Cross attention from learned queries, as many as one likes."""
    queries, causal = g.parameter(1, g.pick((3, 4)), x.width), g.chance(0.3)

    def run(net: nn.Module, t: Tensor) -> Tensor:
        q: Tensor = net[queries].expand(t.shape[0], -1, -1)  # type: ignore[index]
        return q + F.scaled_dot_product_attention(q, t, t, is_causal=causal)

    g.step(run, x)


@rule(IMAGE)
def squeeze_excite(g: Maker, x: Val) -> None:
    down, up = g.layer(nn.Conv2d(x.width, 3, 1)), g.layer(nn.Conv2d(3, x.width, 1))
    gate = g.pick((torch.sigmoid, F.hardsigmoid))
    g.step(lambda net, t: t * gate(net[up](F.relu(net[down](t.mean((2, 3), keepdim=True))))), x)


@rule(SEQUENCE)
def gated_mlp(g: Maker, x: Val) -> None:
    h = g.pick((3, 5))
    both, down = g.layer(nn.Linear(x.width, 2 * h)), g.layer(nn.Linear(h, x.width))

    def run(net: nn.Module, t: Tensor) -> Tensor:
        a, b = net[both](t).chunk(2, -1)  # type: ignore[index]
        return t + net[down](F.silu(a) * b)  # type: ignore[index, no-any-return]

    g.step(run, x)
