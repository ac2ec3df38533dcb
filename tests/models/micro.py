"""Micro networks, one for each situation that a compiler of pruning has to get right.

``CASES`` maps a name to a function that gives the module and its example inputs; :func:`build` makes them
reproducibly, with normalisations whose statistics hide nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Inputs = tuple[Any, ...] | dict[str, Any]
Made = tuple[nn.Module, Inputs]
CASES: dict[str, Callable[[], Made]] = {}
OPAQUE: dict[str, tuple[str, ...]] = {}


def case(make: Callable[[], Made]) -> Callable[[], Made]:
    """Enter a micro network under the function's name."""
    CASES[make.__name__] = make
    return make


def opaque(*kinds: str) -> Callable[[Callable[[], Made]], Callable[[], Made]]:
    """Enter a micro network that holds ops which prunec must leave alone."""

    def enter(make: Callable[[], Made]) -> Callable[[], Made]:
        OPAQUE[make.__name__] = kinds
        return case(make)

    return enter


def build(name: str) -> Made:
    """The micro network called ``name``, in float64 and evaluation mode, and its inputs."""
    torch.manual_seed(0)
    module, inputs = CASES[name]()
    for part in module.modules():
        _unsettle(part)
    module = module.double().eval()
    double = torch.utils._pytree.tree_map_only(Tensor, lambda t: t.double() if t.is_floating_point() else t, inputs)
    return module, double


def _unsettle(part: nn.Module) -> None:
    """Give a normalisation statistics and scales that are not its defaults."""
    with torch.no_grad():
        if isinstance(getattr(part, "running_mean", None), Tensor):
            part.running_mean.normal_()  # type: ignore[operator]
            part.running_var.uniform_(0.5, 1.5)  # type: ignore[operator]
        if "Norm" in type(part).__name__ and isinstance(getattr(part, "weight", None), Tensor):
            part.weight.uniform_(0.5, 1.5)  # type: ignore[operator]
            if isinstance(getattr(part, "bias", None), Tensor):
                part.bias.normal_()  # type: ignore[operator]


class Net(nn.Module):
    """Layers by name and a function of them and one input."""

    def __init__(self, run: Callable[[Any, Tensor], Any], **layers: Any) -> None:
        super().__init__()
        self.run = run
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x: Tensor) -> Any:
        return self.run(self, x)


def image(channels: int = 3, size: int = 8, batch: int = 2) -> tuple[Tensor]:
    return (torch.randn(batch, channels, size, size),)


def tokens(width: int = 12, length: int = 5) -> tuple[Tensor]:
    return (torch.randn(2, length, width),)


