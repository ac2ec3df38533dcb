"""Every torchvision model of the list, default pipeline, no hints: exact, smaller, in torch and in ONNX Runtime.

The whole list is `slow` (about 15 minutes on two cores); a few small models run every time.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

import prunec
from prunec.ir.analysis import analyse
from prunec.passes.canonicalize import canonical
from prunec.passes.groups import find_groups

models = pytest.importorskip("torchvision", reason="torchvision is not installed").models

QUICK = ("resnet18", "mobilenet_v3_small", "shufflenet_v2_x1_0", "squeezenet1_1")
SLOW = (
    "alexnet convnext_tiny densenet121 efficientnet_b0 efficientnet_v2_s inception_v3 maxvit_t mobilenet_v2 "
    "regnet_y_400mf resnet50 resnext50_32x4d swin_t vgg11_bn vit_b_16"
).split()


def _model(name: str) -> tuple[torch.nn.Module, tuple[torch.Tensor, ...]]:
    torch.manual_seed(0)
    options: dict[str, Any] = {"init_weights": True} if name in ("inception_v3", "googlenet") else {}
    options |= {"aux_logits": False} if name == "googlenet" else {}
    size = 299 if name == "inception_v3" else 224
    return models.get_model(name, weights=None, **options).eval(), (torch.randn(1, 3, size, size),)


@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(n, marks=pytest.mark.slow) for n in SLOW)])
def test_half_of_the_units(name: str) -> None:
    model, inputs = _model(name)
    result = prunec.compile(model, inputs, ratio=0.5, measure=False)
    report = result.report
    assert report["verify"]["max_rel_err"] < 1e-4
    assert report["verify"]["onnx_rel_err"] < 1e-4
    assert report["params"]["ratio"] < 0.6
    assert report["macs"]["ratio"] < 0.6
    assert abs(report["units"]["removed"] / report["units"]["total"] - 0.5) < 0.01
    assert report["opaque_ops"] == {}
    assert result.module is not None
    assert set(result.module.state_dict()) == set(model.state_dict())
    assert _units_through_onnx(model, inputs) == report["units"]["total"]


def sparse(model: torch.nn.Module) -> torch.nn.Module:
    """``model`` with 30 % of its filters zero at random, biases and the shifts of its batch norms as they are."""
    draw = torch.Generator().manual_seed(0)
    layers = [m for m in model.modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.Linear)) and len(m.weight) > 10]
    with torch.no_grad():
        layers[-1].weight.normal_(std=0.02, generator=draw)  # a head of zeros would hide everything
        for layer in layers[:-1]:
            layer.weight[torch.rand(layer.weight.shape[0], generator=draw) < 0.3] = 0
        for norm in model.modules():
            if isinstance(norm, torch.nn.BatchNorm2d):
                norm.weight.uniform_(0.5, 1.5, generator=draw)
                norm.bias.uniform_(-0.5, 0.5, generator=draw)
    return model


@pytest.mark.parametrize("name", [*QUICK[:2], *(pytest.param(n, marks=pytest.mark.slow) for n in (*QUICK[2:], *SLOW))])
def test_filters_of_zeros_go_without_changing_an_output(name: str) -> None:
    model, inputs = _model(name)
    result = prunec.compile(sparse(model), inputs, "shrink,verify", measure=False)
    x = torch.randn(4, *inputs[0].shape[1:], generator=torch.Generator().manual_seed(1))
    assert result.module is not None
    with torch.no_grad():
        before, after = model(x), result.module(x)
    assert float((before - after).abs().max() / before.abs().max()) < 1e-5
    assert bool((before.argmax(1) == after.argmax(1)).all())
    assert result.report["units"]["removed"] > 0 and result.report["params"]["ratio"] < 1


UNCONSTRAINED = (
    "convnext_tiny densenet121 efficientnet_b0 googlenet mnasnet1_0 mobilenet_v2 mobilenet_v3_large regnet_y_400mf "
    "resnet18 resnet50 shufflenet_v2_x1_0 squeezenet1_1 vit_b_16"
).split()
_FREE = "score{{method=lamp}},groups{{mode=unconstrained}},plan{{ratio=0.5}},layout{{{layout}}},eliminate,{then}verify"


@pytest.mark.slow
@pytest.mark.parametrize("name", UNCONSTRAINED)
def test_each_layer_its_own_channels(name: str) -> None:
    """Exact however layers get their channels; where copies are forbidden ONNX Runtime moves no more than before."""
    model, inputs = _model(name)
    layouts = {"copies=forbid": "fold,", "copies=cheapest": "fold,", "copies=naive": "reorder,fold,"}
    for layout, then in layouts.items():
        forbids = layout == "copies=forbid"
        result = prunec.compile(model, inputs, _FREE.format(layout=layout, then=then), measure=forbids)
        assert result.report["verify"]["max_rel_err"] < 1e-4
        assert result.report["verify"]["onnx_rel_err"] < 1e-4
        assert not forbids or result.report["copies"] == 0


def _units_through_onnx(model: torch.nn.Module, inputs: Any) -> int:
    """Prunable units of the same model read from the ONNX file that it is exported to."""
    from prunec.api import emit_onnx, read
    from prunec.ir.frontends.onnx import from_onnx

    graph, _ = read(model, inputs)
    dense = from_onnx(emit_onnx(graph), None)
    return int(find_groups(analyse(canonical(dense))).prunable.size)
