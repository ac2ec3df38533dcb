"""The models of ``zoo.csv``, by name: randomly initialised, in evaluation mode, each with example inputs.

``tv:``, ``seg:`` and ``det:`` are torchvision's (segmentation and detection with their raw heads), ``timm:`` is timm's,
``hf:`` are small configurations of transformers, ``x:`` are the small networks of this file.  Start at :func:`build`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Inputs = tuple[Tensor, ...]
Built = tuple[nn.Module, Inputs]

_SIZES = {"tv:inception_v3": 299}
_SIZE = 224


def build(name: str, seed: int = 0) -> Built:
    """The model called ``name`` and inputs with a batch of two.

    Raises
    ------
    KeyError
        No such family or model.
    """
    torch.manual_seed(seed)
    family, _, rest = name.partition(":")
    model, inputs = _FAMILIES[family](rest)
    return _alive(model.eval()), inputs


def _alive(model: nn.Module) -> nn.Module:
    """``model`` with batch-norm statistics and zero weights made random: nothing hides behind zeros and ones."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        for name, value in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            if not value.is_floating_point() or value.numel() < 2:
                continue
            flat = value.detach()
            if bool((flat == flat.flatten()[0]).all()):
                positive = name.endswith(("var", "weight", "gamma")) and float(flat.flatten()[0]) >= 0
                fresh = torch.rand(value.shape, generator=generator)
                flat.copy_(fresh * 0.5 + 0.75 if positive and value.dim() < 2 else (fresh - 0.5) * 0.2)
    return model


def _image(size: int = _SIZE) -> Inputs:
    return (torch.randn(2, 3, size, size),)


def _torchvision(name: str) -> Built:
    from torchvision import models

    options: dict[str, Any] = {"aux_logits": False} if name in ("inception_v3", "googlenet") else {}
    return models.get_model(name, weights=None, **options), _image(_SIZES.get(f"tv:{name}", _SIZE))


class _Field(nn.Module):
    """One entry of a dictionary that a model returns."""

    def __init__(self, model: nn.Module, key: str) -> None:
        super().__init__()
        self.model, self.key = model, key

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.model(x)[self.key]
        return result


def _segmentation(name: str) -> Built:
    from torchvision.models import segmentation

    model = getattr(segmentation, name)(weights=None, weights_backbone=None)
    return _Field(model, "out"), _image()


class _Heads(nn.Module):
    """A detector up to its raw heads: no anchors, no selection of boxes."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = detector.backbone, detector.head

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features = list(self.backbone(x).values())  # type: ignore[operator]
        found: dict[str, Tensor] = self.head(features)  # type: ignore[operator]
        return found


def _detection(name: str) -> Built:
    from torchvision.models import detection

    return _Heads(getattr(detection, name)(weights=None, weights_backbone=None)), _image()


def _timm(name: str) -> Built:
    import timm

    model: Any = timm.create_model(name, pretrained=False)
    channels, height, width = model.pretrained_cfg.get("input_size", (3, _SIZE, _SIZE))
    return model, (torch.randn(2, channels, height, width),)


class _Logits(nn.Module):
    """A transformers model on token ids, giving one tensor."""

    def __init__(self, model: nn.Module, field: str) -> None:
        super().__init__()
        self.model, self.field = model, field

    def forward(self, ids: Tensor) -> Tensor:
        extra = {"decoder_input_ids": ids} if self.field == "seq2seq" else {}
        output = self.model(input_ids=ids, **extra)
        result: Tensor = output.last_hidden_state if self.field == "hidden" else output.logits
        return result


def _transformers(name: str) -> Built:
    import transformers

    t: Any = transformers  # its configurations are typed more narrowly than they are used

    small = {"hidden_size": 128, "num_hidden_layers": 2, "intermediate_size": 256, "vocab_size": 1000}
    heads = {"num_attention_heads": 8}
    made: dict[str, Callable[[], nn.Module]] = {
        "bert": lambda: _Logits(t.BertForSequenceClassification(t.BertConfig(**small, **heads)), "logits"),
        "gpt2": lambda: _Logits(
            t.GPT2LMHeadModel(t.GPT2Config(n_embd=128, n_layer=2, n_head=8, vocab_size=1000, use_cache=False)), "logits"
        ),
        "llama_gqa": lambda: _Logits(
            t.LlamaForCausalLM(t.LlamaConfig(**small, **heads, num_key_value_heads=2, use_cache=False)), "logits"
        ),
        "t5": lambda: _Logits(
            t.T5ForConditionalGeneration(
                t.T5Config(
                    d_model=128, d_kv=16, d_ff=256, num_layers=2, num_heads=8, vocab_size=1000, use_cache=False,
                    decoder_start_token_id=0,
                )
            ),
            "seq2seq",
        ),
    }  # fmt: skip
    return made[name](), (torch.randint(0, 1000, (2, 16)),)


class UNet(nn.Module):
    """A two-level U-Net whose way up is transposed convolutions."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.down = nn.ModuleList([self._block(3, width), self._block(width, 2 * width)])
        self.middle = self._block(2 * width, 4 * width)
        self.up = nn.ModuleList(
            [nn.ConvTranspose2d(4 * width, 2 * width, 2, 2), nn.ConvTranspose2d(2 * width, width, 2, 2)]
        )
        self.merge = nn.ModuleList([self._block(4 * width, 2 * width), self._block(2 * width, width)])
        self.head = nn.Conv2d(width, 5, 1)

    @staticmethod
    def _block(i: int, o: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(i, o, 3, 1, 1), nn.BatchNorm2d(o), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        kept = []
        for down in self.down:
            x = down(x)
            kept.append(x)
            x = F.max_pool2d(x, 2)
        x = self.middle(x)
        for up, merge in zip(self.up, self.merge, strict=True):
            x = merge(torch.cat([up(x), kept.pop()], 1))
        result: Tensor = self.head(x)
        return result


class LSTM(nn.Module):
    """Two recurrent layers and a classifier on the last step."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(32, 64, 2, batch_first=True), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.head(self.lstm(x)[0][:, -1])
        return result


class PixelShuffle(nn.Module):
    """Super-resolution by pixel shuffle."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 64, 3, 1, 1), nn.ReLU(), nn.Conv2d(64, 64, 3, 1, 1), nn.ReLU())
        self.up, self.head = nn.Conv2d(64, 128, 3, 1, 1), nn.Conv2d(32, 3, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.head(F.relu(F.pixel_shuffle(self.up(self.body(x)), 2)))
        return result


class TiedLinear(nn.Module):
    """An embedding whose table is the head's weight."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(100, 64)
        self.body = nn.Sequential(nn.Linear(64, 128), nn.GELU(), nn.Linear(128, 64))
        self.head = nn.Linear(64, 100, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        result: Tensor = self.head(x + self.body(x))
        return result


_OWN: dict[str, Callable[[], Built]] = {
    "convtranspose_unet": lambda: (UNet(), (torch.randn(2, 3, 64, 64),)),
    "lstm": lambda: (LSTM(), (torch.randn(2, 12, 32),)),
    "pixelshuffle": lambda: (PixelShuffle(), (torch.randn(2, 3, 32, 32),)),
    "tied_linear": lambda: (TiedLinear(), (torch.randint(0, 100, (2, 12)),)),
}

_FAMILIES: dict[str, Callable[[str], Built]] = {
    "tv": _torchvision,
    "seg": _segmentation,
    "det": _detection,
    "timm": _timm,
    "hf": _transformers,
    "x": lambda name: _OWN[name](),
}