def head(width: int, classes: int = 5) -> nn.Sequential:
    """Pool, flatten, linear."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes))


def conv_bn(i: int, o: int, k: int = 3, **options: Any) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(i, o, k, padding=k // 2, bias=False, **options), nn.BatchNorm2d(o))


# ---------------------------------------------------------------------- convolutions


@case
def plain() -> Made:
    layers = [conv_bn(3, 8), nn.ReLU(), nn.MaxPool2d(2), conv_bn(8, 12), nn.ReLU(inplace=True), head(12)]
    return nn.Sequential(*layers), image()


@case
def conv1d() -> Made:
    layers = [nn.Conv1d(2, 6, 3), nn.BatchNorm1d(6), nn.GELU(), nn.Conv1d(6, 7, 3, stride=2), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(7 * 4, 3)), (torch.randn(2, 2, 12),)


@case
def conv3d() -> Made:
    layers = [nn.Conv3d(1, 4, 3, padding=1), nn.BatchNorm3d(4), nn.ReLU(), nn.AvgPool3d(2), nn.Conv3d(4, 6, 1)]
    return nn.Sequential(*layers), (torch.randn(2, 1, 4, 4, 4),)


@case
def residual() -> Made:
    def run(m: Any, x: Tensor) -> Tensor:
        x = F.relu(m.stem(x))
        x = F.relu(x + m.b(F.relu(m.a(x))))
        return m.head(F.relu(m.project(x) + m.d(F.relu(m.c(x)))))  # type: ignore[no-any-return]

    return Net(
        run, stem=conv_bn(3, 8), a=conv_bn(8, 6), b=conv_bn(6, 8), c=conv_bn(8, 10, stride=2), d=conv_bn(10, 12),
        project=conv_bn(8, 12, 1, stride=2), head=head(12),
    ), image()  # fmt: skip


@case
def grouped() -> Made:
    layers = [conv_bn(3, 8), nn.ReLU(), conv_bn(8, 12, groups=4), nn.ReLU(), nn.Conv2d(12, 8, 3, groups=4), head(8)]
    return nn.Sequential(*layers), image()


@case
def conflicting_groups() -> Made:
    layers = [conv_bn(3, 8), nn.ReLU(), conv_bn(8, 12, groups=4), nn.ReLU(), nn.Conv2d(12, 6, 3, groups=2), head(6)]
    return nn.Sequential(*layers), image()


@case
def depthwise() -> Made:
    layers = [conv_bn(3, 8), nn.Hardswish(), conv_bn(8, 8, groups=8), nn.ReLU6(), conv_bn(8, 16, 1)]
    multiplier = nn.Conv2d(16, 32, 3, groups=16)
    return nn.Sequential(*layers, multiplier, head(32)), image()


@case
def unet() -> Made:
    def run(m: Any, x: Tensor) -> Tensor:
        skip = F.relu(m.down1(x))
        deep = F.relu(m.down2(F.max_pool2d(skip, 2)))
        return m.out(F.relu(m.up2(torch.cat([m.up1(deep), skip], 1))))  # type: ignore[no-any-return]

    layers = {"up1": nn.ConvTranspose2d(10, 7, 2, stride=2), "up2": conv_bn(13, 9), "out": nn.Conv2d(9, 2, 1)}
    return Net(run, down1=conv_bn(3, 6), down2=conv_bn(6, 10), **layers), image()


@case
def grouped_transposed() -> Made:
    layers = [conv_bn(3, 8), nn.ConvTranspose2d(8, 12, 2, stride=2, groups=4), nn.ReLU(), nn.Conv2d(12, 2, 1)]
    return nn.Sequential(*layers), image(size=4)


@case
def dense_concat() -> Made:
    def run(m: Any, x: Tensor) -> Tensor:
        found = [m.stem(x)]
        for norm, conv in zip(m.norms, m.convs, strict=True):
            found.append(conv(F.relu(norm(torch.cat(found, 1)))))
        return m.head(torch.cat(found, 1))  # type: ignore[no-any-return]

    norms, convs = [nn.BatchNorm2d(6 + 4 * k) for k in range(3)], [nn.Conv2d(6 + 4 * k, 4, 3) for k in range(3)]
    for conv in convs:
        conv.padding = (1, 1)
    layers = {"norms": nn.ModuleList(norms), "convs": nn.ModuleList(convs)}
    return Net(run, stem=nn.Conv2d(3, 6, 3, padding=1), head=head(18), **layers), image()


@case
def channel_shuffle() -> Made:
    def run(m: Any, x: Tensor) -> Tensor:
        x = m.stem(x)
        left, right = x.chunk(2, dim=1)
        x = torch.cat([left, F.relu(m.branch(right))], 1)
        b, c, h, w = x.shape
        x = x.view(b, 2, c // 2, h, w).transpose(1, 2).contiguous().view(b, c, h, w)
        left, right = x.chunk(2, dim=1)
        return m.head(torch.cat([left, F.relu(m.last(right))], 1))  # type: ignore[no-any-return]

    return Net(run, stem=conv_bn(3, 12), branch=conv_bn(6, 6), last=conv_bn(6, 6), head=head(12)), image()


@case
def squeeze_excite() -> Made:
    def run(m: Any, x: Tensor) -> Tensor:
        x = F.relu(m.stem(x))
        return m.head(x * torch.sigmoid(m.up(F.silu(m.down(x.mean((2, 3), keepdim=True))))))  # type: ignore[no-any-return]

    return Net(run, stem=conv_bn(3, 8), down=nn.Conv2d(8, 4, 1), up=nn.Conv2d(4, 8, 1), head=head(8)), image()


@case
def flatten_conv() -> Made:
    layers = [nn.Conv2d(3, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(6 * 9, 7), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(7, 4)), image()


@case
def pixel_shuffle() -> Made:
    layers = [nn.Conv2d(3, 24, 3, padding=1), nn.PixelShuffle(2), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.PixelUnshuffle(2)]
    return nn.Sequential(*layers, nn.Conv2d(16, 3, 1)), image()


@case
def option_a_shortcut() -> Made:
    def run(m: Any, x: Tensor) -> Tensor:
        x = F.relu(m.stem(x))
        short = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 3, 3))
        return m.head(F.relu(m.b(F.relu(m.a(x))) + short))  # type: ignore[no-any-return]

    return Net(run, stem=conv_bn(3, 6), a=conv_bn(6, 8, stride=2), b=conv_bn(8, 12), head=head(12)), image()


@case
def pad_with_ones() -> Made:
    def run(m: Any, x: Tensor) -> Tensor:
        return m.b(F.pad(F.relu(m.a(x)), (1, 1, 1, 1, 2, 0), value=1.0))  # type: ignore[no-any-return]

    return Net(run, a=nn.Conv2d(3, 6, 3), b=nn.Conv2d(8, 4, 3)), image()


@case
def reflection_and_upsample() -> Made:
    def run(m: Any, x: Tensor) -> Tensor:
        x = F.relu(m.a(F.pad(x, (1, 1, 1, 1), mode="reflect")))
        return m.b(F.interpolate(x, scale_factor=2.0, mode="bilinear"))  # type: ignore[no-any-return]

    return Net(run, a=nn.Conv2d(3, 6, 3), b=nn.Conv2d(6, 4, 3)), image()


@case
def prelu_and_sigmoid() -> Made:
    layers = [nn.Conv2d(3, 6, 3), nn.PReLU(6), nn.Conv2d(6, 7, 3), nn.Sigmoid(), nn.Conv2d(7, 4, 1), nn.PReLU()]
    return nn.Sequential(*layers), image()


# ---------------------------------------------------------------------- attention


@case
def packed_attention() -> Made:
    def run(m: Any, x: Tensor) -> Tensor:
        b, t, _ = x.shape
        q, k, v = m.qkv(x).reshape(b, t, 3, 3, 4).permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v)
        return m.out(x + m.project(y.transpose(1, 2).reshape(b, t, 12)))  # type: ignore[no-any-return]

    return Net(run, qkv=nn.Linear(12, 36), project=nn.Linear(12, 12), out=nn.Linear(12, 5)), tokens()


@case
def matmul_attention() -> Made:
    def run(m: Any, x: Tensor) -> Tensor:
        b, t, _ = x.shape
        x = m.embed(x)
        q, k, v = (f(x).view(b, t, 2, -1).transpose(1, 2) for f in (m.q, m.k, m.v))
        weights = torch.softmax(q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1]), -1)
        return m.out((weights @ v).transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    layers = {"q": nn.Linear(8, 8), "k": nn.Linear(8, 8), "v": nn.Linear(8, 12), "out": nn.Linear(12, 5)}
    return Net(run, embed=nn.Linear(6, 8), **layers), tokens(6)


@case
def multihead_attention() -> Made:
    def run(m: Any, x: Tensor) -> Tensor:
        y, _ = m.attention(x, x, x, need_weights=False)
        return m.out(F.gelu(m.hidden(x + y)))  # type: ignore[no-any-return]

    attention = nn.MultiheadAttention(12, 3, batch_first=True)
    return Net(run, attention=attention, hidden=nn.Linear(12, 8), out=nn.Linear(8, 5)), tokens()


@case
def transformer_encoder() -> Made:
    layer = nn.TransformerEncoderLayer(12, 3, 16, batch_first=True, dropout=0.1)
    return nn.Sequential(nn.Linear(6, 12), layer, nn.Linear(12, 4)), tokens(6)


class Decoder(nn.Module):
    """Rotary grouped-query attention with repeated key heads, SwiGLU, RMS norms, embedding tied to the head."""

    cos: Tensor
    sin: Tensor

    def __init__(self, rows: int = 23, e: int = 8, h: int = 4, k: int = 2, d: int = 4, m: int = 10) -> None:
        super().__init__()
        self.h, self.k, self.d = h, k, d
        self.emb = nn.Embedding(rows, e)
        self.q, self.kk, self.v = (nn.Linear(e, n * d, bias=False) for n in (h, k, k))
        self.o, self.n1, self.n2 = nn.Linear(h * d, e, bias=False), nn.RMSNorm(e), nn.RMSNorm(e)
        self.gate, self.up, self.down = (nn.Linear(*s, bias=False) for s in ((e, m), (e, m), (m, e)))
        self.head = nn.Linear(e, rows, bias=False)
        self.head.weight = self.emb.weight
        angle = torch.arange(6)[:, None] / 100 ** (torch.arange(d // 2)[None] / (d // 2))
        self.register_buffer("cos", torch.cat([angle.cos(), angle.cos()], -1))
        self.register_buffer("sin", torch.cat([angle.sin(), angle.sin()], -1))

    def rotate(self, x: Tensor) -> Tensor:
        a, b = x[..., : self.d // 2], x[..., self.d // 2 :]
        return x * self.cos + torch.cat([-b, a], -1) * self.sin

    def repeated(self, x: Tensor) -> Tensor:
        b, k, t, d = x.shape
        return x[:, :, None].expand(b, k, self.h // k, t, d).reshape(b, self.h, t, d)

    def forward(self, ids: Tensor) -> Tensor:
        b, t = ids.shape
        x = self.emb(ids)
        y = self.n1(x)
        q = self.rotate(self.q(y).view(b, t, self.h, self.d).transpose(1, 2))
        k = self.rotate(self.kk(y).view(b, t, self.k, self.d).transpose(1, 2))
        v = self.v(y).view(b, t, self.k, self.d).transpose(1, 2)
        y = F.scaled_dot_product_attention(q, self.repeated(k), self.repeated(v), is_causal=True)
        x = x + self.o(y.transpose(1, 2).reshape(b, t, self.h * self.d))
        y = self.n2(x)
        return self.head(x + self.down(F.silu(self.gate(y)) * self.up(y)))  # type: ignore[no-any-return]


@case
def grouped_query_decoder() -> Made:
    return Decoder(), (torch.randint(0, 23, (2, 6)),)


@case
def grouped_query_flag() -> Made:
    def run(m: Any, x: Tensor) -> Tensor:
        b, t, _ = x.shape
        q = m.q(x).view(b, t, 4, 3).transpose(1, 2)
        k, v = (f(x).view(b, t, 2, 3).transpose(1, 2) for f in (m.k, m.v))
        y = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
        return m.out(y.transpose(1, 2).reshape(b, t, 12))  # type: ignore[no-any-return]

    layers = {"q": nn.Linear(6, 12), "k": nn.Linear(6, 6), "v": nn.Linear(6, 6), "out": nn.Linear(12, 5)}
    return Net(run, **layers), tokens(6)


@case
def tied_embedding() -> Made:
    embedding, last = nn.Embedding(11, 6), nn.Linear(6, 11, bias=False)
    last.weight = embedding.weight

    def run(m: Any, x: Tensor) -> Tensor:
        y = m.embedding(x)
        return m.head(y + m.b(torch.tanh(m.a(y))))  # type: ignore[no-any-return]

    layers = {"a": nn.Linear(6, 9), "b": nn.Linear(9, 6)}
    return Net(run, embedding=embedding, head=last, **layers), (torch.randint(0, 11, (2, 4)),)


# ---------------------------------------------------------------------- norms


@case
def layer_norm() -> Made:
    def run(m: Any, x: Tensor) -> Tensor:
        x = m.embed(x)
        return m.out(m.last(x + m.b(F.gelu(m.a(m.first(x))))))  # type: ignore[no-any-return]

    norms = {"first": nn.LayerNorm(8), "last": nn.LayerNorm(8)}
    return Net(
        run, embed=nn.Linear(6, 8), a=nn.Linear(8, 14), b=nn.Linear(14, 8), out=nn.Linear(8, 5), **norms
    ), tokens(6)


@case
def group_norm() -> Made:
    layers = [nn.Conv2d(3, 8, 3), nn.GroupNorm(4, 8), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.GroupNorm(1, 6), head(6)]
    return nn.Sequential(*layers), image()


@case
def rms_norm() -> Made:
    return nn.Sequential(nn.Linear(6, 8), nn.RMSNorm(8), nn.Linear(8, 5)), tokens(6)


@case
def instance_norm() -> Made:
    layers = [nn.Conv2d(3, 8, 3), nn.InstanceNorm2d(8, affine=True), nn.ReLU(), nn.Conv2d(8, 6, 3)]
    return nn.Sequential(*layers, nn.InstanceNorm2d(6), head(6)), image()


@case
def norm_over_image() -> Made:
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.LayerNorm([6, 6, 6]), nn.ReLU(), head(6)), image()


@case
def layer_scale() -> Made:
    def run(m: Any, x: Tensor) -> Tensor:
        x = m.stem(x)
        y = m.norm(m.depthwise(x).permute(0, 2, 3, 1))
        y = m.gamma * m.b(F.gelu(m.a(y)))
        return m.head(x + y.permute(0, 3, 1, 2))  # type: ignore[no-any-return]

    layers = {"a": nn.Linear(6, 12), "b": nn.Linear(12, 6), "gamma": nn.Parameter(torch.randn(6)), "head": head(6)}
    depthwise = nn.Conv2d(6, 6, 3, padding=1, groups=6)
    return Net(run, stem=nn.Conv2d(3, 6, 2, stride=2), depthwise=depthwise, norm=nn.LayerNorm(6), **layers), image()


@case
def global_response_norm() -> Made:
    def run(m: Any, x: Tensor) -> Tensor:
        x = F.gelu(m.a(x))
        g = torch.linalg.vector_norm(x, dim=(2, 3), keepdim=True)
        return m.b(m.gamma * (x * (g / (g.mean(1, keepdim=True) + 1e-6))) + x)  # type: ignore[no-any-return]

    gamma = nn.Parameter(torch.randn(1, 8, 1, 1))
    return Net(run, a=nn.Conv2d(3, 8, 3), b=nn.Conv2d(8, 4, 1), gamma=gamma), image()


@case
def softmax_over_channels() -> Made:
    def run(m: Any, x: Tensor) -> Tensor:
        return m.b(torch.softmax(m.a(x), dim=1))  # type: ignore[no-any-return]

    return Net(run, a=nn.Conv2d(3, 8, 3), b=nn.Conv2d(8, 4, 1)), image()


# ---------------------------------------------------------------------- recurrent layers


class Sequence(nn.Module):
    """A linear layer, a recurrent one, and a linear layer on all its steps."""

    def __init__(self, recurrent: nn.RNNBase, width: int, first: int = 6) -> None:
        super().__init__()
        self.a, self.recurrent = nn.Linear(first, recurrent.input_size), recurrent
        self.b = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.recurrent(torch.tanh(self.a(x)))[0])  # type: ignore[no-any-return]


@case
def lstm() -> Made:
    return Sequence(nn.LSTM(5, 7, batch_first=True), 7), tokens(6)


@case
def gru() -> Made:
    return Sequence(nn.GRU(5, 7, batch_first=True), 7), tokens(6)


@case
def rnn_tanh() -> Made:
    return Sequence(nn.RNN(5, 7, batch_first=True), 7), tokens(6)


@case
def rnn_relu_without_bias() -> Made:
    return Sequence(nn.RNN(5, 7, nonlinearity="relu", bias=False, batch_first=True), 7), tokens(6)


@case
def lstm_of_steps() -> Made:
    """Time comes first."""
    return Sequence(nn.LSTM(5, 7), 7), tokens(6)


@case
def lstm_in_both_directions() -> Made:
    return Sequence(nn.LSTM(5, 6, bidirectional=True, batch_first=True), 12), tokens(6)


@case
def gru_in_both_directions() -> Made:
    def run(m: Any, x: Tensor) -> Tensor:
        steps, last = m.recurrent(m.a(x))
        return m.b(m.norm(steps)) * m.c(torch.cat([last[-2], last[-1]], 1)).unsqueeze(1)  # type: ignore[no-any-return]

    layers = {"norm": nn.LayerNorm(12), "b": nn.Linear(12, 4), "c": nn.Linear(12, 4)}
    return Net(run, a=nn.Linear(6, 5), recurrent=nn.GRU(5, 6, bidirectional=True, batch_first=True), **layers), tokens(
        6
    )


@case
def lstm_of_two_layers() -> Made:
    def run(m: Any, x: Tensor) -> Tensor:
        steps, (state, cell) = m.recurrent(x)
        return m.b(steps[:, -1]) * m.c(state[-1]) * m.d(cell[1:].squeeze(0))  # type: ignore[no-any-return]

    layers = {name: nn.Linear(7, 4) for name in "bcd"}
    return Net(run, recurrent=nn.LSTM(6, 7, num_layers=2, batch_first=True), **layers), tokens(6)


@case
def gru_of_two_layers_that_meet() -> Made:
    def run(m: Any, x: Tensor) -> Tensor:
        _, last = m.recurrent(x)
        return m.b(last.transpose(0, 1).flatten(1))  # type: ignore[no-any-return]

    return Net(run, recurrent=nn.GRU(6, 7, num_layers=2, batch_first=True), b=nn.Linear(14, 4)), tokens(6)


@case
def lstm_with_dropout() -> Made:
    recurrent = nn.LSTM(5, 6, num_layers=3, bidirectional=True, dropout=0.4, bias=False)
    return Sequence(recurrent, 12), tokens(6)


@case
def lstm_with_projection() -> Made:
    def run(m: Any, x: Tensor) -> Tensor:
        steps, (state, cell) = m.recurrent(x)
        return m.b(steps) * m.c(state[0]).unsqueeze(1) + m.d(cell[-1]).unsqueeze(1)  # type: ignore[no-any-return]

    recurrent = nn.LSTM(6, 7, num_layers=2, proj_size=5, batch_first=True)
    return Net(run, recurrent=recurrent, b=nn.Linear(5, 4), c=nn.Linear(5, 4), d=nn.Linear(7, 4)), tokens(6)


@case
def lstm_with_projection_in_both_directions() -> Made:
    return Sequence(nn.LSTM(5, 6, proj_size=4, bidirectional=True, batch_first=True), 8), tokens(6)


@case
def learned_initial_state() -> Made:
    def run(m: Any, x: Tensor) -> Tensor:
        state = m.state.expand(-1, x.shape[0], -1).contiguous()
        return m.b(m.recurrent(x, (state, torch.zeros_like(state)))[0])  # type: ignore[no-any-return]

    layers = {"state": nn.Parameter(torch.randn(2, 1, 6)), "b": nn.Linear(6, 4)}
    return Net(run, recurrent=nn.LSTM(6, 6, num_layers=2, batch_first=True), **layers), tokens(6)


@case
def initial_state_of_zeros() -> Made:
    """One tensor of zeros for two layers; each has its own width all the same."""

    def run(m: Any, x: Tensor) -> Tensor:
        state = x.new_zeros(1, x.shape[0], 6)
        return m.b(m.second(m.first(x, state)[0], state)[0])  # type: ignore[no-any-return]

    layers = {f: nn.GRU(6, 6, batch_first=True) for f in ("first", "second")}
    return Net(run, b=nn.Linear(6, 4), **layers), tokens(6)


class FromState(nn.Module):
    """The state comes in and goes out, so it keeps its size; the layer before it does not."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.recurrent, self.b = nn.Linear(6, 5), nn.GRU(5, 7, batch_first=True), nn.Linear(7, 4)

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        steps, last = self.recurrent(self.a(x), state.unsqueeze(0))
        return self.b(steps), last[0]


@case
def initial_state_that_is_given() -> Made:
    return FromState(), (torch.randn(2, 3, 6), torch.randn(2, 7))


@case
def recurrent_cells() -> Made:
    def run(m: Any, x: Tensor) -> Tensor:
        state = cell = x.new_zeros(x.shape[0], 7)
        other = None
        for step in x.unbind(1):
            state, cell = m.lstm(step, (state, cell))
            other = m.gru(state, other)
        return m.b(m.rnn(other))  # type: ignore[no-any-return]

    layers = {"lstm": nn.LSTMCell(6, 7), "gru": nn.GRUCell(7, 5), "rnn": nn.RNNCell(5, 6, bias=False)}
    return Net(run, b=nn.Linear(6, 4), **layers), tokens(6, 3)


@case
def attention_over_steps() -> Made:
    """Two computed values are summed over hidden units: states are zero where a unit is gone."""

    def run(m: Any, x: Tensor) -> Tensor:
        steps, last = m.recurrent(x)
        weights = torch.softmax((steps * last[-1].unsqueeze(1)).sum(-1), 1)
        scores = torch.softmax(steps @ last[-1].unsqueeze(2), 1)
        return m.b((weights.unsqueeze(2) * steps).sum(1) + (scores * steps).mean(1))  # type: ignore[no-any-return]

    return Net(run, recurrent=nn.GRU(6, 7, batch_first=True), b=nn.Linear(7, 4)), tokens(6)


# ---------------------------------------------------------------------- gates, joins, positions


@case
def glu() -> Made:
    return nn.Sequential(nn.Linear(6, 16), nn.GLU(-1), nn.Linear(8, 5)), tokens(6)


@case
def swiglu() -> Made:
    def run(m: Any, x: Tensor) -> Tensor:
        gate, up = m.both(x).chunk(2, -1)
        return m.down(F.silu(gate) * up)  # type: ignore[no-any-return]

    return Net(run, both=nn.Linear(6, 18, bias=False), down=nn.Linear(9, 4, bias=False)), tokens(6)


@case
def einsum() -> Made:
    def run(m: Any, x: Tensor) -> Tensor:
        y = torch.einsum("bti,hid->bhtd", m.embed(x), m.weight)
        return torch.einsum("bhtd,hdo->bto", torch.tanh(y), m.out)

    layers = {"weight": nn.Parameter(torch.randn(3, 8, 4)), "out": nn.Parameter(torch.randn(3, 4, 5))}
    return Net(run, embed=nn.Linear(6, 8), **layers), tokens(6)


@case
def matmul_parameters() -> Made:
    def run(m: Any, x: Tensor) -> Tensor:
        return torch.addmm(m.bias, torch.relu(x @ m.first), m.second)

    shapes = {"first": (6, 9), "second": (9, 4), "bias": (4,)}
    return Net(run, **{k: nn.Parameter(torch.randn(*s)) for k, s in shapes.items()}), (torch.randn(2, 6),)


@case
def slices() -> Made:
    def run(m: Any, x: Tensor) -> Tensor:
        x = m.a(x)
        return m.b(torch.cat([x[:, 4:], F.relu(x[:, :2]), x[:, 2:-1]], 1))  # type: ignore[no-any-return]

    return Net(run, a=nn.Linear(6, 9), b=nn.Linear(13, 4)), (torch.randn(2, 6),)


@case
def counted_from_the_end() -> Made:
    def run(m: Any, x: Tensor) -> Tensor:
        y = m.a(x)
        return m.b(torch.cat([y.narrow(1, -4, 3), y[:, -6:-2]], 1)) * y[:, -2].unsqueeze(1)  # type: ignore[no-any-return]

    return Net(run, a=nn.Linear(6, 9), b=nn.Linear(7, 4)), (torch.randn(2, 6),)


@case
def uneven_split() -> Made:
    def run(m: Any, x: Tensor) -> Tensor:
        a, b, c = m.a(x).split([2, 5, 3], 1)
        d, e = torch.tensor_split(m.c(b), 2, 1)
        return d.sum(1, keepdim=True) * e.mean(1, keepdim=True) + m.b(torch.cat([c, a], 1))  # type: ignore[no-any-return]

    return Net(run, a=nn.Conv2d(3, 10, 1), b=nn.Conv2d(5, 4, 1), c=nn.Conv2d(5, 7, 1)), image()


@case
def stack_and_unbind() -> Made:
    def run(m: Any, x: Tensor) -> Tensor:
        a, b = torch.stack([m.a(x), torch.tanh(m.b(x))], 1).unbind(1)
        return m.c(a * b)  # type: ignore[no-any-return]

    return Net(run, a=nn.Linear(6, 9), b=nn.Linear(6, 9), c=nn.Linear(9, 4)), (torch.randn(2, 6),)


@case
def class_token() -> Made:
    def run(m: Any, x: Tensor) -> Tensor:
        x = m.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([m.token.expand(x.shape[0], -1, -1), x], 1) + m.position
        x = x + x.mean(1, keepdim=True)
        return m.head(m.b(F.relu(m.a(x)))[:, 0])  # type: ignore[no-any-return]

    layers = {"a": nn.Linear(6, 10), "b": nn.Linear(10, 6), "head": nn.Linear(6, 4)}
    parameters = {"token": nn.Parameter(torch.randn(1, 1, 6)), "position": nn.Parameter(torch.randn(1, 5, 6))}
    return Net(run, patch=nn.Conv2d(3, 6, 4, stride=4), **layers, **parameters), image()


@case
def rolled_windows() -> Made:
    def run(m: Any, x: Tensor) -> Tensor:
        x = torch.roll(m.a(x), (1, 1), (2, 3)).permute(0, 2, 3, 1)
        b, h, w, c = x.shape
        x = m.b(x.view(b, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, c))
        return m.c(x.flip(1)).mean(1)  # type: ignore[no-any-return]

    return Net(run, a=nn.Conv2d(3, 6, 1), b=nn.Linear(6, 8), c=nn.Linear(8, 4)), image(size=4)


@case
def relative_bias() -> Made:
    def run(m: Any, x: Tensor) -> Tensor:
        bias = m.table[m.index.view(-1)].view(5, 5, -1).permute(2, 0, 1)
        q, k = (f(x).view(*x.shape[:2], 3, 4).transpose(1, 2) for f in (m.q, m.k))
        return m.out((torch.softmax(q @ k.mT + bias, -1) @ k).transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    net = Net(run, q=nn.Linear(6, 12), k=nn.Linear(6, 12), out=nn.Linear(12, 4), table=nn.Parameter(torch.randn(7, 3)))
    net.register_buffer("index", torch.randint(0, 7, (5, 5)))
    return net, tokens(6)


@case
def index_of_channels() -> Made:
    def run(m: Any, x: Tensor) -> Tensor:
        return m.b(m.a(x)[:, m.order])  # type: ignore[no-any-return]

    net = Net(run, a=nn.Linear(6, 8), b=nn.Linear(8, 4))
    net.register_buffer("order", torch.randperm(8))
    return net, (torch.randn(2, 6),)


@case
def repeats() -> Made:
    def run(m: Any, x: Tensor) -> Tensor:
        x = m.a(x)
        return m.b(torch.cat([x.repeat(1, 2), torch.repeat_interleave(x, 2, dim=1)], 1))  # type: ignore[no-any-return]

    return Net(run, a=nn.Linear(6, 5), b=nn.Linear(20, 4)), (torch.randn(2, 6),)


@case
def order_matters() -> Made:
    def run(m: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        x = m.a(x)
        y = m.c(torch.tanh(m.d(x)))
        return m.b(torch.cumsum(x, 1)) + x.topk(2, 1).values.sum(1, keepdim=True) * y, y.argmax(1)

    layers = {"c": nn.Linear(9, 4), "d": nn.Linear(8, 9)}
    return Net(run, a=nn.Linear(6, 8), b=nn.Linear(8, 4), **layers), (torch.randn(2, 6),)


@case
def in_place_views() -> Made:
    def run(m: Any, x: Tensor) -> Tensor:
        x = m.a(x).clone()
        x[:, :3] += 1.0
        x[:, 3:].mul_(2.0)
        y = m.c(x)
        y.mul_(0.5).add_(x)
        return m.b(y)  # type: ignore[no-any-return]

    return Net(run, a=nn.Linear(6, 8), b=nn.Linear(8, 4), c=nn.Linear(8, 8)), (torch.randn(2, 6),)


# ---------------------------------------------------------------------- what stands around a network


@torch.library.custom_op("prunec_tests::twice", mutates_args=())
def twice(x: Tensor) -> Tensor:
    return x * 2


@twice.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


twice.register_autograd(lambda ctx, grad: grad * 2)


@opaque("prunec_tests.twice.default")
def custom_op() -> Made:
    def run(m: Any, x: Tensor) -> Tensor:
        return m.c(F.relu(m.b(twice(F.relu(m.a(x))))))  # type: ignore[no-any-return]

    return Net(run, a=nn.Linear(6, 8), b=nn.Linear(8, 9), c=nn.Linear(9, 4)), (torch.randn(2, 6),)


@case
def dict_output() -> Made:
    def run(m: Any, x: Tensor) -> dict[str, Any]:
        features = F.relu(m.a(x))
        return {"logits": m.b(features), "more": (m.c(features), [features.mean(1)])}

    return Net(run, a=nn.Linear(6, 8), b=nn.Linear(8, 4), c=nn.Linear(8, 3)), (torch.randn(2, 6),)


@case
def tuple_output() -> Made:
    def run(m: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        y = m.b(F.relu(m.a(x)))
        return y, m.c(F.relu(y))

    return Net(run, a=nn.Linear(6, 8), b=nn.Linear(8, 4), c=nn.Linear(4, 3)), (torch.randn(2, 6),)


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 9), nn.Embedding(5, 9), nn.Linear(9, 4)

    def forward(self, x: Tensor, ids: Tensor, scale: Tensor | None = None) -> Tensor:
        y = torch.tanh(self.a(x) * self.b(ids))
        return self.c(y if scale is None else y * scale)  # type: ignore[no-any-return]


@case
def several_inputs() -> Made:
    return TwoInputs(), (torch.randn(3, 6), torch.randint(0, 5, (3,)))


@case
def inputs_by_name() -> Made:
    return TwoInputs(), {"x": torch.randn(3, 6), "ids": torch.randint(0, 5, (3,)), "scale": torch.rand(3, 1)}


@case
def unused_parameter() -> Made:
    def run(m: Any, x: Tensor) -> Tensor:
        return m.b(F.relu(m.a(x)))  # type: ignore[no-any-return]

    layers = {"idle": nn.Parameter(torch.randn(7)), "off": nn.Linear(3, 9)}
    return Net(run, a=nn.Linear(6, 8), b=nn.Linear(8, 4), **layers), (torch.randn(2, 6),)


@case
def shared_module() -> Made:
    def run(m: Any, x: Tensor) -> Tensor:
        y = m.shared(F.relu(m.a(x)))
        return m.b(m.shared(torch.tanh(y)))  # type: ignore[no-any-return]

    return Net(run, a=nn.Linear(6, 8), shared=nn.Linear(8, 8), b=nn.Linear(8, 4)), (torch.randn(2, 6),)


@case
def zero_head() -> Made:
    last = nn.Linear(12, 5)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(conv_bn(3, 8), nn.ReLU(), conv_bn(8, 12), nn.AdaptiveAvgPool2d(1), nn.Flatten(), last), image()


@case
def dropout() -> Made:
    layers = [nn.Conv2d(3, 8, 3), nn.Dropout2d(0.5), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5), nn.Linear(8 * 36, 4)]
    return nn.Sequential(*layers), image()


@case
def gathered() -> Made:
    def run(m: Any, x: Tensor) -> Tensor:
        y = m.a(x)
        index = torch.tensor([[2], [0], [1]]).expand(y.shape[0], 3, y.shape[-1])
        return m.b(torch.gather(y, 1, index).type_as(m.c(x)))  # type: ignore[no-any-return]

    layers = {"a": nn.Linear(6, 8), "b": nn.Linear(8, 4), "c": nn.Linear(6, 5)}
    return Net(run, **layers), (torch.randn(2, 3, 6),)


@case
def unfolded() -> Made:
    def run(m: Any, x: Tensor) -> Tensor:
        y = F.unfold(F.relu(m.a(x)), 3, padding=1)
        return m.b(F.fold(y, x.shape[-2:], 3, padding=1))  # type: ignore[no-any-return]

    return Net(run, a=nn.Conv2d(3, 8, 3, padding=1), b=nn.Conv2d(8, 4, 1)), image()


@case
def literal_named_like_a_method() -> Made:
    def run(m: Any, *inputs: Tensor) -> Tensor:
        return m.b(F.relu(m.a(inputs[0])) + torch.arange(8).to(inputs[0].dtype))  # type: ignore[no-any-return]

    return Net(run, a=nn.Linear(6, 8), b=nn.Linear(8, 4)), (torch.randn(2, 6),)


@case
def weight_norms() -> Made:
    norm = nn.utils.parametrizations.weight_norm
    layers = [
        norm(nn.Conv1d(3, 8, 3)),
        nn.ReLU(),
        norm(nn.Conv1d(8, 8, 3, groups=2), dim=2),
        nn.ReLU(),
        nn.Conv1d(8, 4, 1),
    ]
    return nn.Sequential(*layers), (torch.randn(2, 3, 9),)


@case
def standardised_weights() -> Made:
    """As timm's ScaledStdConv2d has them."""

    def run(m: Any, x: Tensor) -> Tensor:
        rows = F.batch_norm(m.w.reshape(1, 8, -1), None, None, weight=m.gain.view(-1), training=True, momentum=0.0)
        return m.b(F.relu(F.conv2d(F.relu(m.a(x)), rows.reshape_as(m.w), padding=1)))  # type: ignore[no-any-return]

    weights = {"w": nn.Parameter(torch.randn(8, 6, 3, 3)), "gain": nn.Parameter(torch.rand(8, 1, 1, 1) + 0.5)}
    return Net(run, a=nn.Conv2d(3, 6, 1), b=nn.Conv2d(8, 4, 1), **weights), image()


@case
def statistics_of_the_batch() -> Made:
    """Over tokens and channels, one statistic a token."""

    def run(m: Any, x: Tensor) -> Tensor:
        return m.b(F.batch_norm(m.a(x), None, None, training=True))  # type: ignore[no-any-return]

    return Net(run, a=nn.Linear(6, 8), b=nn.Linear(8, 4)), (torch.randn(3, 5, 6),)


@case
def grid_of_coordinates() -> Made:
    """Tensors out of a list that depends on no input."""

    def run(m: Any, x: Tensor) -> Tensor:
        y = F.relu(m.a(x))
        rows, columns = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
        left, right = torch.linspace(0, 1, 8).chunk(2)
        grid = torch.stack([rows, columns]).to(y) * torch.cat([right, left]).to(y)
        return m.b(torch.cat([y, grid.expand(y.shape[0], -1, -1, -1)], 1))  # type: ignore[no-any-return]

    return Net(run, a=nn.Conv2d(3, 6, 1), b=nn.Conv2d(8, 4, 1)), image()


@case
def repeated_by_the_batch() -> Made:
    def run(m: Any, x: Tensor) -> Tensor:
        return m.b(F.relu(m.a(x)) + m.slope.repeat(x.shape[0], 1))  # type: ignore[no-any-return]

    layers = {"a": nn.Linear(6, 8), "b": nn.Linear(8, 4), "slope": nn.Parameter(torch.randn(1, 8))}
    return Net(run, **layers), (torch.randn(2, 6),)


@case
def faint() -> Made:
    blocks: list[nn.Module] = []
    for _ in range(24):
        blocks += [nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.SiLU(), nn.Conv2d(8, 3, 1)]
    for layer in (part for part in blocks if isinstance(part, nn.Conv2d)):
        for parameter in layer.parameters():
            nn.init.normal_(parameter, std=1e-3)
    return nn.Sequential(*blocks), image()


@case
def windowed_and_transposed() -> Made:
    def run(m: Any, x: Tensor) -> Tensor:
        y = F.relu(m.a(x)).unfold(1, 3, 2).mean(-1)
        return y @ m.w.T  # type: ignore[no-any-return]

    return Net(run, a=nn.Linear(6, 8), w=nn.Parameter(torch.randn(4, 8))), (torch.randn(2, 7, 6),)
